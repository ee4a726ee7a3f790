"""What the tests use: a cluster to ask, to put pods on and to wait for."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.certificates import write_kubeconfig
from tests.cluster.client import Client
from tests.cluster.errors import ClusterError

T = TypeVar("T")

Resource = dict[str, Any]

NAMESPACE_LABEL = "falco-talon.test/namespace"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Cluster:
    """A cluster we are administrator of; with or without controllers and nodes."""

    def __init__(self, kubeconfig: Path) -> None:
        """Raises SetupError if the kubeconfig is not usable; the server is not asked yet."""
        self.kubeconfig = kubeconfig
        self._client = Client.from_kubeconfig(kubeconfig)

    @property
    def server(self) -> str:
        return self._client.server

    @cached_property
    def has_controllers(self) -> bool:
        """Something reconciles: ReplicaSets get pods, deleted namespaces go away."""
        # an API server alone makes the namespace `default`, but nothing in it
        return self._exists("/api/v1/namespaces/default/serviceaccounts/default")

    @cached_property
    def has_nodes(self) -> bool:
        """At least one node is Ready, so that pods run."""
        return bool(self.ready_nodes())

    def is_healthy(self) -> bool:
        try:
            return bool(self.request("GET", "/readyz") == "ok")
        except ClusterError:
            return False

    def ready_nodes(self) -> list[str]:
        """The names of the nodes that are Ready."""
        nodes: list[Resource] = self.request("GET", "/api/v1/nodes")["items"]
        return [
            node["metadata"]["name"]
            for node in nodes
            if _condition(node, "Ready")
            # set by the controllers until they have seen the node being Ready
            and not any(t["key"] == "node.kubernetes.io/not-ready" for t in _taints(node))
        ]

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Any:
        """Ask the API server; decoded JSON, or text where the answer is none (logs).

        Raises ClusterError for a status of 400 and above, and for a server out of reach.
        """
        return self._client.request(method, path, body, content_type)

    def wait_for(
        self,
        probe: Callable[[], T | None],
        timeout: float = 60.0,
        what: str = "the cluster",
    ) -> T:
        """Ask until the answer says yes (is not None, False or empty), `timeout` seconds long.

        Raises TimeoutError. A ClusterError of the probe is not waited out.
        """
        end = time.monotonic() + timeout
        while True:
            answer = probe()
            if answer:
                return answer
            if time.monotonic() > end:
                raise TimeoutError(f"waited {timeout:.0f} s in vain for {what}")
            time.sleep(0.1)

    # --- namespaces -----------------------------------------------------------------------------

    def create_namespace(self, prefix: str = "talon-test") -> str:
        """A namespace of a new name, ready for pods."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        if self.has_controllers:
            path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            self.wait_for(lambda: self._exists(path), what=f"service account default in {name}")
        return name

    def delete_namespace(self, name: str) -> None:
        """Delete it with what belongs to it in the whole cluster; does not wait for that."""
        for kind in ("clusterrolebindings", "clusterroles"):
            self.request("DELETE", f"{RBAC}/{kind}?labelSelector={NAMESPACE_LABEL}%3D{name}")
        with suppress(ClusterError):  # a test may have deleted it already
            self.request("DELETE", f"/api/v1/namespaces/{name}")

    # --- pods -----------------------------------------------------------------------------------

    def create_pod(
        self,
        namespace: str,
        name: str = "web",
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        owner: Resource | None = None,
        node: str | None = None,
        image: str = "busybox:latest",
        command: Sequence[str] = ("sleep", "3600"),
        **spec: Any,
    ) -> Resource:
        """Create a pod of one container named like the pod; further fields of its spec may follow.

        `owner` is an object as the API returns it; the pod names it as its controller. Where
        controllers run, a ReplicaSet lets go of a pod whose labels its selector does not match,
        and deletes one beyond its replicas.
        """
        metadata: Resource = {
            "name": name,
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        }
        if owner:
            metadata["ownerReferences"] = [owner_reference(owner)]
        content: Resource = {
            "metadata": metadata,
            "spec": {
                "containers": [{"name": name, "image": image, "command": list(command)}],
                # `sleep` as process 1 does not heed SIGTERM: the default would cost 30 s
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                **({"nodeName": node} if node else {}),
                **spec,
            },
        }
        created: Resource = self.request("POST", f"/api/v1/namespaces/{namespace}/pods", content)
        return created

    def pod(self, namespace: str, name: str = "web") -> Resource:
        found: Resource = self.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
        return found

    def pod_running(self, namespace: str, name: str = "web", timeout: float = 60.0) -> Resource:
        """Wait until the pod is Running with all containers ready; raises TimeoutError."""

        def running() -> Resource | None:
            pod = self.pod(namespace, name)
            return pod if _condition(pod, "Ready") else None

        try:
            return self.wait_for(running, timeout, f"pod {namespace}/{name}")
        except TimeoutError as error:
            status = self.pod(namespace, name)["status"]
            raise TimeoutError(f"{error}: {status}") from None

    # --- identities -----------------------------------------------------------------------------

    def service_account_kubeconfig(
        self, namespace: str, name: str, rules: Sequence[Mapping[str, Any]], path: Path
    ) -> Path:
        """A kubeconfig, at `path`, of a new service account that may do `rules` and no more.

        The rules hold in the whole cluster; `delete_namespace` takes them away.
        """
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.request("POST", accounts, {"metadata": {"name": name}})
        role = f"{namespace}-{name}"
        metadata = {"name": role, "labels": {NAMESPACE_LABEL: namespace}}
        self.request(
            "POST",
            f"{RBAC}/clusterroles",
            {"metadata": metadata, "rules": [dict(rule) for rule in rules]},
        )
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        self.request(
            "POST",
            f"{RBAC}/clusterrolebindings",
            {"metadata": metadata, "roleRef": reference, "subjects": [subject]},
        )
        answer = self.request(
            "POST",
            f"{accounts}/{name}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 3600},
            },
        )
        user = {"token": answer["status"]["token"]}
        return write_kubeconfig(path, self._client.cluster, user, namespace)

    def _exists(self, path: str) -> bool:
        try:
            self.request("GET", path)
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True


def owner_reference(owner: Resource) -> Resource:
    """How a pod names the object that controls it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def _condition(resource: Resource, kind: str) -> bool:
    conditions = resource.get("status", {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def _taints(node: Resource) -> list[Resource]:
    return list(node["spec"].get("taints") or [])
