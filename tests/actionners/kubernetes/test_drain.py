"""kubernetes:cordon and kubernetes:drain.

The node is one of this test's own, without a kubelet, and the pods are deleted as a kubelet would:
draining the only real node would take the ground from under the other tests.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes.cordon import Cordon
from falco_talon.actionners.kubernetes.drain import Drain
from falco_talon.clients import Clients
from falco_talon.errors import Ignored, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import CreatePod, about
from tests.actionners.kubernetes.terminating import READY, budget
from tests.cluster.cluster import Cluster, Resource
from tests.cluster.errors import ClusterError
from tests.faults import Fault, FaultyApi, faulty_api

__all__ = ["faulty_api"]


async def drain(clients: Clients, event: Event, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Drain(Drain.Parameters.model_validate(parameters), clients)
    await plugin.check(event)
    return await plugin.run(event)


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node without a kubelet, which the controllers take for a living one."""
    cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": namespace}})
    yield namespace
    pods = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    for pod in pods:
        end(cluster, pod)
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


def end(cluster: Cluster, pod: Resource) -> None:
    """Delete the pod for good, as the kubelet does when it has ended."""
    metadata = pod["metadata"]
    try:
        cluster.request(
            "DELETE",
            f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}",
            {"gracePeriodSeconds": 0},
        )
    except ClusterError as error:
        assert error.status == 404


@pytest.fixture
def place(cluster: Cluster, namespace: str, node: str, create_pod: CreatePod) -> CreatePod:
    """Put a pod on that node, where it is said to run."""

    def place(name: str, **options: Any) -> Resource:
        # Nobody is on that node to take it for what it is.
        tolerations = [{"operator": "Exists"}]
        pod = create_pod(name, node=node, tolerations=tolerations, **options)
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        cluster.request("PATCH", path, {"status": READY}, "application/merge-patch+json")
        return pod

    return place


def left(cluster: Cluster, namespace: str) -> set[str]:
    """Return the names of the pods that nobody has asked to go."""
    pods = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def owner(kind: str, name: str = "a") -> Resource:
    """Return an owner of this kind that no controller and no collector knows."""
    uid = "00000000-0000-4000-8000-000000000001"
    return {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name, "uid": uid}}


async def test_cordon(clients: Clients, cluster: Cluster, node: str, place: CreatePod) -> None:
    """The node takes no more pods, also when it is cordoned twice."""
    place("web")
    plugin = Cordon(Cordon.Parameters(), clients)
    for _ in range(2):
        result = await plugin.run(about(node, "web"))
        assert result == Result(f"the node '{node}' has been cordoned", {"node": node})
        assert cluster.request("GET", f"/api/v1/nodes/{node}")["spec"]["unschedulable"] is True


async def test_ac_26_drained(
    clients: Clients, cluster: Cluster, node: str, place: CreatePod
) -> None:
    """AC-26: the node is cordoned first; every pod on it is evicted, and no other."""
    for name in ("web", "b", "c"):
        place(name)
    cluster.create_pod(node, "elsewhere", schedulerName="nobody")
    result = await drain(clients, about(node, "web"))
    assert result == Result(
        f"the node '{node}' has been drained: 3 pods evicted, 0 ignored pods", {"node": node}
    )
    assert cluster.request("GET", f"/api/v1/nodes/{node}")["spec"]["unschedulable"] is True
    assert left(cluster, node) == {"elsewhere"}


async def test_ac_26_spared(
    clients: Clients, cluster: Cluster, node: str, place: CreatePod
) -> None:
    """AC-26: static pods and those of a DaemonSet stay, others if it is wished."""
    place("web")
    place("daemon", owner=owner("DaemonSet"))
    place("static", annotations={"kubernetes.io/config.mirror": "x"})
    place("stateful", owner=owner("StatefulSet"))
    result = await drain(clients, about(node, "web"), ignore_statefulsets=True)
    assert result.text.endswith("1 pods evicted, 3 ignored pods")
    assert left(cluster, node) == {"daemon", "static", "stateful"}
    result = await drain(clients, about(node, "web"), ignore_daemonsets=False)
    assert left(cluster, node) == {"static"}


