"""Brings the whole cluster up, mends it, and takes it down again."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from tests.cluster import images, packages, traces
from tests.cluster.binaries import CONTROL_PLANE, NODE, Binaries, located, provision
from tests.cluster.cache import Cache
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import LOOPBACK, ControlPlane
from tests.cluster.errors import ClusterError, SetupError
from tests.cluster.node import ADDRESS, Node
from tests.cluster.ports import Ports
from tests.cluster.processes import Daemon, Process, wait_until
from tests.cluster.progress import Progress

PROBE = "talon-probe"
KUBERNETES_NAMES = (*CONTROL_PLANE, *NODE)
# In the order in which they start.
PROCESSES = ("etcd", *CONTROL_PLANE, "registry", "containerd", "kubelet")


@dataclass(frozen=True)
class Parts:
    """The parts of the cluster in the cache."""

    plane: ControlPlane
    node: Node

    @classmethod
    def of(cls, cache: Cache, binaries: Binaries) -> "Parts":
        ports = Ports.kept_in(cache.run / "ports.json")
        plane = ControlPlane(binaries, cache.run, ports, ADDRESS)
        return cls(plane, Node(plane, binaries.kubernetes["kubelet"]))

    def daemons(self) -> list[Daemon]:
        """In the order in which they start."""
        plane, node = self.plane, self.node
        return [
            plane.etcd(),
            plane.apiserver(),
            plane.controller_manager(),
            plane.scheduler(),
            node.registry(),
            node.containerd(),
            node.kubelet(),
        ]


def up(cache: Cache, progress: Progress) -> None:
    """Start the cluster or mend it; returns when a pod can run. Raises SetupError."""
    _require_root()
    with cache.lock("cluster", progress):
        packages.install_missing(progress)
        binaries = provision(cache, KUBERNETES_NAMES, progress)
        if not any(process.record() for process in _processes(cache)):
            # the ports of a cluster that died, perhaps with the machine, may be taken by now
            (cache.run / "ports.json").unlink(missing_ok=True)
        parts = Parts.of(cache, binaries)
        verified = cache.run / "verified"
        if not (verified.exists() and _is_healthy(cache, parts)):
            verified.unlink(missing_ok=True)
            try:
                _start(cache, parts, progress)
            except (SetupError, ClusterError, TimeoutError) as error:
                raise SetupError(f"{error}; `down` and `up` make a fresh start") from error
            verified.touch()
        progress.say(f"the cluster is up: {_usage(cache)}")


def down(cache: Cache, progress: Progress) -> None:
    """Stop the cluster and remove its traces; what was downloaded and built stays, and the logs."""
    if not (cache.run / "ports.json").exists():
        progress.say("the cluster is down")
        return
    _require_root()
    with cache.lock("cluster", progress):
        # kubelet first, so that it does not start the containers again that we kill
        *others, kubelet = _processes(cache)
        if kubelet.stop():
            progress.say("kubelet stopped")
        _kill_containers(cache, progress)
        for process in reversed(others):
            # an API server waits long for clients that watch; the data goes away in any case
            if process.stop(patience=3):
                progress.say(f"{process.name} stopped")
        progress.say("remove mounts, network and data")
        traces.unmount_below(cache.run)
        traces.remove_network(cache.run)
        traces.remove_cgroups()
        traces.remove_strays(cache.run)
        traces.remove_below(cache.run)
        progress.say(f"the cluster is down (logs: {cache.run})")


def status(cache: Cache, progress: Progress) -> bool:
    """Say how each process is; whether the cluster can be used."""
    if not (cache.run / "ports.json").exists():
        progress.say("the cluster is down")
        return False
    _require_root()
    parts = Parts.of(cache, located(cache, KUBERNETES_NAMES))
    for daemon in parts.daemons():
        if not daemon.record():
            state = "not running"
        elif daemon.is_current():
            state = "healthy"
        else:
            state = "not healthy, or started by other code"
        progress.say(f"{daemon.name:24} {state}")
    healthy = _is_healthy(cache, parts)
    progress.say(_usage(cache) if healthy else "not usable: run `make cluster`")
    return healthy


def _start(cache: Cache, parts: Parts, progress: Progress) -> None:
    traces.prepare_network(cache.run)
    for daemon in parts.daemons():
        if daemon.ensure():
            progress.say(f"{daemon.name} started")
        if daemon.name == "registry":
            for image in images.images():
                images.push(image, LOOPBACK, parts.plane.ports.registry)
            progress.say("images pushed")
    cluster = Cluster(parts.plane.admin())
    cluster.wait_for(cluster.ready_nodes, 60, "a Ready node")
    progress.say("node Ready")
    _prove(cluster)
    progress.say("a pod ran")


def _prove(cluster: Cluster) -> None:
    """Run a pod: only that shows that images, network, scheduler and kubelet work together."""
    namespace = cluster.create_namespace(PROBE)
    try:
        cluster.create_pod(namespace, terminationGracePeriodSeconds=0)
        cluster.pod_running(namespace, timeout=120)
    except TimeoutError as error:
        raise SetupError(str(error)) from error
    finally:
        cluster.delete_namespace(namespace)


def _kill_containers(cache: Cache, progress: Progress) -> None:
    parts = Parts.of(cache, located(cache, KUBERNETES_NAMES))
    socket = parts.node.socket
    if not traces.shims(socket):
        return
    # the containers survive a containerd that died, and only it can end them cleanly
    parts.node.containerd().ensure()
    listed = subprocess.run(
        parts.node.ctr("tasks", "list", "--quiet"), capture_output=True, text=True, check=True
    )
    for task in listed.stdout.split():
        subprocess.run(
            parts.node.ctr("tasks", "delete", "--force", task), capture_output=True, check=False
        )
    if not wait_until(lambda: not traces.shims(socket), 10):
        raise SetupError(f"containers do not die: their shims are {traces.shims(socket)}")
    progress.say("containers killed")


def _processes(cache: Cache) -> list[Process]:
    """In the order in which they start."""
    return [Process(name, cache.run) for name in PROCESSES]


def _is_healthy(cache: Cache, parts: Parts) -> bool:
    if not (cache.kubeconfig.exists() and traces.is_network_prepared()):
        return False
    if not all(daemon.is_current() for daemon in parts.daemons()):
        return False
    with suppress(ClusterError):
        return bool(Cluster(cache.kubeconfig).ready_nodes())
    return False


def _usage(cache: Cache) -> str:
    return f"export KUBECONFIG={cache.kubeconfig}"


def _require_root() -> None:
    if sys.platform != "linux":
        raise SetupError("the node needs Linux; set TALON_TEST_KUBECONFIG to another cluster")
    if os.geteuid() != 0:
        raise SetupError(
            "the node needs root (the API alone does not: `python -m tests.cluster api`)"
        )
