"""kubernetes:terminate"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes_asyncio.client import Configuration
from pydantic import ValidationError

from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.clients import Clients
from falco_talon.clients.access import Access
from falco_talon.clients.kubernetes import Kubernetes, Object
from falco_talon.errors import CheckError, Ignored, PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import CreatePod, about
from tests.actionners.kubernetes.terminating import READY, budget, is_gone, owner, run
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.endpoint import Answer, Endpoint

STANDALONE = {"ignore_standalone_pods": False}


async def test_terminated(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """The pod is deleted, and the result says so in the reference's words."""
    create_pod()
    assert await run(clients, event, **STANDALONE) == Result(
        f"the pod 'web' in the namespace '{namespace}' has been terminated",
        {"pod": "web", "namespace": namespace},
    )
    assert is_gone(cluster, namespace)


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [
        pytest.param({}, 45, id="AC-4: unset is the pod's own"),
        pytest.param({"grace_period_seconds": None}, 45, id="null is unset"),
        pytest.param({"grace_period_seconds": 7}, 7, id="given"),
        pytest.param({"grace_period_seconds": 0}, None, id="0 is at once"),
    ],
)
async def test_ac_04_grace_period(
    parameters: dict[str, Any],
    seconds: int | None,
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    event: Event,
) -> None:
    """The pod gets the seconds it is given, or its own."""
    # On a node: without one the API server ends a pod at once, whatever the grace period.
    cluster.create_pod(namespace, node="no-kubelet", terminationGracePeriodSeconds=45)
    await run(clients, event, **STANDALONE, **parameters)
    if seconds is None:
        with pytest.raises(ClusterError):
            cluster.pod(namespace)
        return
    assert cluster.pod(namespace)["metadata"]["deletionGracePeriodSeconds"] == seconds
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/web?gracePeriodSeconds=0")


@pytest.mark.parametrize(
    ("kind", "parameters", "reason"),
    [
        pytest.param("", {}, "is a standalone pod", id="AC-3: standalone, by default"),
        pytest.param("", {"ignore_standalone_pods": False}, None, id="standalone"),
        pytest.param(
            "DaemonSet", {"ignore_daemonsets": True}, "belongs to a DaemonSet", id="daemonset"
        ),
        pytest.param("DaemonSet", {}, None, id="daemonset, by default"),
        pytest.param(
            "StatefulSet",
            {"ignore_statefulsets": True},
            "belongs to a StatefulSet",
            id="statefulset",
        ),
        pytest.param("StatefulSet", {"ignore_daemonsets": True}, None, id="statefulset, other"),
        pytest.param("ReplicaSet", {"ignore_daemonsets": True}, None, id="replicaset"),
        pytest.param("Job", {"min_healthy_replicas": "100%"}, None, id="job"),
    ],
)
async def test_ac_02_ac_03_exemptions(
    kind: str,
    parameters: dict[str, Any],
    reason: str | None,
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
    event: Event,
) -> None:
    """AC-2: a pod that is to be spared is left alone, and the outcome is `ignored` with why."""
    create_pod(owner=owner(kind) if kind else None)
    if reason is None:
        await run(clients, event, **parameters)
        assert is_gone(cluster, namespace)
        return
    with pytest.raises(Ignored) as raised:
        await run(clients, event, **parameters)
    text = f"the pod 'web' in the namespace '{namespace}' {reason} and will be ignored."
    assert (str(raised.value), raised.value.objects) == (
        text,
        {"pod": "web", "namespace": namespace},
    )


@pytest.mark.parametrize(
    ("uid", "deleted"),
    [
        pytest.param("other", False, id="another pod of that name"),
        pytest.param("same", True, id="the pod of the event"),
    ],
)
async def test_recreated_before(
    uid: str,
    deleted: bool,
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
) -> None:
    """A pod that took the name after the event is spared, if the event tells the uid."""
    real = create_pod()["metadata"]["uid"]
    fields = {"k8s.pod.uid": real if uid == "same" else "00000000-0000-4000-8000-000000000001"}
    with contextlib.nullcontext() if deleted else pytest.raises(Ignored, match="been recreated"):
        await run(clients, about(namespace, "web", **fields), **STANDALONE)
    assert is_gone(cluster, namespace) is deleted