async def test_ac_26_own_pods_are_spared(
    clients: Clients, cluster: Cluster, node: str, place: CreatePod, monkeypatch: Any
) -> None:
    """AC-26: what lives in our own namespace stays: nobody drains himself."""
    place("web")
    monkeypatch.setattr(clients.kubernetes._access, "namespace", node)
    result = await drain(clients, about(node, "web"))
    assert result.text.endswith("0 pods evicted, 1 ignored pods")
    assert left(cluster, node) == {"web"}


@pytest.fixture
def replica_set(cluster: Cluster, namespace: str) -> Callable[[int, int], Resource]:
    """Make a ReplicaSet that no controller touches, with so many ready of so many."""

    def make(ready: int, desired: int) -> Resource:
        labels = {"app": "web"}
        containers = [{"name": "web", "image": "busybox"}]
        spec = {
            "replicas": desired,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": containers, "schedulerName": "nobody"},
            },
        }
        path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
        cluster.request("POST", path, {"metadata": {"name": "rs"}, "spec": spec})

        def counted() -> bool:
            pods = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
            for pod in pods[:ready]:
                where = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
                cluster.request("PATCH", where, {"status": READY}, "application/merge-patch+json")
            status = cluster.request("GET", f"{path}/rs")["status"]
            return bool(status.get("readyReplicas", 0) == ready)

        cluster.wait_for(counted, what="the ReplicaSet to count its ready pods")
        return owner("ReplicaSet", "rs")

    return make


@pytest.mark.parametrize(
    ("minimum", "evicted"),
    [("1", 3), ("3", 1), ("4", 0), ("67%", 1), ("100%", 1), ("34%", 2), ("0%", 3)],
)
async def test_ac_05_healthy_replicas(
    minimum: str,
    evicted: int,
    clients: Clients,
    node_cluster: Cluster,
    node: str,
    place: CreatePod,
    replica_set: Callable[[int, int], Resource],
) -> None:
    """AC-5: each is evicted while enough are ready, in number or in percent of desired."""
    rs = replica_set(3, 3)
    for name in ("web", "b", "c"):
        place(name, owner=rs)
    result = await drain(clients, about(node, "web"), min_healthy_replicas=minimum)
    assert f"{evicted} pods evicted, {3 - evicted} ignored pods" in result.text


async def test_ac_02_unknown_replica_set(
    clients: Clients, cluster: Cluster, node: str, place: CreatePod
) -> None:
    """AC-2: a pod whose ReplicaSet cannot be asked stays and counts as an error."""
    place("web", owner=owner("ReplicaSet"))
    place("b", terminationGracePeriodSeconds=0)
    with pytest.raises(PluginError) as raised:
        await drain(clients, about(node, "web"), min_healthy_replicas="1")
    assert str(raised.value).startswith(
        f"the node '{node}' has not been fully drained: 0 pods ignored, 0 eviction errors,"
        " 0 were not evicted during max_wait_period, 1 other errors, 1 pods evicted;"
        " error getting replica set for pod 'web': replicasets.apps"
    )
    assert left(cluster, node) == {"web"}
    result = await drain(
        clients, about(node, "web"), min_healthy_replicas="1", ignore_error=True
    )  # fmt: skip
    assert result.text == (
        f"the node '{node}' has been drained, errors are ignored:"
        " 0 ignored pods, 0 eviction errors, 1 other errors, 0 pods evicted"
    )


async def test_ac_26_budget(
    clients: Clients, node_cluster: Cluster, node: str, place: CreatePod
) -> None:
    """AC-26: a PodDisruptionBudget is respected; without a wait the first refusal counts."""
    budget(node_cluster, node)
    place("web", labels={"app": "kept"})
    place("free")
    with pytest.raises(PluginError) as raised:
        await drain(clients, about(node, "web"))
    assert "0 pods ignored, 1 eviction errors, 0 were not" in str(raised.value)
    assert "violate the pod's disruption budget" in str(raised.value)
    assert left(node_cluster, node) == {"web"}


