"""kubernetes:delete"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.delete import Delete, _custom
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, Ignored
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import CreatePod
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "busybox"}]},
}
SELECTOR = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
JOB = {"template": {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "configmaps": ("/api/v1", {}, "configmap"),
    "secrets": ("/api/v1", {}, "secret"),
    "services": ("/api/v1", {"spec": {"ports": [{"port": 80}]}}, "service"),
    "serviceaccounts": ("/api/v1", {}, "serviceaccount"),
    "pods": ("/api/v1", {"spec": TEMPLATE["spec"]}, "pod"),
    "deployments": ("/apis/apps/v1", {"spec": SELECTOR}, "deployment"),
    "daemonsets": ("/apis/apps/v1", {"spec": SELECTOR}, "daemonset"),
    "statefulsets": ("/apis/apps/v1", {"spec": {**SELECTOR, "serviceName": "a"}}, "statefulset"),
    "replicasets": ("/apis/apps/v1", {"spec": SELECTOR}, "replicaset"),
    "jobs": ("/apis/batch/v1", {"spec": JOB}, "job"),
    "cronjobs": (
        "/apis/batch/v1",
        {"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": JOB}}},
        "cronjob",
    ),
    "ingresses": (
        "/apis/networking.k8s.io/v1",
        {"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}},
        "ingress",
    ),
    "networkpolicies": (
        "/apis/networking.k8s.io/v1", {"spec": {"podSelector": {}}}, "networkpolicy",
    ),
    "roles": ("/apis/rbac.authorization.k8s.io/v1", {}, "role"),
}  # fmt: skip


def audit(resource: Any, name: Any, namespace: Any, **others: Any) -> Event:
    """Return an audit event about an object."""
    target = {"resource": resource, "name": name, "namespace": namespace}
    return Event(
        source="k8s_audit",
        output_fields={f"ka.target.{key}": value for key, value in target.items()} | others,
    )


async def delete(clients: Clients, event: Event) -> Result:
    """Check and run it, as the engine does."""
    plugin = Delete(Delete.Parameters(), clients)
    await plugin.check(event)
    return await plugin.run(event)


def is_gone(cluster: Cluster, path: str) -> bool:
    """Whether the object does not exist any more, or is about to go."""
    try:
        return "deletionTimestamp" in cluster.request("GET", path)["metadata"]
    except ClusterError as error:
        return error.status == 404


@pytest.mark.parametrize("resource", KINDS)
async def test_ac_25_kinds(
    resource: str, clients: Clients, cluster: Cluster, namespace: str
) -> None:
    """AC-25: each kind can be deleted, pods too."""
    api, content, singular = KINDS[resource]
    path = f"{api}/namespaces/{namespace}/{resource}"
    cluster.request("POST", path, {"metadata": {"name": "a"}, **content})
    assert await delete(clients, audit(resource, "a", namespace)) == Result(
        f"the {singular} 'a' in the namespace '{namespace}' has been deleted",
        {"name": "a", "resource": resource, "namespace": namespace},
    )
    assert is_gone(cluster, f"{path}/a")


async def test_namespace(clients: Clients, cluster: Cluster) -> None:
    """A namespace has no namespace."""
    name = cluster.create_namespace()
    assert await delete(clients, audit("namespaces", name, None)) == Result(
        f"the namespace '{name}' has been deleted", {"name": name, "resource": "namespaces"}
    )
    assert is_gone(cluster, f"/api/v1/namespaces/{name}")


async def test_namespace_that_is_being_deleted(
    clients: Clients, cluster: Cluster, namespace: str
) -> None:
    """To delete it once more is no failure."""
    path = f"/api/v1/namespaces/{namespace}"
    held = {"metadata": {"name": "a", "finalizers": ["example.com/held"]}}
    cluster.request("POST", f"{path}/configmaps", held)
    event = audit("namespaces", namespace, None)
    await delete(clients, event)
    cluster.wait_for(lambda: is_gone(cluster, path), what="the deletion to begin")
    assert (await delete(clients, event)).text == f"the namespace '{namespace}' has been deleted"
    patch = {"metadata": {"finalizers": None}}
    cluster.request("PATCH", f"{path}/configmaps/a", patch, "application/merge-patch+json")


async def test_pods_of_a_job(clients: Clients, node_cluster: Cluster, namespace: str) -> None:
    """What belongs to the object goes with it: a Job's pods would run on by default."""
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    node_cluster.request("POST", path, {"metadata": {"name": "a"}, "spec": JOB})
    pods = f"/api/v1/namespaces/{namespace}/pods"
    node_cluster.wait_for(lambda: node_cluster.request("GET", pods)["items"], what="its pod")
    await delete(clients, audit("jobs", "a", namespace))
    node_cluster.wait_for(lambda: not node_cluster.request("GET", pods)["items"], what="its end")


