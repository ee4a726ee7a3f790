"""The permissions that a plugin states are what it needs: all of it, and no more.

Each runs on the real API server as a service account that has exactly these, then without each
single one of them.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.annotation import Annotation
from falco_talon.actionners.kubernetes.cordon import Cordon
from falco_talon.actionners.kubernetes.delete import Delete
from falco_talon.actionners.kubernetes.download import Download
from falco_talon.actionners.kubernetes.drain import Drain
from falco_talon.actionners.kubernetes.exec import Exec
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.actionners.kubernetes.log import Log
from falco_talon.actionners.kubernetes.networkpolicy import NetworkPolicy
from falco_talon.actionners.kubernetes.script import Script
from falco_talon.actionners.kubernetes.sysdig import Sysdig
from falco_talon.actionners.kubernetes.tcpdump import Tcpdump
from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.clients import Clients
from falco_talon.contexts.k8snode import K8sNode
from falco_talon.errors import PluginError
from falco_talon.notifiers.k8sevents import K8sEvents
from falco_talon.plugin import Actionner, PolicyRule
from falco_talon.report import Report
from tests.actionners.conftest import CreatePod, Running, about
from tests.actionners.kubernetes.terminating import owner
from tests.actionners.kubernetes.test_delete import KINDS, audit
from tests.cluster.cluster import Cluster, Resource, owner_reference

Account = Callable[[tuple[PolicyRule, ...]], Path]
Work = Callable[[Clients], Awaitable[object]]


EXEC_SINCE_1_35 = PolicyRule(("pods/exec",), ("create",))
"""Older servers do without it."""
DELETE_JOBS = PolicyRule(("jobs",), ("delete",), ("batch",))
"""Without it sysdig's job is left to Kubernetes, which deletes it when its time is over."""


def single(permissions: tuple[PolicyRule, ...]) -> list[PolicyRule]:
    """Return the permissions one by one: a group, a resource, a verb."""
    return [
        PolicyRule((resource,), (verb,), (group,))
        for rule in permissions
        for group, resource, verb in itertools.product(rule.api_groups, rule.resources, rule.verbs)
    ]


async def needs_exactly(
    permissions: tuple[PolicyRule, ...],
    work: Work,
    as_account: Account,
    but: tuple[PolicyRule, ...] = (),
) -> None:
    """See that *work* is done with these permissions, and not without any single one of them,
    *but* those.
    """
    every = single(permissions)
    await _as(as_account(tuple(every)), work)
    for left_out in every:
        if left_out in but:
            continue
        kubeconfig = as_account(tuple(each for each in every if each is not left_out))
        verb, resource = left_out.verbs[0], left_out.resources[0]
        text = rf'cannot {verb} resource "{resource}" .*403 Forbidden'
        with pytest.raises(PluginError, match=text):
            await _as(kubeconfig, work)


async def _as(kubeconfig: Path, work: Work) -> None:
    async with Clients(kubeconfig=kubeconfig) as clients:
        await clients.ready({"kubernetes"})
        await work(clients)


@dataclass
class World:
    """A namespace with pods of many owners, on a node without a kubelet."""

    cluster: Cluster
    namespace: str
    create_pod: CreatePod
    replica_set: Resource
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def pod(self, kind: str = "ReplicaSet") -> str:
        """Make a pod with an owner of this kind, and return its name."""
        name = f"web-{next(self._numbers)}"
        owned = self.replica_set if kind == "ReplicaSet" else owner(kind)
        # A Job's pods lead further only if they have labels that all runs have.
        self.create_pod(name, owner=owned, node=self.namespace, labels={"app": "web"})
        return name


@pytest.fixture
def world(cluster: Cluster, namespace: str, create_pod: CreatePod) -> Iterator[World]:
    """Make the node, and a ReplicaSet that belongs to a Deployment and wants no pods."""
    cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": namespace}})
    labels = {"app": "web"}
    reference = owner_reference(owner("Deployment"))
    metadata = {"name": "web", "ownerReferences": [reference]}
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "busybox"}]},
        },
    }
    path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    cluster.request("POST", path, {"metadata": metadata, "spec": spec})
    # With another uid, or its controller would let go of a pod that does not fit its selector.
    replica_set = owner("ReplicaSet") | {"metadata": owner("")["metadata"] | {"name": "web"}}
    yield World(cluster, namespace, create_pod, replica_set)
    cluster.request("DELETE", f"/api/v1/nodes/{namespace}")


def one(plugin: type[Actionner], given: dict[str, Any], world: World) -> Work:
    """Run the actionner on a new pod."""

    async def work(clients: Clients) -> None:
        parameters = plugin.Parameters.model_validate(given)
        await plugin(parameters, clients).work(about(world.namespace, world.pod()), print)

    return work


USES: list[tuple[type[Actionner], dict[str, Any]]] = [
    (Terminate, {}),
    (Terminate, {"min_healthy_replicas": "0"}),
    (Terminate, {"max_wait_period": 0}),
    (Label, {"labels": {"a": "b"}}),
    (Label, {"labels": {"a": "b"}, "level": "node"}),
    (Annotation, {"annotations": {"a": "b"}}),
    (Annotation, {"annotations": {"a": "b"}, "level": "node"}),
    (Cordon, {}),
    (Drain, {"grace_period_seconds": 0}),
    (Drain, {"grace_period_seconds": 0, "max_wait_period": 30, "min_healthy_replicas": "0"}),
]


