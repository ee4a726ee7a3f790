"""pytest fixtures: a Kubernetes cluster for the tests that need one.

Which one, in this order:

1. `TALON_TEST_CLUSTER=none`: none, the tests are skipped;
2. `TALON_TEST_KUBECONFIG`: any cluster, as its administrator;
3. the one that `make cluster` started, if it is healthy;
4. `KUBEBUILDER_ASSETS`: the API alone, from the etcd and kube-apiserver in that folder;
5. the API alone, from binaries that are built when they are first needed.

`TALON_TEST_CLUSTER=api` passes over 2 and 3.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import cast

import pytest

from tests.cluster.binaries import VERSION, Binaries, provision
from tests.cluster.cache import Cache
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import private_control_plane
from tests.cluster.errors import SetupError
from tests.cluster.progress import Progress


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A Kubernetes API we are administrator of; with a node or without."""
    wish = os.environ.get("TALON_TEST_CLUSTER", "")
    if wish == "none":
        pytest.skip("TALON_TEST_CLUSTER=none")
    if wish not in {"", "api"}:
        pytest.fail(f"TALON_TEST_CLUSTER={wish}: not `none` or `api`", pytrace=False)
    if existing := _existing() if wish != "api" else None:
        yield existing
        return
    try:
        binaries = _api_binaries(request.config)
    except SetupError as error:
        pytest.skip(f"no Kubernetes API: {error}")
    with private_control_plane(binaries) as kubeconfig:
        yield Cluster(kubeconfig)


@pytest.fixture(scope="session")
def node_cluster(cluster: Cluster) -> Cluster:
    """A cluster with a node, on which pods run."""
    if not cluster.has_nodes:
        pytest.skip("needs a node: run `make cluster` (root)")
    return cluster


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """A kubectl, to compare with or to exec."""
    built = Cache.from_environment().binary(VERSION, "kubectl")
    found = built if built.is_file() else shutil.which("kubectl")
    if not found:
        pytest.skip("needs kubectl: run `make cluster` (root), or put one on PATH")
    return Path(found)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace of this test's own."""
    name = cluster.create_namespace()
    yield name
    cluster.delete_namespace(name)


def _existing() -> Cluster | None:
    """A cluster that runs already."""
    if given := os.environ.get("TALON_TEST_KUBECONFIG"):
        try:
            chosen = Cluster(Path(given))
        except SetupError as error:
            pytest.fail(f"TALON_TEST_KUBECONFIG: {error}", pytrace=False)
        if not chosen.is_healthy():
            # who names a cluster wants that one: another one in silence would mislead
            pytest.fail(f"TALON_TEST_KUBECONFIG={given}: {chosen.server} is not ready", False)
        return chosen
    with suppress(SetupError):  # there is none, or it is another user's
        ours = Cluster(Cache.from_environment().kubeconfig)
        if ours.is_healthy():
            return ours
    return None


def _api_binaries(config: pytest.Config) -> Binaries:
    if sys.platform != "linux":
        raise SetupError("needs Linux; set TALON_TEST_KUBECONFIG to a cluster")
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return Binaries.in_folder(Path(assets))
    with _on_the_terminal(config):
        return provision(Cache.from_environment(), ["kube-apiserver"], Progress())


@contextmanager
def _on_the_terminal(config: pytest.Config) -> Iterator[None]:
    """Show what we write: a build of minutes in silence looks like a hanging test."""
    capture = config.pluginmanager.getplugin("capturemanager")
    shown = cast(
        "AbstractContextManager[None]",
        capture.global_and_fixture_disabled() if capture else nullcontext(),
    )
    with shown:
        yield
