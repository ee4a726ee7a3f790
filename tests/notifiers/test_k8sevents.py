"""k8sevents, read back from the real API server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from kubernetes_asyncio.client import Configuration

from falco_talon.clients import Clients
from falco_talon.clients.access import Access
from falco_talon.clients.kubernetes import Kubernetes
from falco_talon.errors import TransientError
from falco_talon.notifiers.k8sevents import K8sEvents
from falco_talon.report import Report
from tests.cluster.cluster import Cluster, Resource
from tests.endpoint import Answer, Endpoint


@pytest.fixture
async def clients(cluster: Cluster) -> AsyncIterator[Clients]:
    """The clients of an administrator of the cluster."""
    async with Clients(kubeconfig=cluster.kubeconfig) as clients:
        await clients.ready({"kubernetes"})
        yield clients


@pytest.fixture
def pod(cluster: Cluster, namespace: str) -> Resource:
    """The pod `web`."""
    return cluster.create_pod(namespace, schedulerName="nobody")


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[Resource]:
    """A node without a kubelet."""
    yield cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": namespace}})
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


def report(namespace: str, **others: Any) -> Report:
    """Return the report of a step on the pod `web`, of which the trace id is the namespace."""
    fields: dict[str, Any] = {
        "objects": {"pod": "web", "namespace": namespace},
        "trace_id": namespace,
        "message": "action",
        "actionner": "kubernetes:label",
        "status": "success",
    }
    return Report(**(fields | others))


async def notify(clients: Clients, cluster: Cluster, told: Report, namespace: str) -> Resource:
    """Send the report and return the event that it made in *namespace*."""
    await K8sEvents(K8sEvents.Parameters(), clients).run(told)
    query = "fieldSelector=reportingComponent%3Dfalcosecurity.org/falco-talon"
    items = cluster.request("GET", f"/api/v1/namespaces/{namespace}/events?{query}")["items"]
    (made,) = [each for each in items if f"TraceID: {told.trace_id}\n" in each["message"]]
    return dict(made)


async def test_event(clients: Clients, cluster: Cluster, namespace: str, pod: Resource) -> None:
    """The event stands in the namespace of the pod, refers to it and tells the report."""
    told = report(
        namespace,
        rule="Shell",
        action="Label it",
        event="a 'quoted'\r\ntext",
        output="done",
        result="fine",
    )
    made = await notify(clients, cluster, told, namespace)
    assert made["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": namespace,
        "name": "web",
        "uid": pod["metadata"]["uid"],
    }
    assert made["message"].splitlines() == [
        "Status: success",
        "Message: action",
        "Rule: Shell",
        "Action: Label it",
        "Actionner: kubernetes:label",
        'Event: a "quoted"',
        "text",
        f"Namespace: {namespace}",
        "Pod: web",
        "Result: fine",
        "Output: done",
        f"TraceID: {namespace}",
    ]
    assert made["metadata"]["name"].startswith("falco-talon-")
    assert made["reason"] == "falco-talon:action:kubernetes:label:success"
    assert made["action"] == "kubernetes:label"
    assert made["source"]["component"] == made["reportingInstance"] == "falco-talon"
    assert made["type"] == "Normal"
    assert made["eventTime"]


@pytest.mark.parametrize(
    ("status", "type_"),
    [("success", "Normal"), ("ignored", "Normal"), ("failure", "Warning")],
)
async def test_types(
    status: Any, type_: str, clients: Clients, cluster: Cluster, namespace: str, pod: Resource
) -> None:
    """ON-11: a failure is a warning."""
    told = report(namespace, status=status, error="no" if status == "failure" else "")
    assert (await notify(clients, cluster, told, namespace))["type"] == type_


async def test_output(clients: Clients, cluster: Cluster, namespace: str, pod: Resource) -> None:
    """ON-11: the event of an output refers to the pod, and its action is the target."""
    told = report(namespace, message="output", output_target="local:file", category="local")
    made = await notify(clients, cluster, told, namespace)
    assert (made["action"], made["reason"]) == (
        "local:file",
        "falco-talon:output:local:file:success",
    )
    assert made["involvedObject"]["uid"] == pod["metadata"]["uid"]
    assert "OutputTarget: local:file\n" in made["message"]


async def test_output_without_anything(clients: Clients, cluster: Cluster, namespace: str) -> None:
    """ON-11: an event that names no actionner and no target still has an action."""
    told = report(namespace, message="output", actionner="", status="failure", objects={})
    made = await notify(clients, cluster, told, "default")
    assert (made["action"], made["type"]) == ("output", "Warning")


async def test_gone_pod(clients: Clients, cluster: Cluster, namespace: str) -> None:
    """A pod that is gone has its event in its namespace, without a uid."""
    made = await notify(clients, cluster, report(namespace), namespace)
    assert made["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": namespace,
        "name": "web",
    }


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param({"pod": "web", "namespace": "absent-namespace"}, id="no such namespace"),
        pytest.param({"pod": "web", "namespace": "../nodes"}, id="no name of a namespace"),
        pytest.param({"pod": "web"}, id="no namespace"),
        pytest.param({"host": "example.com"}, id="neither pod nor node"),
    ],
)
async def test_no_namespace(
    objects: dict[str, str], clients: Clients, cluster: Cluster, namespace: str
) -> None:
    """What belongs to no namespace that exists is told in `default`."""
    made = await notify(clients, cluster, report(namespace, objects=objects), "default")
    assert "namespace" not in made["involvedObject"]
    assert made["involvedObject"].get("name", "") == objects.get("pod", "")


async def test_node(clients: Clients, cluster: Cluster, node: Resource) -> None:
    """ON-11: the event about a node refers to the node."""
    name = node["metadata"]["name"]
    made = await notify(clients, cluster, report(name, objects={"node": name}), "default")
    assert made["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": name,
        "uid": node["metadata"]["uid"],
    }


async def test_other_objects(clients: Clients, cluster: Cluster, namespace: str) -> None:
    """ON-11: the event about an object of another kind stands in its namespace."""
    objects = {"resource": "configmaps", "name": "settings", "namespace": namespace}
    made = await notify(clients, cluster, report(namespace, objects=objects), namespace)
    assert "Resource: configmaps\nRule" not in made["message"]
    assert "Name: settings\n" in made["message"]
    assert made["involvedObject"]["namespace"] == namespace


@pytest.mark.parametrize("letter", ["x", "é", "日", "🦅", "\ud800"], ids=ascii)
async def test_long_texts(
    letter: str, clients: Clients, cluster: Cluster, namespace: str, pod: Resource
) -> None:
    """ON-11: a text too long for an event is cut between two characters, and taken."""
    told = report(namespace, event=letter * 5000, actionner="a" * 300)
    await K8sEvents(K8sEvents.Parameters(), clients).run(told)
    items = cluster.request("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    (made,) = [each for each in items if each["reason"].startswith("falco-talon:")]
    assert 1020 < len(made["message"].encode()) <= 1024
    assert made["message"].rstrip(letter).rstrip("?").endswith("Event: ")
    assert (len(made["reason"]), len(made["action"])) == (128, 128)


async def test_faults_are_transient(endpoint: Endpoint) -> None:
    """An API server in trouble is worth another try."""
    endpoint.answers = [Answer(503, b"{}")]
    clients = Clients()
    clients._kubernetes = Kubernetes(Access(Configuration(host=endpoint.url)))
    with pytest.raises(TransientError):
        await K8sEvents(K8sEvents.Parameters(), clients).run(report("ns"))
    await clients.close()