@pytest.mark.parametrize(
    ("resource", "name", "namespace"),
    [
        pytest.param("namespaces", "kube-system", None, id="kube-system"),
        pytest.param("namespaces", "kube-public", "x", id="kube-public"),
        pytest.param("namespaces", "kube-node-lease", None, id="kube-node-lease"),
        pytest.param("namespaces", "default", None, id="default"),
        pytest.param("configmaps", "a", "kube-system", id="in kube-system"),
        pytest.param("pods", "a", "kube-public", id="in kube-public"),
        pytest.param("leases", "a", "kube-node-lease", id="in kube-node-lease"),
        pytest.param("clusterroles", "cluster-admin", None, id="ClusterRole"),
        pytest.param("clusterroles", "any", "any", id="any ClusterRole"),
        pytest.param("pods", "a", "talon", id="in our namespace"),
        pytest.param("namespaces", "talon", None, id="our namespace"),
    ],
)
async def test_ac_25_protected(
    resource: str, name: str, namespace: Any, clients: Clients, cluster: Cluster, monkeypatch: Any
) -> None:
    """AC-25: what the cluster and Falco Talon live on is never deleted."""
    monkeypatch.setattr(clients.kubernetes._access, "namespace", "talon")
    before = clients.kubernetes
    monkeypatch.setattr(before, "delete", None)  # nothing is even asked
    with pytest.raises(Ignored, match="protected"):
        await delete(clients, audit(resource, name, namespace))


