"""A server to call, and kubeconfigs of the real cluster."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from falco_talon.clients.access import open_access
from falco_talon.clients.kubernetes import Kubernetes
from tests.cluster.cluster import Cluster
from tests.endpoint import endpoint, unused_url

__all__ = ["endpoint", "unused_url", "who"]

READ_VERSION = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]


async def who(kubeconfig: Path) -> str:
    """Return who the API server takes us for."""
    client = Kubernetes(await open_access(kubeconfig))
    try:
        review = await client.post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        )
    finally:
        await client.close()
    return str(review["status"]["userInfo"]["username"])


@pytest.fixture
def admin(cluster: Cluster) -> dict[str, Any]:
    """The administrator's kubeconfig, with the content of every file in it."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    folder = cluster.kubeconfig.parent
    for section in (document["clusters"][0]["cluster"], document["users"][0]["user"]):
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if name := section.pop(key, None):
                section[f"{key}-data"] = base64.b64encode((folder / name).read_bytes()).decode()
    return dict(document)


@pytest.fixture
def token(cluster: Cluster, namespace: str, tmp_path: Path) -> str:
    """A token of the service account `robot`."""
    path = tmp_path / "robot.kubeconfig"
    cluster.service_account_kubeconfig(namespace, "robot", READ_VERSION, path)
    return str(yaml.safe_load(path.read_text())["users"][0]["user"]["token"])


@pytest.fixture
def write(tmp_path: Path, admin: dict[str, Any]) -> Callable[..., Path]:
    """Write a kubeconfig with this user and, in its cluster, these settings."""

    def write(user: dict[str, Any], **settings: Any) -> Path:
        admin["users"][0]["user"] = user
        admin["clusters"][0]["cluster"] |= settings
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(admin))
        return path

    return write
