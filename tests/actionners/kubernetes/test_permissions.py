"""The permissions that an actionner states are what it needs: all of it, and no more."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.annotation import Annotation
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.clients import Clients
from falco_talon.errors import PluginError
from falco_talon.plugin import Actionner, PolicyRule
from tests.actionners.conftest import CreatePod, about
from tests.cluster.cluster import Cluster, Resource

USES: list[tuple[type[Actionner], list[dict[str, Any]]]] = [
    (Terminate, [{"min_healthy_replicas": "0"}]),
    (Label, [{"labels": {"a": "b"}, "level": level} for level in ("pod", "node")]),
    (Annotation, [{"annotations": {"a": "b"}, "level": level} for level in ("pod", "node")]),
]
"""For each actionner, parameters that together need all that it may need."""


@pytest.fixture
def replica_set(cluster: Cluster, namespace: str) -> Resource:
    """A ReplicaSet that wants no pods, to own one."""
    labels = {"app": "web"}
    containers = [{"name": "web", "image": "busybox"}]
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
    }
    path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    made: Resource = cluster.request("POST", path, {"metadata": {"name": "web"}, "spec": spec})
    # With another uid, or its controller would let go of a pod that does not fit its selector.
    metadata = made["metadata"] | {"uid": "00000000-0000-4000-8000-000000000001"}
    return made | {"apiVersion": "example.com/v1", "kind": "ReplicaSet", "metadata": metadata}


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node without a kubelet."""
    cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": namespace}})
    yield namespace
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


@pytest.fixture
def use(
    namespace: str, node: str, replica_set: Resource, create_pod: CreatePod
) -> Callable[..., Any]:
    """Run an actionner, once for each of the parameters, with the rights of a kubeconfig."""
    made: list[str] = []

    async def use(plugin: type[Actionner], kubeconfig: Path, uses: list[dict[str, Any]]) -> None:
        async with Clients(kubeconfig=kubeconfig) as clients:
            await clients.ready({"kubernetes"})
            for given in uses:
                name = f"web-{len(made)}"
                made.append(name)
                create_pod(name, owner=replica_set, node=node)
                parameters = plugin.Parameters.model_validate(given)
                await plugin(parameters, clients).run(about(namespace, name))

    return use


def _without(permissions: tuple[PolicyRule, ...], rule: PolicyRule, verb: str) -> Any:
    left = tuple(each for each in rule.verbs if each != verb)
    smaller = PolicyRule(rule.resources, left, rule.api_groups)
    others = tuple(each for each in permissions if each is not rule)
    return (*others, smaller) if left else others


@pytest.mark.parametrize(("plugin", "uses"), USES, ids=[plugin.name for plugin, _ in USES])
async def test_permissions_are_exact(
    plugin: type[Actionner],
    uses: list[dict[str, Any]],
    use: Callable[..., Any],
    as_account: Callable[..., Path],
) -> None:
    """With all of them it works; without any single one something that it does is refused."""
    await use(plugin, as_account(plugin.permissions), uses)
    for rule in plugin.permissions:
        for verb in rule.verbs:
            account = as_account(_without(plugin.permissions, rule, verb))
            with pytest.raises(PluginError, match=rf"cannot {verb} resource .*403 Forbidden"):
                await use(plugin, account, uses)
