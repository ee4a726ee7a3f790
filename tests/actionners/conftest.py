"""Clients of the real cluster, and events about pods in it."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from falco_talon.clients import Clients
from falco_talon.event import Event
from falco_talon.plugin import PolicyRule
from tests.cluster.binaries import VERSION
from tests.cluster.cache import Cache
from tests.cluster.cluster import Cluster, Resource
from tests.endpoint import endpoint, unused_url

__all__ = ["endpoint", "unused_url"]


@pytest.fixture
async def clients(cluster: Cluster) -> AsyncIterator[Clients]:
    """The clients of an administrator of the cluster."""
    async with Clients(kubeconfig=cluster.kubeconfig) as clients:
        await clients.ready({"kubernetes"})
        yield clients


@pytest.fixture
def event(namespace: str) -> Event:
    """An event about the pod `web`."""
    return about(namespace, "web")


def about(namespace: str, pod: str, **fields: Any) -> Event:
    """Return an event about *pod*."""
    return Event(
        output="Shell in a container",
        output_fields={"k8s.ns.name": namespace, "k8s.pod.name": pod, **fields},
    )


CreatePod = Callable[..., Resource]


@pytest.fixture
def create_pod(cluster: Cluster, namespace: str) -> CreatePod:
    """Create a pod that no scheduler and no kubelet touches: it stays as the test made it."""

    def create(name: str = "web", **options: Any) -> Resource:
        return cluster.create_pod(namespace, name, schedulerName="nobody", **options)

    return create


@pytest.fixture
def as_account(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> Callable[[tuple[PolicyRule, ...]], Path]:
    """Return the kubeconfig of a new service account that has these permissions alone."""
    made: list[str] = []

    def account(permissions: tuple[PolicyRule, ...]) -> Path:
        name = f"robot-{len(made)}"
        made.append(name)
        rules = [
            {"apiGroups": rule.api_groups, "resources": rule.resources, "verbs": rule.verbs}
            for rule in permissions
        ]
        return cluster.service_account_kubeconfig(namespace, name, rules, tmp_path / name)

    return account


class Running(NamedTuple):
    """A pod that runs on a real node, for many tests: they leave it as they found it."""

    cluster: Cluster
    namespace: str
    name: str

    def sh(self, command: str, container: str = "web") -> str:
        """Return what a command writes in the container, by kubectl."""
        kubectl = Cache.from_environment().binary(VERSION, "kubectl")
        words = [str(kubectl), "--kubeconfig", str(self.cluster.kubeconfig), "-n", self.namespace]
        words += ["exec", self.name, "-c", container, "--", "sh", "-c", command]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
        return done.stdout

    def about(self, **fields: Any) -> Event:
        """Return an event about it."""
        return about(self.namespace, self.name, **fields)


@pytest.fixture(scope="session")
def running(node_cluster: Cluster) -> Iterator[Running]:
    """The pod `web` with the containers `web` (which knows a secret) and `other`."""
    namespace = node_cluster.create_namespace()
    containers = [
        {
            "name": name,
            "image": "busybox:latest",
            "command": ["sh", "-c", f"echo I am {name}; exec sleep 3600"],
            "env": [{"name": "OWN", "value": f"of {name}"}],
        }
        for name in ("web", "other")
    ]
    node_cluster.create_pod(namespace, "web", containers=containers)
    node_cluster.pod_running(namespace, "web")
    yield Running(node_cluster, namespace, "web")
    node_cluster.delete_namespace(namespace)