async def test_ac_26_budget_that_allows_later(
    clients: Clients, node_cluster: Cluster, node: str, place: CreatePod
) -> None:
    """AC-26: an eviction that a budget forbids is tried again until the time is over."""
    where = budget(node_cluster, node)
    pod = place("web", labels={"app": "kept"})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(drain(clients, about(node, "web"), max_wait_period=20))
        await asyncio.sleep(1.5)
        assert left(node_cluster, node) == {"web"}
        await asyncio.to_thread(node_cluster.request, "DELETE", where)
        while left(node_cluster, node):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        assert not task.done(), "the pod has not ended yet"
        end(node_cluster, pod)
    assert task.result().text.endswith("1 pods evicted, 0 ignored pods")


async def test_wait_is_over(
    clients: Clients, node_cluster: Cluster, node: str, place: CreatePod
) -> None:
    """A pod that does not end in time is counted; one of an excluded namespace is not."""
    place("web", terminationGracePeriodSeconds=60)
    started = time.monotonic()
    with pytest.raises(PluginError, match="1 were not evicted during max_wait_period, 0 other"):
        await drain(clients, about(node, "web"), max_wait_period=1)
    assert 0.9 < time.monotonic() - started < 4
    excluded = {"max_wait_period": 30, "wait_period_excluded_namespaces": [node]}
    await drain(clients, about(node, "web"), **excluded)
    assert time.monotonic() - started < 8


def test_time_needed() -> None:
    """The wait counts beside the engine's limit for actions."""
    clients = Clients()
    assert Drain(Drain.Parameters(max_wait_period=300), clients).duration_seconds == 300
    assert Drain(Drain.Parameters(), clients).duration_seconds == 0


async def test_order(
    clients: Clients, cluster: Cluster, node: str, place: CreatePod, priority: str
) -> None:
    """The pod of the event goes first, then those of the lowest priority, then by name."""
    options: dict[str, Any] = {"terminationGracePeriodSeconds": 60}
    place("a-important", priorityClassName=priority, **options)
    for name in ("c", "b", "web"):
        place(name, **options)
    await drain(clients, about(node, "web"), max_parallel_evictions=1)
    pods = cluster.request("GET", f"/api/v1/namespaces/{node}/pods")["items"]
    pods.sort(key=lambda pod: int(pod["metadata"]["resourceVersion"]))
    assert [pod["metadata"]["name"] for pod in pods] == ["web", "b", "c", "a-important"]


@pytest.fixture
def priority(cluster: Cluster, namespace: str) -> Iterator[str]:
    """The name of a class of important pods."""
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    cluster.request("POST", path, {"metadata": {"name": namespace}, "value": 1000})
    yield namespace
    cluster.request("DELETE", f"{path}/{namespace}")


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [({}, 45), ({"grace_period_seconds": 7}, 7), ({"grace_period_seconds": 0}, None)],
    ids=["the pod's own", "given", "at once"],
)
async def test_ac_04_grace_period(
    parameters: dict[str, int],
    seconds: int | None,
    clients: Clients,
    cluster: Cluster,
    node: str,
    place: CreatePod,
) -> None:
    """AC-4: the pods get the seconds they are given, or their own."""
    place("web", terminationGracePeriodSeconds=45)
    await drain(clients, about(node, "web"), **parameters)
    pods = cluster.request("GET", f"/api/v1/namespaces/{node}/pods")["items"]
    left = [pod["metadata"]["deletionGracePeriodSeconds"] for pod in pods]
    assert left == ([] if seconds is None else [seconds])


@pytest.mark.parametrize("parallel", [1, 3])
async def test_ac_26_parallelism(
    parallel: int, faulty_api: tuple[FaultyApi, Clients], node: str, place: CreatePod
) -> None:
    """AC-26: so many evictions are under way at once, and no more."""
    api, clients = faulty_api
    api.faults = [Fault("POST", "/eviction", times=100, seconds=0.2)]
    for number in range(6):
        place(f"web-{number}", terminationGracePeriodSeconds=0)
    await drain(clients, about(node, "web-0"), max_parallel_evictions=parallel)
    assert api.most_at_once == parallel


