"""k8snode, from the real API server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.exec import Exec
from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.contexts.k8snode import K8sNode
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.rules.binding import bind
from falco_talon.rules.load import read
from tests.actionners.conftest import CreatePod, Running, about
from tests.cluster.cluster import Cluster

RULE = """
- rule: Shell
  match: {rules: [Shell]}
  actions:
    - action: Ask
      actionner: kubernetes:exec
      parameters: {command: 'echo "$NODE_HOSTNAME"'}
      additional_contexts: [k8snode]
"""


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node with all that a cloud says of one."""
    labels = {
        "kubernetes.io/hostname": "host-1",
        "node.kubernetes.io/instance-type": "m5.large",
        "topology.kubernetes.io/region": "eu-west-1",
        "topology.kubernetes.io/zone": "eu-west-1a",
        "node-role.kubernetes.io/worker": "",
    }
    content = {
        "metadata": {"name": namespace, "labels": labels},
        "spec": {"providerID": "aws:///eu-west-1a/i-0123"},
    }
    cluster.request("POST", "/api/v1/nodes", content)
    yield namespace
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


async def test_elements(clients: Clients, node: str, create_pod: CreatePod) -> None:
    """Everything that is known of the node of the pod."""
    create_pod(node=node)
    assert await K8sNode(clients).fetch(about(node, "web")) == {
        "node.hostname": "host-1",
        "node.instancetype": "m5.large",
        "node.role": "worker",
        "node.topology.region": "eu-west-1",
        "node.topology.zone": "eu-west-1a",
        "node.spec.providerid": "aws:///eu-west-1a/i-0123",
        "node.spec.providedid": "aws:///eu-west-1a/i-0123",
    }


async def test_unknown_elements(
    clients: Clients, cluster: Cluster, node: str, create_pod: CreatePod
) -> None:
    """What is not known is not there."""
    create_pod(node=node)
    labels = {"metadata": {"labels": None}}
    path = f"/api/v1/nodes/{node}"
    cluster.request("PATCH", path, labels, "application/merge-patch+json")
    found = await K8sNode(clients).fetch(about(node, "web"))
    assert found.keys() == {"node.spec.providerid", "node.spec.providedid"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "missing pod name"),
        ({"k8s.pod.name": "web"}, "missing namespace"),
        ({"k8s.pod.name": "absent", "k8s.ns.name": "default"}, 'pods "absent" not found'),
        ({"k8s.pod.name": "../x", "k8s.ns.name": "default"}, "no pod can have such a name"),
    ],
)
async def test_missing(fields: dict[str, Any], text: str, clients: Clients) -> None:
    """Without a pod there is no node."""
    with pytest.raises(CheckError, match=text):
        await K8sNode(clients).fetch(Event(output_fields=fields))


async def test_pod_without_node(clients: Clients, namespace: str, create_pod: CreatePod) -> None:
    """A pod that is not scheduled has no node."""
    create_pod()
    with pytest.raises(PluginError, match="not on a node yet"):
        await K8sNode(clients).fetch(about(namespace, "web"))


def test_ac_01_who_uses_it() -> None:
    """AC-1: the actionners that can use contexts say so."""
    assert Exec.use_context


async def test_ac_01_in_a_container(clients: Clients, running: Running, tmp_path: Path) -> None:
    """AC-1: a rule asks for the context, it is fetched, and a command in the pod can use it."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULE)
    (rule,) = bind(read([file]), Catalog.load(), clients).rules
    (action,) = rule.actions
    (context,) = action.contexts
    event = running.about()
    known = await context.fetch(event)
    result = await action.actionner.run(event.with_context(known))
    (node,) = running.cluster.ready_nodes()
    assert result.text.strip() == known["node.hostname"] == node