async def test_static_pod(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """A static pod is not "terminated": its kubelet would make the mirror anew, and go on. The uid
    of the event is the kubelet's own and means nothing.
    """
    create_pod(annotations={"kubernetes.io/config.mirror": "x"}, nodeName="no-kubelet")
    event = about(namespace, "web", **{"k8s.pod.uid": "0123456789abcdef0123456789abcdef"})
    with pytest.raises(Ignored, match="is a static pod, which only its node can end, and will"):
        await run(clients, event, **STANDALONE)
    assert not is_gone(cluster, namespace)


async def test_finished_pod(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """A pod that has ended counts for no replica: it can go, whatever the minimum."""
    create_pod(owner=owner("ReplicaSet"))
    path = f"/api/v1/namespaces/{namespace}/pods/web/status"
    status = {"status": {"phase": "Failed"}}
    cluster.request("PATCH", path, status, "application/merge-patch+json")
    await run(clients, event, min_healthy_replicas="100%")
    assert is_gone(cluster, namespace)


class _Racing(Kubernetes):
    """A client on which something else happens between the look at the pod and its deletion."""

    meanwhile: Callable[[], None]

    async def get(self, path: str, **query: str) -> Object:
        found = await super().get(path, **query)
        self.meanwhile()
        return found


@pytest.fixture
def race(clients: Clients) -> Callable[[Callable[[], None]], None]:
    """Let this happen while the actionner runs."""

    def race(meanwhile: Callable[[], None]) -> None:
        clients.kubernetes.__class__ = _Racing
        clients.kubernetes.meanwhile = meanwhile  # type: ignore[attr-defined]

    return race


async def test_recreated_meanwhile(
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
    event: Event,
    race: Callable[..., None],
) -> None:
    """A pod that takes the name while we look is not deleted."""
    path = f"/api/v1/namespaces/{namespace}/pods/web"
    create_pod()
    race(lambda: (cluster.request("DELETE", path), create_pod()))
    with pytest.raises(CheckError, match="has been replaced in the meantime"):
        await run(clients, event, **STANDALONE)
    assert not is_gone(cluster, namespace)


async def test_gone_meanwhile(
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
    event: Event,
    race: Callable[..., None],
) -> None:
    """A pod that goes by itself while we look does not exist."""
    create_pod()
    race(lambda: cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/web"))
    with pytest.raises(CheckError, match="doesn't exist"):
        await run(clients, event, **STANDALONE)


async def test_missing_pod(clients: Clients, namespace: str) -> None:
    """A pod that is not there is an error of the event."""
    with pytest.raises(CheckError, match=f"^the pod 'a' in the namespace '{namespace}' doesn't"):
        await run(clients, about(namespace, "a"))


@pytest.mark.parametrize(
    "answer",
    [Answer(429, b"{}"), Answer(500, b"{}"), Answer(fault="hang"), Answer(fault="reset")],
    ids=["429", "500", "hang", "reset"],
)
async def test_ac_14_faults_are_transient(endpoint: Endpoint, answer: Answer) -> None:
    """AC-14: an API server in trouble is worth another try; it does not mean that no pod is."""
    endpoint.answers = [answer]
    clients = Clients()
    clients._kubernetes = Kubernetes(Access(Configuration(host=endpoint.url)), seconds=0.3)
    with pytest.raises(TransientError):
        await run(clients, about("ns", "web"))
    await clients.close()


@pytest.fixture
def kept(node_cluster: Cluster, namespace: str, create_pod: CreatePod) -> str:
    """Make a pod that a budget keeps, and return the path of the budget."""
    path = budget(node_cluster, namespace)
    create_pod(labels={"app": "kept"})
    status = f"/api/v1/namespaces/{namespace}/pods/web/status"
    node_cluster.request("PATCH", status, {"status": READY}, "application/merge-patch+json")
    return path


async def test_a_budget_is_respected_on_demand(
    kept: str, clients: Clients, node_cluster: Cluster, namespace: str, event: Event
) -> None:
    """With `max_wait_period` the eviction is tried until the budget allows it, or time is over."""
    with pytest.raises(PluginError, match="disruption budget") as raised:
        await run(clients, event, **STANDALONE, max_wait_period=0)
    assert not isinstance(raised.value, TransientError)
    assert not is_gone(node_cluster, namespace)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(clients, event, **STANDALONE, max_wait_period=20))
        await asyncio.sleep(1.5)
        assert not task.done()
        assert not is_gone(node_cluster, namespace)
        await asyncio.to_thread(node_cluster.request, "DELETE", kept)
    assert task.result().text.endswith("has been terminated")
    assert is_gone(node_cluster, namespace)


@pytest.mark.usefixtures("kept")
async def test_no_budget_holds_up_a_deletion(
    clients: Clients, node_cluster: Cluster, namespace: str, event: Event
) -> None:
    """A pod that an attacker holds is not kept for the sake of a budget."""
    await run(clients, event, **STANDALONE)
    assert is_gone(node_cluster, namespace)


@pytest.mark.parametrize(
    "parameters",
    [
        {"grace_period_seconds": -1},
        {"max_wait_period": -1},
        {"grace_period_seconds": "soon"},
        {"min_healthy_replicas": "-1"},
        {"min_healthy_replicas": "101%"},
        {"min_healthy_replicas": "many"},
        {"min_healthy_replicas": "5 %"},
        {"min_healthy_replicas": 1.5},
        {"ignore_daemonsets": "maybe"},
    ],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any]) -> None:
    """Values that mean nothing stop the load of the rules."""
    with pytest.raises(ValidationError):
        Terminate.Parameters.model_validate(parameters)


async def test_ac_14_forbidden(
    create_pod: CreatePod, event: Event, as_account: Callable[..., Any]
) -> None:
    """AC-14: a pod that we may not see is not reported as missing."""
    create_pod()
    async with Clients(kubeconfig=as_account(())) as clients:
        await clients.ready({"kubernetes"})
        with pytest.raises(PluginError, match=r"cannot get resource .*\(403 Forbidden\)"):
            await run(clients, event)