async def test_ac_26_budget_holds_nobody_else_up(
    clients: Clients, node_cluster: Cluster, node: str, place: CreatePod
) -> None:
    """AC-26: while the eviction of one pod is tried again, the others go."""
    budget(node_cluster, node)
    place("web", labels={"app": "kept"})
    place("z", terminationGracePeriodSeconds=0)
    with pytest.raises(PluginError, match="1 eviction errors, 0 were not .* 1 pods evicted; error"):
        await drain(clients, about(node, "web"), max_parallel_evictions=1, max_wait_period=3)
    assert left(node_cluster, node) == {"web"}


async def test_finished_pods(
    clients: Clients, cluster: Cluster, node: str, place: CreatePod
) -> None:
    """Pods that have ended are removed as well, and count for no replica."""
    for name, phase in (("web", "Succeeded"), ("b", "Failed")):
        place(name, owner=owner("ReplicaSet"))
        path = f"/api/v1/namespaces/{node}/pods/{name}/status"
        status = {"status": {"phase": phase}}
        cluster.request("PATCH", path, status, "application/merge-patch+json")
    result = await drain(clients, about(node, "web"), min_healthy_replicas="100%")
    assert result.text.endswith("2 pods evicted, 0 ignored pods")


async def test_ending_namespace(
    clients: Clients, node_cluster: Cluster, node: str, place: CreatePod
) -> None:
    """A pod whose namespace is being deleted goes with that: it is waited for, and no error."""
    pod = place("web", terminationGracePeriodSeconds=60)
    node_cluster.request("DELETE", f"/api/v1/namespaces/{node}")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(drain(clients, about(node, "web"), max_wait_period=20))
        await asyncio.sleep(1)
        await asyncio.to_thread(end, node_cluster, pod)
    assert task.result().text.endswith("1 pods evicted, 0 ignored pods")


async def test_progress(clients: Clients, cluster: Cluster, node: str, place: CreatePod) -> None:
    """How far it is stands in the log: at the begin, every few seconds, and each pod that stays."""
    place("web", terminationGracePeriodSeconds=60)
    place("b", terminationGracePeriodSeconds=0)
    place("static", annotations={"kubernetes.io/config.mirror": "x"})
    told: list[str] = []
    plugin = Drain(Drain.Parameters(max_wait_period=6), clients)
    with pytest.raises(PluginError) as raised:
        await plugin.work(about(node, "web"), told.append)
    assert told == [
        f"the node '{node}' is cordoned: 2 pods to evict, 1 ignored pods",
        "2 of 2 pods evicted, 1 of them are gone",
        "pod 'web' did not terminate within the max_wait_period",
    ]
    assert str(raised.value) == (
        f"the node '{node}' has not been fully drained: 1 pods ignored, 0 eviction errors,"
        " 1 were not evicted during max_wait_period, 0 other errors, 2 pods evicted;"
        " pod 'web' did not terminate within the max_wait_period"
    )


async def test_protected_node(cluster: Cluster, node: str, place: CreatePod) -> None:
    """A node that `guard.protected` lists is neither cordoned nor drained."""
    place("web")
    async with Clients(kubeconfig=cluster.kubeconfig, protected=[f"nodes/{node}"]) as clients:
        await clients.ready({"kubernetes"})
        for plugin in (Cordon(Cordon.Parameters(), clients), Drain(Drain.Parameters(), clients)):
            with pytest.raises(Ignored, match=f"the node '{node}' is protected and will be ign"):
                await plugin.run(about(node, "web"))
    assert "unschedulable" not in cluster.request("GET", f"/api/v1/nodes/{node}")["spec"]
    assert left(cluster, node) == {"web"}


@pytest.mark.parametrize(
    "parameters",
    [{"max_wait_period": -1}, {"min_healthy_replicas": "101%"}, {"max_parallel_evictions": 0}],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any]) -> None:
    """Values that mean nothing stop the load of the rules."""
    with pytest.raises(ValidationError):
        Drain.Parameters.model_validate(parameters)
