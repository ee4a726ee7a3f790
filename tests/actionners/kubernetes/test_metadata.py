"""kubernetes:label and kubernetes:annotation, which do the same to different metadata."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes.annotation import Annotation
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import CreatePod, about
from tests.cluster.cluster import Cluster


class Kind(NamedTuple):
    """One of the two actionners, and what differs."""

    plugin: type[Label] | type[Annotation]
    field: str
    done: str

    async def run(self, clients: Clients, event: Event, entries: Any, **others: Any) -> Result:
        """Check and run it, as the engine does."""
        parameters = self.plugin.Parameters.model_validate({self.field: entries, **others})
        plugin = self.plugin(parameters, clients)
        await plugin.check(event)
        return await plugin.run(event)


@pytest.fixture(
    params=[
        pytest.param(Kind(Label, "labels", "labeled"), id="label"),
        pytest.param(Kind(Annotation, "annotations", "annotated"), id="annotation"),
    ]
)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the two."""
    found: Kind = request.param
    return found


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node without a kubelet."""
    cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": namespace}})
    yield namespace
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


@pytest.mark.parametrize(
    ("before", "entries", "after"),
    [
        pytest.param({}, {"new": "1"}, {"new": "1"}, id="first"),
        pytest.param({"old": "1"}, {"new": "2"}, {"old": "1", "new": "2"}, id="added"),
        pytest.param({"old": "1"}, {"old": "2"}, {"old": "2"}, id="changed"),
        pytest.param({"old": "1", "b": "2"}, {"old": ""}, {"b": "2"}, id="removed"),
        pytest.param({"old": "1"}, {"old": None}, {}, id="null removes"),
        pytest.param({"old": "1"}, {"absent": ""}, {"old": "1"}, id="absent removed"),
        pytest.param({"old": "1"}, {"a": "", "old": ""}, {}, id="AC-22: one absent key of two"),
        pytest.param({"pod": "1"}, {"pod": "2"}, {"pod": "2"}, id="AC-22: key pod"),
        pytest.param(
            {"app.kubernetes.io/name": "a"},
            {"app.kubernetes.io/name": "", "example.com/a.b_c-d": "x.y"},
            {"example.com/a.b_c-d": "x.y"},
            id="slashes and dots",
        ),
        pytest.param({}, {"a": True, "b": 7}, {"a": "true", "b": "7"}, id="unquoted scalars"),
    ],
)
async def test_ac_22_entries(
    kind: Kind,
    before: dict[str, str],
    entries: dict[str, Any],
    after: dict[str, str],
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
) -> None:
    """The pod ends up with what is asked for, whatever it had."""
    create_pod(**{kind.field: before})
    result = await kind.run(clients, about(namespace, "web"), entries)
    assert cluster.pod(namespace)["metadata"].get(kind.field, {}) == after
    assert result == Result(
        f"the pod 'web' in the namespace '{namespace}' has been {kind.done}",
        {"pod": "web", "namespace": namespace},
    )


async def test_node(
    kind: Kind,
    clients: Clients,
    cluster: Cluster,
    node: str,
    create_pod: CreatePod,
    event: Event,
) -> None:
    """With level `node` the node of the pod gets it, and the pod does not."""
    create_pod(node=node)
    result = await kind.run(clients, event, {"example.com/a": "b"}, level="node")
    metadata = cluster.request("GET", f"/api/v1/nodes/{node}")["metadata"]
    assert metadata[kind.field]["example.com/a"] == "b"
    assert result == Result(f"the node '{node}' has been {kind.done}", {"node": node})
    assert "example.com/a" not in cluster.pod(node)["metadata"].get(kind.field, {})


async def test_pod_without_node(
    kind: Kind, clients: Clients, create_pod: CreatePod, event: Event
) -> None:
    """A pod that has no node yet has no node to change."""
    create_pod()
    with pytest.raises(PluginError, match="the pod 'web' in .* is not on a node yet"):
        await kind.run(clients, event, {"a": "b"}, level="node")


async def test_audit_event(
    kind: Kind, clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """The pod of an audit event is found by its own fields."""
    create_pod()
    fields = {"ka.target.name": "web", "ka.target.namespace": namespace}
    await kind.run(clients, Event(output_fields=fields), {"a": "b"})
    assert cluster.pod(namespace)["metadata"][kind.field] == {"a": "b"}


@pytest.mark.parametrize("level", ["pod", "node"])
@pytest.mark.parametrize(
    ("pod", "text"),
    [
        pytest.param("absent", "the pod 'absent' in the namespace '{}' doesn't exist", id="absent"),
        pytest.param(
            "../nodes/n", "the pod '../nodes/n' in the namespace '{}' doesn't exist", id="traversal"
        ),
        pytest.param("", "missing pod name", id="empty"),
        pytest.param(
            "a\nb\x1b[31m",
            "the pod 'a\ufffdb\ufffd[31m' in the namespace '{}' doesn't exist",
            id="control characters",
        ),
        pytest.param(
            "x" * 1_000_000,
            "the pod '" + "x" * 253 + "' in the namespace '{}' doesn't exist",
            id="1 MB",
        ),
    ],
)
async def test_missing_pod(
    kind: Kind, level: str, pod: str, text: str, clients: Clients, namespace: str
) -> None:
    """A pod that is not there is an error of the event, in the reference's words."""
    with pytest.raises(CheckError) as raised:
        await kind.run(clients, about(namespace, pod), {"a": "b"}, level=level)
    assert str(raised.value) == text.format(namespace)


