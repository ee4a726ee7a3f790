"""The test cluster itself: what the other tests rely on."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}


def test_a_pod_can_be_created_and_read(cluster: Cluster, namespace: str) -> None:
    cluster.create_pod(namespace, labels={"app": "web"}, annotations={"team": "a"})

    found = cluster.pod(namespace)

    assert found["metadata"]["labels"] == {"app": "web"}
    assert found["metadata"]["annotations"] == {"team": "a"}


def test_a_refusal_has_status_reason_and_message(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ClusterError, match=r"404 NotFound: .*none") as caught:
        cluster.pod(namespace, "none")

    assert caught.value.status == 404


def test_a_service_account_may_do_what_its_rules_say_and_no_more(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    path = cluster.service_account_kubeconfig(namespace, "reader", [READ_PODS], tmp_path / "config")
    reader = Cluster(path)
    cluster.create_pod(namespace)

    # the API server learns of new roles a moment after it has accepted them
    cluster.wait_for(lambda: _pod_as(reader, namespace), timeout=5, what="the role")

    with pytest.raises(ClusterError, match="403 Forbidden"):
        reader.create_pod(namespace, "other")


def test_a_pod_can_be_owned(cluster: Cluster, namespace: str) -> None:
    owner = _create_replica_set(cluster, namespace, replicas=0)

    # not read again: where controllers run, this one lets go of a pod beyond its replicas
    references = cluster.create_pod(namespace, owner=owner)["metadata"]["ownerReferences"]

    assert [(r["kind"], r["name"]) for r in references] == [("ReplicaSet", "web")]


class TestWithANode:
    def test_a_pod_runs_and_its_log_can_be_read(
        self, node_cluster: Cluster, namespace: str
    ) -> None:
        node_cluster.create_pod(namespace, command=("sh", "-c", "echo hello; sleep 3600"))
        node_cluster.pod_running(namespace)

        log = node_cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods/web/log")

        assert log == "hello\n"

    def test_a_replica_set_gets_its_replicas(self, node_cluster: Cluster, namespace: str) -> None:
        _create_replica_set(node_cluster, namespace, replicas=2)
        path = f"/apis/apps/v1/namespaces/{namespace}/replicasets/web"

        def ready() -> bool:
            return bool(node_cluster.request("GET", path)["status"].get("readyReplicas") == 2)

        node_cluster.wait_for(ready, what="two replicas")

    def test_commands_can_be_executed(
        self, node_cluster: Cluster, namespace: str, kubectl: Path
    ) -> None:
        node_cluster.create_pod(namespace)
        node_cluster.pod_running(namespace)
        access = [str(kubectl), f"--kubeconfig={node_cluster.kubeconfig}", f"-n{namespace}"]
        script = ["sh", "-c", "id -un; cat; exit 7"]

        done = subprocess.run(
            [*access, "exec", "-i", "web", "--", *script],
            input="from stdin",
            capture_output=True,
            text=True,
            check=False,
        )

        assert (done.stdout, done.returncode) == ("root\nfrom stdin", 7), done.stderr

    def test_an_ephemeral_container_captures_packets(
        self, node_cluster: Cluster, namespace: str
    ) -> None:
        node_cluster.create_pod(namespace)
        node_cluster.pod_running(namespace)
        script = "ping -c 20 -i 0.1 127.0.0.1 >/dev/null & timeout 5 tcpdump -n -i any -c 2 icmp"
        container = {
            "name": "capture",
            "image": "issif/tcpdump:latest",
            "imagePullPolicy": "Always",
            "command": ["sh", "-c", script],
            "securityContext": {"capabilities": {"add": ["NET_RAW", "NET_ADMIN"]}},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/web"
        body = {"spec": {"ephemeralContainers": [container]}}
        content_type = "application/strategic-merge-patch+json"
        node_cluster.request("PATCH", f"{path}/ephemeralcontainers", body, content_type)

        def finished() -> dict[str, Any] | None:
            status = node_cluster.request("GET", path)["status"]
            states = [s["state"] for s in status.get("ephemeralContainerStatuses", [])]
            return next((s["terminated"] for s in states if "terminated" in s), None)

        ended = node_cluster.wait_for(finished, what="the capture")
        log = node_cluster.request("GET", f"{path}/log?container=capture")
        assert ended["exitCode"] == 0, log
        assert "ICMP echo request" in log

    def test_a_job_captures_system_calls(self, node_cluster: Cluster, namespace: str) -> None:
        script = "sysdig --modern-bpf -M 1 -s 80 -z -w /tmp/a.scap.gz && test -s /tmp/a.scap.gz"
        pod = {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "capture",
                    "image": "issif/sysdig:latest",
                    "command": ["sh", "-c", script],
                    "securityContext": {"privileged": True},
                    "volumeMounts": [{"name": "host", "mountPath": "/host"}],
                }
            ],
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        }
        jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        body = {"metadata": {"name": "capture"}, "spec": {"template": {"spec": pod}}}
        node_cluster.request("POST", jobs, body)

        def succeeded() -> bool:
            return bool(node_cluster.request("GET", f"{jobs}/capture")["status"].get("succeeded"))

        node_cluster.wait_for(succeeded, what="the job")

    def test_a_pod_is_evicted(self, node_cluster: Cluster, namespace: str) -> None:
        node_cluster.create_pod(namespace)
        node_cluster.pod_running(namespace)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
        path = f"/api/v1/namespaces/{namespace}/pods/web/eviction"

        node_cluster.request("POST", path, eviction)

        def gone() -> bool:
            try:
                node_cluster.pod(namespace)
            except ClusterError as error:
                return error.status == 404
            return False

        node_cluster.wait_for(gone, what="the eviction")


def _pod_as(reader: Cluster, namespace: str) -> bool:
    try:
        reader.pod(namespace)
    except ClusterError as error:
        if error.status == 403:
            return False
        raise
    return True


def _create_replica_set(cluster: Cluster, namespace: str, *, replicas: int) -> dict[str, Any]:
    container = {"name": "web", "image": "busybox:latest", "command": ["sleep", "3600"]}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 1}
    body = {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
        },
    }
    path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    created: dict[str, Any] = cluster.request("POST", path, body)
    return created
