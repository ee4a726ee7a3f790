"""kubernetes:terminate on the pods of real ReplicaSets, DaemonSets and StatefulSets."""

import contextlib
from collections.abc import Callable

import pytest

from falco_talon.clients import Clients
from falco_talon.clients.kubernetes import NotFound
from falco_talon.errors import Ignored
from falco_talon.event import Event
from tests.actionners.conftest import CreatePod, about
from tests.actionners.kubernetes.terminating import is_gone, owner, run
from tests.cluster.cluster import Cluster


@pytest.fixture
def replica_set(cluster: Cluster, namespace: str) -> Callable[[int, int], str]:
    """Make a ReplicaSet with so many ready pods of so many, and return the name of a pod."""
    path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"

    def make(ready: int, desired: int) -> str:
        template = {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "schedulerName": "nobody",
                "containers": [{"name": "web", "image": "busybox"}],
            },
        }
        spec = {
            "replicas": desired,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        }
        made = cluster.request("POST", path, {"metadata": {"name": "web"}, "spec": spec})
        if not cluster.has_controllers:
            status = {"replicas": desired, "readyReplicas": ready}
            cluster.request("PUT", f"{path}/web/status", made | {"status": status})
            made |= {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
            cluster.create_pod(namespace, "web-0", owner=made)
            return "web-0"
        pods = cluster.wait_for(lambda: _pods(cluster, namespace, desired), what="the replicas")
        for name in pods[:ready]:
            _set_ready(cluster, namespace, name)
        cluster.wait_for(
            lambda: (
                cluster.request("GET", f"{path}/web")["status"].get("readyReplicas", 0) == ready
            ),
            what="the ReplicaSet to count its ready pods",
        )
        return pods[0]

    return make


def _pods(cluster: Cluster, namespace: str, count: int = 1) -> list[str]:
    found = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    names = [each["metadata"]["name"] for each in found]
    return names if len(names) == count else []


def _set_ready(cluster: Cluster, namespace: str, name: str) -> None:
    """Say what a kubelet would."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    cluster.request("PATCH", path, {"status": status}, "application/merge-patch+json")


@pytest.mark.parametrize(
    ("ready", "desired", "minimum", "deleted"),
    [
        pytest.param(2, 3, "2", True, id="2 of 2"),
        pytest.param(2, 3, 2, True, id="a number"),
        pytest.param(2, 3, "3", False, id="2 of 3"),
        pytest.param(2, 3, "66%", True, id="AC-5: 66.7% of 66%"),
        pytest.param(2, 3, "67%", False, id="AC-5: 66.7% of 67%"),
        pytest.param(3, 3, "100%", True, id="all of 100%"),
        pytest.param(0, 1, "0%", True, id="none of 0%"),
        pytest.param(0, 1, "1", False, id="none of 1"),
        pytest.param(0, 1, "", True, id="no minimum"),
    ],
)
async def test_ac_05_healthy_replicas(
    ready: int,
    desired: int,
    minimum: str | int,
    deleted: bool,
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    replica_set: Callable[[int, int], str],
) -> None:
    """A ReplicaSet keeps the ready replicas it must have, in number or in percent of desired."""
    pod = replica_set(ready, desired)
    outcome = contextlib.nullcontext() if deleted else pytest.raises(Ignored)
    with outcome as raised:
        await run(clients, about(namespace, pod), min_healthy_replicas=minimum)
    assert is_gone(cluster, namespace, pod) is deleted
    if raised:
        assert "belongs to a ReplicaSet without enough healthy replicas" in str(raised.value)


@pytest.mark.parametrize("kind", ["DaemonSet", "StatefulSet"])
async def test_real_owners(
    kind: str, node_cluster: Cluster, clients: Clients, namespace: str
) -> None:
    """The pods that the controllers make are spared, or not, like those made by hand."""
    path = f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s"
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "web", "image": "busybox"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template, "serviceName": "web"}
    if kind == "DaemonSet":
        spec.pop("serviceName")
    node_cluster.request("POST", path, {"metadata": {"name": "web"}, "spec": spec})
    pods = node_cluster.wait_for(lambda: _pods(node_cluster, namespace), what=f"a pod of a {kind}")
    event = about(namespace, pods[0])
    with pytest.raises(Ignored, match=f"belongs to a {kind} and will be ignored"):
        await run(clients, event, **{f"ignore_{kind.lower()}s": True})
    uid = node_cluster.pod(namespace, pods[0])["metadata"]["uid"]
    await run(clients, event)
    assert is_gone(node_cluster, namespace, pods[0], uid)


async def test_running_replicas(node_cluster: Cluster, clients: Clients, namespace: str) -> None:
    """On a real node: one of three replicas goes, the next stays until the set is whole again."""
    path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    container = {"name": "web", "image": "busybox:latest", "command": ["sleep", "3600"]}
    template = {
        "metadata": {"labels": {"app": "web"}},
        # Its end takes a while, so that the set is short of one for the second round.
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    }
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    node_cluster.request("POST", path, {"metadata": {"name": "web"}, "spec": spec})

    def all_ready() -> bool:
        status = node_cluster.request("GET", f"{path}/web")["status"]
        return bool(status.get("readyReplicas", 0) == 3)

    node_cluster.wait_for(all_ready, what="three ready replicas")
    first, second, _ = _pods(node_cluster, namespace, 3)
    await run(clients, about(namespace, first), min_healthy_replicas="100%")
    assert is_gone(node_cluster, namespace, first)
    node_cluster.wait_for(lambda: not all_ready(), what="the set to be short of one")
    with pytest.raises(Ignored, match="without enough healthy replicas"):
        await run(clients, about(namespace, second), min_healthy_replicas="100%")
    assert not is_gone(node_cluster, namespace, second)


async def test_ac_02_lost_replica_set(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """AC-2: if the ReplicaSet cannot be asked, the pod stays and the outcome is an error."""
    create_pod(owner=owner("ReplicaSet"))
    with pytest.raises(NotFound, match='replicasets.apps "a" not found'):
        await run(clients, event, min_healthy_replicas="1")
    assert not is_gone(cluster, namespace)