@pytest.mark.parametrize(("plugin", "given"), USES, ids=lambda each: getattr(each, "name", None))
async def test_as_parameters_need(
    plugin: type[Actionner], given: dict[str, Any], world: World, as_account: Account
) -> None:
    """What the parameters need is needed; it is part of what the class states."""
    needed = plugin(plugin.Parameters.model_validate(given), Clients()).needs({})
    assert set(single(needed)) <= set(single(plugin.permissions))
    await needs_exactly(needed, one(plugin, given, world), as_account)


def test_all_that_is_stated_is_needed_by_some_parameters() -> None:
    """Nothing stands in a class that no parameters need."""
    for plugin in {plugin for plugin, _ in USES}:
        models = [plugin.Parameters.model_validate(g) for each, g in USES if each is plugin]
        needed = {each for m in models for each in single(plugin(m, Clients()).needs({}))}
        assert needed == set(single(plugin.permissions))


async def test_networkpolicy(world: World, as_account: Account) -> None:
    """Pods of each kind of workload, a policy that is made and one that is changed."""

    async def work(clients: Clients) -> None:
        # The others' policies select the pod as well: in the end the first one is changed.
        for kind in ("ReplicaSet", "DaemonSet", "StatefulSet", "Job", "ReplicaSet"):
            parameters = NetworkPolicy.Parameters(allow_cidr=["10.0.0.0/8"])
            event = about(world.namespace, world.pod(kind))
            await NetworkPolicy(parameters, clients).run(event)
        path = f"/apis/networking.k8s.io/v1/namespaces/{world.namespace}/networkpolicies"
        world.cluster.request("DELETE", path)

    await needs_exactly(NetworkPolicy.permissions, work, as_account)


@pytest.mark.parametrize("resource", KINDS)
async def test_delete(resource: str, cluster: Cluster, namespace: str, as_account: Account) -> None:
    """Each kind needs the permission for itself."""
    api, content, _ = KINDS[resource]
    names = map("a{}".format, itertools.count())

    async def work(clients: Clients) -> None:
        name = next(names)
        body = {"metadata": {"name": name}, **content}
        cluster.request("POST", f"{api}/namespaces/{namespace}/{resource}", body)
        await Delete(Delete.Parameters(), clients).run(audit(resource, name, namespace))

    needed = Delete(Delete.Parameters(), Clients()).needs({"ka.target.resource": {resource}})
    await needs_exactly(needed, work, as_account)


async def test_delete_a_namespace(cluster: Cluster, as_account: Account) -> None:
    """The permission for namespaces."""

    async def work(clients: Clients) -> None:
        event = audit("namespaces", cluster.create_namespace(), None)
        await Delete(Delete.Parameters(), clients).run(event)

    needed = Delete(Delete.Parameters(), Clients()).needs({"ka.target.resource": {"namespaces"}})
    await needs_exactly(needed, work, as_account)


def test_delete_states_every_kind() -> None:
    """The class states what its kinds need together, ClusterRoles only if they are unprotected."""
    every = {"ka.target.resource": {*KINDS, "namespaces", "clusterroles"}}
    delete = Delete(Delete.Parameters(), Clients())
    assert set(single(delete.needs(every))) == set(single(Delete.permissions))
    assert set(single(delete.needs({}))) == set(single(Delete.permissions))
    bold = Delete(Delete.Parameters(), Clients(protected=()))
    (more,) = set(single(bold.needs({}))) - set(single(Delete.permissions))
    assert more == PolicyRule(("clusterroles",), ("delete",), ("rbac.authorization.k8s.io",))


IN_CONTAINERS: list[tuple[type[Actionner], dict[str, Any]]] = [
    (Exec, {"command": "true"}),
    (Script, {"script": "true"}),
    (Log, {}),
    (Download, {"file": "/etc/passwd"}),
    (Tcpdump, {"duration": 1, "count": 1}),
    (Sysdig, {"duration": 1}),
]


@pytest.mark.parametrize(
    ("plugin", "given"), IN_CONTAINERS, ids=lambda each: getattr(each, "name", None)
)
async def test_in_containers(
    plugin: type[Actionner],
    given: dict[str, Any],
    running: Running,
    namespace: str,
    as_account: Account,
) -> None:
    """What works in containers does so in those of a real node."""
    event = running.about()
    if plugin is Sysdig:
        given = {**given, "namespace": namespace}
    if plugin is Tcpdump:  # its container stays in the pod: not for the other tests
        running.cluster.create_pod(namespace)
        running.cluster.pod_running(namespace)
        event = about(namespace, "web")
    parameters = plugin.Parameters.model_validate(given)

    async def work(clients: Clients) -> None:
        await plugin(parameters, clients).work(event, print)

    needed = plugin(parameters, Clients()).needs({})
    await needs_exactly(needed, work, as_account, but=(EXEC_SINCE_1_35, DELETE_JOBS))


async def test_k8snode(world: World, as_account: Account) -> None:
    """The context."""
    event = about(world.namespace, world.pod())
    await needs_exactly(K8sNode.permissions, lambda c: K8sNode(c).fetch(event), as_account)


async def test_k8sevents(world: World, as_account: Account) -> None:
    """The notifier, for a pod and for a node."""
    pod = {"pod": world.pod(), "namespace": world.namespace}

    async def work(clients: Clients) -> None:
        for objects in (pod, {"node": world.namespace}):
            told = Report(message="action", status="success", objects=objects)
            await K8sEvents(K8sEvents.Parameters(), clients).run(told)

    await needs_exactly(K8sEvents.permissions, work, as_account)