@pytest.mark.parametrize("namespace_name", ["", None, 7.5, "a/../../b"], ids=repr)
async def test_missing_namespace(kind: Kind, namespace_name: Any, clients: Clients) -> None:
    """An event without a namespace that can exist is refused before anything is sent."""
    event = Event(output_fields={"k8s.pod.name": "web", "k8s.ns.name": namespace_name})
    with pytest.raises(CheckError, match=r"missing namespace|doesn't exist"):
        await kind.run(clients, event, {"a": "b"})


async def test_ac_14_forbidden_is_not_missing(
    kind: Kind,
    create_pod: CreatePod,
    event: Event,
    as_account: Callable[..., Any],
) -> None:
    """AC-14: what we may not do is told apart from what does not exist."""
    create_pod()
    async with Clients(kubeconfig=as_account(())) as clients:
        await clients.ready({"kubernetes"})
        with pytest.raises(
            PluginError, match=r"cannot patch resource .*\(403 Forbidden\)"
        ) as raised:
            await kind.run(clients, event, {"a": "b"})
    assert type(raised.value) is PluginError


@pytest.mark.parametrize(
    ("kind_of", "parameters", "text"),
    [
        (Label, {"labels": {}}, "parameter 'labels' should have at least one label"),
        (Label, {}, "required"),
        (Label, {"labels": {"a": "b"}, "level": "cluster"}, "'pod' or 'node'"),
        (Label, {"labels": {"a b": "c"}}, "'a b' is no key"),
        (Label, {"labels": {"a/b/c": "c"}}, "'a/b/c' is no key"),
        (Label, {"labels": {"a" * 64: "c"}}, "is no key"),
        (Label, {"labels": {"A.b/c": "c"}}, "'A.b/c' is no key"),
        (Label, {"labels": {"a": "b c"}}, "'b c' is no label value"),
        (Label, {"labels": {"a": "b" * 64}}, "is no label value"),
        (Label, {"labels": {"a": ["b"]}}, "valid string"),
        (Annotation, {"annotations": {}}, "should have at least one annotation"),
        (Annotation, {"annotations": {"-a": "c"}}, "'-a' is no key"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_wrong_parameters(kind_of: type[Label], parameters: dict[str, Any], text: str) -> None:
    """What the API server would refuse stops the load of the rules."""
    with pytest.raises(ValidationError, match=text):
        kind_of.Parameters.model_validate(parameters)
