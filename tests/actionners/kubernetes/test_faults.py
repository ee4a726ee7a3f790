"""What actionners make of an API server in trouble: the real one, behind one that breaks in."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.annotation import Annotation
from falco_talon.actionners.kubernetes.cordon import Cordon
from falco_talon.actionners.kubernetes.delete import Delete
from falco_talon.actionners.kubernetes.drain import Drain
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.actionners.kubernetes.networkpolicy import NetworkPolicy
from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.clients import Clients
from falco_talon.contexts.k8snode import K8sNode
from falco_talon.errors import PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Actionner
from falco_talon.retry import retrying
from tests.actionners.conftest import CreatePod
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.faults import Fault, FaultyApi, faulty_api

__all__ = ["faulty_api"]

Faulty = tuple[FaultyApi, Clients]


@dataclass(frozen=True)
class Case:
    """An actionner, and the request of it that is to fail."""

    plugin: type[Actionner]
    given: dict[str, Any]
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.plugin.name} {self.method}"


POD = "/pods/web$"
NODE = "/nodes/"
CASES = [
    Case(Terminate, {"ignore_standalone_pods": False}, "GET", POD),
    Case(Terminate, {"ignore_standalone_pods": False}, "DELETE", POD),
    Case(Label, {"labels": {"a": "b"}}, "PATCH", POD),
    Case(Label, {"labels": {"a": "b"}, "level": "node"}, "PATCH", NODE),
    Case(Annotation, {"annotations": {"a": "b"}}, "PATCH", POD),
    Case(NetworkPolicy, {}, "GET", "/networkpolicies"),
    Case(NetworkPolicy, {}, "POST", "/networkpolicies"),
    Case(Delete, {}, "DELETE", POD),
    Case(Cordon, {}, "PATCH", NODE),
    Case(Drain, {"grace_period_seconds": 0}, "GET", "fieldSelector"),
    Case(Drain, {"grace_period_seconds": 0}, "POST", "/eviction"),
    Case(Drain, {"grace_period_seconds": 0, "max_wait_period": 20}, "POST", "/eviction"),
    Case(Terminate, {"ignore_standalone_pods": False, "max_wait_period": 20}, "POST", "/eviction"),
]


@pytest.fixture
def node(cluster: Cluster, namespace: str, create_pod: CreatePod) -> Iterator[str]:
    """A node without a kubelet, and the pod `web` on it."""
    cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": namespace}})
    create_pod(node=namespace, labels={"app": "web"})
    yield namespace
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


@pytest.fixture
def event(namespace: str) -> Event:
    """An event about the pod `web` that both kinds of actionner understand."""
    audited = {"resource": "pods", "name": "web", "namespace": namespace}
    fields = {f"ka.target.{key}": value for key, value in audited.items()}
    return Event(output_fields=fields)


@pytest.fixture
def done(cluster: Cluster, namespace: str, node: str) -> Callable[[Case], bool]:
    """Tell whether the cluster is as the actionner is to leave it."""

    def get(path: str) -> Any:
        try:
            return cluster.request("GET", path)
        except ClusterError as error:
            assert error.status == 404
            return None

    def done(case: Case) -> bool:
        pod = get(f"/api/v1/namespaces/{namespace}/pods/web")
        changed = get(f"/api/v1/nodes/{node}") if case.given.get("level") == "node" else pod
        if case.plugin is Cordon:
            return bool(get(f"/api/v1/nodes/{node}")["spec"].get("unschedulable"))
        if case.plugin is NetworkPolicy:
            path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
            return len(get(path)["items"]) == 1
        if case.plugin in (Label, Annotation):
            field = "labels" if case.plugin is Label else "annotations"
            return bool(changed["metadata"].get(field, {}).get("a") == "b")
        return pod is None or "deletionTimestamp" in pod["metadata"]

    return done


async def run(case: Case, clients: Clients, event: Event) -> None:
    """Run it as the engine does, which tries again after what may pass."""
    plugin = case.plugin(case.plugin.Parameters.model_validate(case.given), clients)
    await retrying(plugin.check, event)
    await retrying(plugin.work, event, print)


@pytest.mark.parametrize(
    ("case", "status", "headers", "seconds", "least_seconds"),
    [
        pytest.param(case, *fault, id=f"{name}, {case}")
        for name, fault in {
            "409": (409, {}, 0.0, 0.0),
            "429 with a wait": (429, {"Retry-After": "1"}, 0.0, 1.0),
            "500": (500, {}, 0.0, 0.0),
            "slow": (0, {}, 0.6, 0.6),
        }.items()
        for case in CASES
        if not (name == "409" and case.method == "GET")  # reading has no conflicts
    ],
)
async def test_passing_fault(
    case: Case,
    status: int,
    headers: dict[str, str],
    seconds: float,
    least_seconds: float,
    faulty_api: Faulty,
    event: Event,
    done: Callable[[Case], bool],
) -> None:
    """What passes is waited out, as long as the server asks for; then the work is done."""
    api, clients = faulty_api
    api.faults = [Fault(case.method, case.path, status, 1, seconds, headers=headers)]
    begin = time.monotonic()
    await run(case, clients, event)
    assert time.monotonic() - begin >= least_seconds
    assert api.faults[0].times == 0, "the fault has not come up"
    assert done(case)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_ac_14_lasting_fault(case: Case, faulty_api: Faulty, event: Event) -> None:
    """What does not pass is an error with the server's sentence; not a missing object (AC-14)."""
    api, clients = faulty_api
    given = {key: 0 if key == "max_wait_period" else value for key, value in case.given.items()}
    case = Case(case.plugin, given, case.method, case.path)
    api.faults = [Fault(case.method, case.path, 500, 1000, message="etcd is gone")]
    with pytest.raises(PluginError, match=r"etcd is gone \(500 Fault\)") as raised:
        await run(case, clients, event)
    assert "doesn't exist" not in str(raised.value)
    assert 2 <= 1000 - api.faults[0].times <= 12, "tried again, but not for ever"


