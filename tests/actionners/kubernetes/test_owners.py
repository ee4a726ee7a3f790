"""The pods of every kind of owner, as their real controllers make them, and of a custom one."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.drain import Drain
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.actionners.kubernetes.networkpolicy import NetworkPolicy
from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.clients import Clients
from falco_talon.errors import Ignored
from falco_talon.event import Event
from tests.actionners.conftest import about
from tests.actionners.kubernetes.terminating import is_gone
from tests.cluster.cluster import Cluster, Resource

LABELS = {"app": "web"}
SELECTOR = {"matchLabels": LABELS}
JOB_POD: dict[str, Any] = {
    "metadata": {"labels": LABELS},
    "spec": {
        "schedulerName": "nobody",
        "restartPolicy": "Never",
        "containers": [{"name": "web", "image": "busybox"}],
    },
}
POD: dict[str, Any] = {**JOB_POD, "spec": {**JOB_POD["spec"], "restartPolicy": "Always"}}
APPS, BATCH = "/apis/apps/v1", "/apis/batch/v1"
OWNERS: dict[str, tuple[str, str, Any, str]] = {
    "Deployment": (APPS, "deployments", {"selector": SELECTOR, "template": POD}, "deployment-own"),
    "ReplicaSet": (APPS, "replicasets", {"selector": SELECTOR, "template": POD}, "replicaset-own"),
    "DaemonSet": (APPS, "daemonsets", {"selector": SELECTOR, "template": POD}, "daemonset-own"),
    "StatefulSet": (
        APPS,
        "statefulsets",
        {"selector": SELECTOR, "template": POD, "serviceName": "own"},
        "statefulset-own",
    ),
    "Job": (BATCH, "jobs", {"template": JOB_POD}, "job-own"),
    "CronJob": (
        BATCH,
        "cronjobs",
        {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": JOB_POD}}},
        "cronjob-own",
    ),
    "bare": ("/api/v1", "pods", None, "pod-own"),
    "custom": ("", "", None, "database-own"),
}


@pytest.fixture
def api_of_databases(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Define the custom kind Database, and return the path of its API."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    group = f"{secrets.token_hex(4)}.example.com"
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    names = {"plural": "databases", "singular": "database", "kind": "Database"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    name = f"databases.{group}"
    cluster.request("POST", path, {"metadata": {"name": name}, "spec": spec})

    def established() -> bool:
        conditions = cluster.request("GET", f"{path}/{name}")["status"].get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    cluster.wait_for(established, what="the custom kind")
    yield f"/apis/{group}/v1"
    cluster.request("DELETE", f"{path}/{name}")


def _custom_pod(cluster: Cluster, namespace: str, api: str) -> None:
    """Do what an operator does: make a pod that belongs to a custom resource."""
    body = {
        "apiVersion": api.removeprefix("/apis/"),
        "kind": "Database",
        "metadata": {"name": "own"},
    }
    made = cluster.request("POST", f"{api}/namespaces/{namespace}/databases", body)
    cluster.create_pod(namespace, "web", owner=made, labels=LABELS, schedulerName="nobody")


@pytest.fixture(params=OWNERS)
def owned(
    request: pytest.FixtureRequest, node_cluster: Cluster, namespace: str
) -> tuple[str, Resource]:
    """The kind of an owner, and a pod that its controller has made."""
    kind: str = request.param
    cluster = node_cluster
    api, resource, spec, _ = OWNERS[kind]
    pods = f"/api/v1/namespaces/{namespace}/pods"
    if kind == "custom":
        _custom_pod(cluster, namespace, request.getfixturevalue("api_of_databases"))
    elif kind == "bare":
        cluster.create_pod(namespace, "own", labels=LABELS, schedulerName="nobody")
    else:
        body = {"metadata": {"name": "own"}, "spec": spec}
        made = cluster.request("POST", f"{api}/namespaces/{namespace}/{resource}", body)
        if kind == "CronJob":  # as `kubectl create job --from` and its controller do
            reference = {
                "apiVersion": "batch/v1", "kind": kind, "name": "own", "controller": True,
                "uid": made["metadata"]["uid"],
            }  # fmt: skip
            metadata = {"name": "own-1", "ownerReferences": [reference]}
            job = {"metadata": metadata, "spec": {"template": JOB_POD}}
            cluster.request("POST", f"{BATCH}/namespaces/{namespace}/jobs", job)
    found = cluster.wait_for(lambda: cluster.request("GET", pods)["items"], what="its pod")
    return kind, found[0]


def both(namespace: str, pod: str) -> list[Event]:
    """Return the syscall event and the audit event about a pod."""
    audited = {"resource": "pods", "name": pod, "namespace": namespace}
    fields = {f"ka.target.{key}": value for key, value in audited.items()}
    return [about(namespace, pod), Event(source="k8s_audit", output_fields=fields)]


async def test_owned(
    owned: tuple[str, Resource], clients: Clients, cluster: Cluster, namespace: str
) -> None:
    """Each is labelled, isolated as a workload, evicted or not, and terminated."""
    kind, pod = owned
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    syscall, audit = both(namespace, name)
    for event, value in ((syscall, "one"), (audit, "two")):
        await Label(Label.Parameters(labels={"seen": value}), clients).run(event)
        assert cluster.pod(namespace, name)["metadata"]["labels"]["seen"] == value
    # The label is no part of any workload.
    await Label(Label.Parameters(labels={"seen": ""}), clients).run(event)

    result = await NetworkPolicy(NetworkPolicy.Parameters(), clients).run(audit)
    assert result.objects["networkpolicy"] == f"falco-talon-{OWNERS[kind][3]}"
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    (policy,) = cluster.request("GET", path)["items"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() >= LABELS.items()
    assert (selected == LABELS) is (kind != "Job"), "of a Job the pods of this run"

    drain = Drain(Drain.Parameters(), clients)
    assert drain._spared(pod) is (kind == "DaemonSet")
    if kind == "bare":
        with pytest.raises(Ignored, match="is a standalone pod and will be ignored"):
            await Terminate(Terminate.Parameters(), clients).run(syscall)
    terminate = Terminate(Terminate.Parameters(ignore_standalone_pods=kind != "bare"), clients)
    await terminate.run(audit)
    assert is_gone(cluster, namespace, name, uid)