async def test_unprotected(cluster: Cluster, namespace: str) -> None:
    """With another list a ClusterRole can be deleted, and what the list has cannot."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    cluster.request("POST", path, {"metadata": {"name": f"{namespace}:role"}})
    async with Clients(kubeconfig=cluster.kubeconfig, protected=[namespace]) as clients:
        await clients.ready({"kubernetes"})
        result = await delete(clients, audit("clusterroles", f"{namespace}:role", None))
        with pytest.raises(Ignored, match=f"in the protected namespace '{namespace}'"):
            await delete(clients, audit("configmaps", "kube-root-ca.crt", namespace))
    assert result.text == f"the clusterrole '{namespace}:role' has been deleted"
    assert is_gone(cluster, f"{path}/{namespace}:role")


@pytest.mark.parametrize(
    ("group", "custom"),
    [
        ("apps", False),
        ("rbac.authorization.k8s.io", False),
        ("flowcontrol.apiserver.k8s.io", False),
        ("metrics.k8s.io", False),
        ("gateway.networking.k8s.io", True),
        ("cluster.x-k8s.io", True),
        ("example.com", True),
    ],
)
def test_groups(group: str, custom: bool) -> None:
    """The kinds of Kubernetes itself that we do not know are no custom resources."""
    resource = {"resource": "gadgets", "verbs": ["delete"], "scope": "Namespaced"}
    version = {"version": "v1", "resources": [resource]}
    discovered = {"items": [{"metadata": {"name": group}, "versions": [version]}]}
    assert list(_custom(discovered, "gadgets")) == ([(f"{group}/v1", True)] if custom else [])


@pytest.fixture
def custom_resource(cluster: Cluster, namespace: str) -> Iterator[Callable[..., str]]:
    """Define the custom resource `gadgets` in a group."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made: list[str] = []

    def define(group: str, scope: str = "Namespaced", plural: str = "gadgets") -> str:
        names = {"plural": plural, "singular": plural[:-1], "kind": plural.title()}
        schema = {"openAPIV3Schema": {"type": "object"}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        spec = {"group": group, "scope": scope, "names": names, "versions": [version]}
        name = f"{plural}.{group}"
        cluster.request("POST", path, {"metadata": {"name": name}, "spec": spec})
        made.append(name)
        cluster.wait_for(lambda: _served(cluster, f"/apis/{group}/v1/{plural}"), what=plural)
        return f"/apis/{group}/v1"

    yield define
    for name in made:
        cluster.request("DELETE", f"{path}/{name}")


def _served(cluster: Cluster, path: str) -> bool:
    try:
        cluster.request("GET", path)
    except ClusterError:
        return False
    return any(
        group["name"] == path.split("/")[2] for group in cluster.request("GET", "/apis")["groups"]
    )


async def test_custom_resources(
    clients: Clients, cluster: Cluster, namespace: str, custom_resource: Callable[..., str]
) -> None:
    """Custom resources are found through discovery; the audited URI tells groups apart."""
    plural, where = f"gadgets{namespace[-8:]}s", ""
    for group in (f"one.{namespace}.test", f"two.{namespace}.test"):
        api = custom_resource(group, plural=plural)
        body = {"apiVersion": f"{group}/v1", "kind": plural.title(), "metadata": {"name": "a"}}
        where = f"{api}/namespaces/{namespace}/{plural}"
        cluster.request("POST", where, body)
        if group.startswith("one"):
            await delete(clients, audit(plural, "a", namespace))
            assert is_gone(cluster, f"{where}/a")
    with pytest.raises(CheckError, match=r"missing target namespace"):
        await delete(clients, audit(plural, "a", None, **{"ka.uri": f"{where}/a"}))
    with pytest.raises(CheckError, match=r"several such resources: in one.*/v1, two.*/v1"):
        await delete(clients, audit(plural, "a", namespace))
    await delete(clients, audit(plural, "a", namespace, **{"ka.uri": f"{where}/a?x=y"}))
    assert is_gone(cluster, f"{where}/a")


async def test_custom_kind_called_like_a_built_in(
    clients: Clients, cluster: Cluster, namespace: str, custom_resource: Callable[..., str]
) -> None:
    """The audited URI tells a custom `configmaps` from the built-in one, which stays."""
    group = f"config.{namespace}.test"
    api = custom_resource(group, plural="configmaps")
    where = f"{api}/namespaces/{namespace}/configmaps"
    cluster.request(
        "POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "a"}}
    )
    body = {"apiVersion": f"{group}/v1", "kind": "Configmaps", "metadata": {"name": "a"}}
    cluster.request("POST", where, body)
    await delete(clients, audit("configmaps", "a", namespace, **{"ka.uri": f"{where}/a"}))
    assert is_gone(cluster, f"{where}/a")
    built_in = f"/api/v1/namespaces/{namespace}/configmaps/a"
    assert not is_gone(cluster, built_in)
    await delete(clients, audit("configmaps", "a", namespace, **{"ka.uri": built_in}))
    assert is_gone(cluster, built_in)


async def test_custom_resource_of_the_cluster(
    clients: Clients, cluster: Cluster, namespace: str, custom_resource: Callable[..., str]
) -> None:
    """A custom resource without namespace needs none."""
    group, plural = f"{namespace}.test", f"things{namespace[-8:]}s"
    api = custom_resource(group, "Cluster", plural)
    body = {"apiVersion": f"{group}/v1", "kind": plural.title(), "metadata": {"name": "a"}}
    cluster.request("POST", f"{api}/{plural}", body)
    result = await delete(clients, audit(plural, "a", "meaningless"))
    assert result.text == f"the {plural[:-1]} 'a' has been deleted"
    assert result.objects == {"name": "a", "resource": plural}
    assert is_gone(cluster, f"{api}/{plural}/a")


@pytest.mark.parametrize(
    ("resource", "name", "namespace", "text"),
    [
        ("", "a", "b", r"missing target resource \(ka.target.resource\)"),
        (None, "a", "b", "missing target resource"),
        ("pods", "", "b", r"missing target name \(ka.target.name\)"),
        ("pods", "a", None, r"missing target namespace \(ka.target.namespace\)"),
        ("pods", "absent", "default", "the pod 'absent' in the namespace 'default' doesn't exist"),
        ("pods", "../../nodes/x", "default", "doesn't exist"),
        ("namespaces", "absent", None, "the namespace 'absent' doesn't exist"),
        ("namespaces", "a/../kube-system", None, "doesn't exist"),
        ("nodes", "a", None, "its type is not yet managed"),
        ("../pods", "a", "b", "its type is not yet managed"),
        ("pods/exec", "a", "b", "its type is not yet managed"),
        ("x" * 1_000_000, "a", "b", "its type is not yet managed"),
        ("validatingwebhookconfigurations", "a", None, "its type is not yet managed"),
    ],
)
async def test_not_deleted(
    resource: Any, name: Any, namespace: Any, text: str, clients: Clients
) -> None:
    """What the event does not say, or what does not exist, is an error in words."""
    with pytest.raises(CheckError, match=text):
        await delete(clients, audit(resource, name, namespace))


async def test_terminate_spares_the_protected(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, monkeypatch: Any
) -> None:
    """The list counts for kubernetes:terminate as well."""
    from tests.actionners.conftest import about
    from tests.actionners.kubernetes.terminating import run

    create_pod()
    monkeypatch.setattr(clients.kubernetes._access, "namespace", namespace)
    with pytest.raises(Ignored, match=f"is in the protected namespace '{namespace}'"):
        await run(clients, about(namespace, "web"), ignore_standalone_pods=False)
    assert "deletionTimestamp" not in cluster.pod(namespace)["metadata"]