@pytest.fixture(autouse=True)
def _pod(node: str) -> None:
    """The pod is there in each test."""


async def test_lost_answer(
    faulty_api: Faulty, event: Event, cluster: Cluster, namespace: str
) -> None:
    """A label whose answer got lost is set again: the outcome is the same."""
    api, clients = faulty_api
    case = CASES[2]
    await run(case, clients, event)
    api.faults = [Fault("PATCH", POD, 500)]
    await run(case, clients, event)
    assert cluster.pod(namespace)["metadata"]["labels"] == {"app": "web", "a": "b"}


async def test_ac_22_one_request_for_a_label(faulty_api: Faulty, event: Event) -> None:
    """AC-22: a pod is labelled by one request, its node by two."""
    api, clients = faulty_api
    await run(CASES[2], clients, event)
    assert [method for method, _ in api.seen] == ["PATCH"]
    api.seen.clear()
    await run(CASES[3], clients, event)
    assert [method for method, _ in api.seen] == ["GET", "PATCH"]


async def test_context(faulty_api: Faulty, event: Event) -> None:
    """The context k8snode tells passing faults from lasting ones as well."""
    api, clients = faulty_api
    api.faults = [Fault("GET", NODE, 429, headers={"Retry-After": "7"})]
    with pytest.raises(TransientError, match="made up") as raised:
        await K8sNode(clients).fetch(event)
    assert raised.value.retry_after == 7
    api.faults = [Fault("GET", NODE, 500)]
    assert await retrying(K8sNode(clients).fetch, event) == {}


async def test_lost_watch(
    faulty_api: Faulty, event: Event, cluster: Cluster, namespace: str
) -> None:
    """A drain whose watch is refused for a while sees what has left in the meantime."""
    api, clients = faulty_api
    api.faults = [
        Fault("GET", "watch=true", 410, message="too old resource version"),
        Fault("GET", "watch=true", 500),
    ]
    case = Case(Drain, {"grace_period_seconds": 0, "max_wait_period": 20}, "GET", "")
    begin = time.monotonic()
    await run(case, clients, event)
    assert time.monotonic() - begin < 10
    assert [fault.times for fault in api.faults] == [0, 1]
