"""Fields of events as no one wishes them: numbers, nulls, absent ones, other types, large ones."""

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
from falco_talon.errors import CheckError
from falco_talon.event import Event
from falco_talon.plugin import Actionner, Result
from tests.actionners.conftest import CreatePod
from tests.cluster.cluster import Cluster

LABEL: tuple[type[Actionner], dict[str, Any]] = (Label, {"labels": {"a": "b"}})
PLUGINS: list[tuple[type[Actionner], dict[str, Any]]] = [
    (Terminate, {}),
    LABEL,
    (Label, {"labels": {"a": "b"}, "level": "node"}),
    (Annotation, {"annotations": {"a": "b"}}),
    (NetworkPolicy, {}),
    (Delete, {}),
    (Cordon, {}),
    (Drain, {}),
]
MISFITS: dict[str, Any] = {
    "null": None,
    "empty": "",
    "true": True,
    "list": ["web"],
    "map": {"name": "web"},
    "fraction": 1.5,
    "integer": -7,
    "huge integer": 10**30,
    "1 MB": "x" * 1_000_000,
    "newline": "web\n",
    "path": "../../namespaces/default",
    "query": "web?x=y",
    "percent": "web%2f..",
    "nul": "we\0b",
    "lone surrogate": "\ud800",
    "space": " web",
    "upper case": "WEB",
}


async def act(
    plugin: type[Actionner], given: dict[str, Any], clients: Clients, fields: Any
) -> Result:
    """Check and run it, as the engine does."""
    actionner = plugin(plugin.Parameters.model_validate(given), clients)
    event = Event(output_fields=fields)
    await actionner.check(event)
    return await actionner.run(event)


@pytest.mark.parametrize(
    ("plugin", "given"), PLUGINS, ids=[f"{each.name} {given}" for each, given in PLUGINS]
)
async def test_misfits(
    plugin: type[Actionner], given: dict[str, Any], clients: Clients, cluster: Cluster
) -> None:
    """Whatever stands in the fields: the event does not fit, in a line that can be printed."""
    before = cluster.request("GET", "/api/v1/namespaces/default")["metadata"]["resourceVersion"]
    for name, value in MISFITS.items():
        for syscall in ({"k8s.ns.name": "default", "k8s.pod.name": value},
                        {"k8s.ns.name": value, "k8s.pod.name": "web"}):  # fmt: skip
            audit = {
                "ka.target.resource": "pods",
                "ka.target.name": syscall["k8s.pod.name"],
                "ka.target.namespace": syscall["k8s.ns.name"],
            }
            for fields in (audit,) if plugin is Delete else (syscall, audit):
                with pytest.raises(CheckError) as raised:
                    await act(plugin, given, clients, fields)
                text = str(raised.value)
                assert text.isprintable(), name
                assert len(text) < 1000, name
    after = cluster.request("GET", "/api/v1/namespaces/default")["metadata"]["resourceVersion"]
    assert before == after


@pytest.mark.parametrize("fields", [None, {}, {"k8s.pod.name": "web"}], ids=repr)
@pytest.mark.parametrize("plugin", [each for each, _ in PLUGINS], ids=lambda each: each.name)
async def test_absent(plugin: type[Actionner], fields: Any, clients: Clients) -> None:
    """Without the fields the check says which one is missing."""
    given = next(given for each, given in PLUGINS if each is plugin)
    with pytest.raises(CheckError, match="missing"):
        await act(plugin, given, clients, fields)


async def test_numbers(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """A pod may be called like a number, and an event that holds a number means it."""
    create_pod("12345")
    fields = {"k8s.ns.name": namespace, "k8s.pod.name": 12345}
    await act(*LABEL, clients, fields)
    assert cluster.pod(namespace, "12345")["metadata"]["labels"] == {"a": "b"}


@pytest.mark.parametrize(
    "fields",
    [
        {"k8s.pod.name": "web"},
        {"ka.target.pod.name": "web"},
        {"ka.target.name": "web"},
        {"k8s.pod.name": None, "ka.target.pod.name": ["x"], "ka.target.name": "web"},
        {"k8s.pod.name": "web", "ka.target.pod.name": "other", "ka.target.name": "other"},
        {"ka.target.pod.name": "web", "ka.target.name": "other"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("where", ["k8s.ns.name", "ka.target.namespace"])
async def test_fallbacks(
    where: str,
    fields: dict[str, Any],
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
) -> None:
    """The pod of syscall and audit events is found in the order of the fields; null is absent."""
    create_pod()
    await act(*LABEL, clients, {**fields, where: namespace})
    assert cluster.pod(namespace)["metadata"]["labels"] == {"a": "b"}


async def test_empty_text_ends_the_search(clients: Clients, namespace: str) -> None:
    """An empty name is a name, and no pod has it: the other fields do not count then."""
    fields = {"k8s.ns.name": namespace, "k8s.pod.name": "", "ka.target.name": "web"}
    with pytest.raises(CheckError, match="missing pod name"):
        await act(*LABEL, clients, fields)


@pytest.mark.parametrize("value", MISFITS.values(), ids=MISFITS.keys())
async def test_context(value: Any, clients: Clients) -> None:
    """The context k8snode is as careful."""
    with pytest.raises(CheckError):
        await K8sNode(clients).fetch(
            Event(output_fields={"k8s.ns.name": "default", "k8s.pod.name": value})
        )
