"""Whether this daemon is one of several replicas, who it is among them, and how it leaves."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from falco_talon.bus import Bus, Peers
from falco_talon.clients import Clients
from falco_talon.clients.kubernetes import Kubernetes, path
from falco_talon.config import Config
from falco_talon.errors import PluginError, TalonError
from falco_talon.leader import Election

log = structlog.get_logger()

_DEFAULT_NAMESPACE = "falco"
_ROUTED = ("192.0.2.1", "2001:db8::1")
"""Addresses for documentation: on no network, so the way to them is the default one."""


@dataclass(frozen=True, slots=True)
class Replica:
    """Who we are: ``identity`` is ``name_host:port``, and *peers* get in with that secret."""

    kubernetes: Kubernetes
    namespace: str
    identity: str
    peers: Peers


async def find_replica(
    config: Config, clients: Clients, environ: Mapping[str, str] = os.environ
) -> Replica | None:
    """Return who we are among the replicas; none, with a line in the log, if there is no election.

    :raises TalonError: if the shared secret cannot be used.
    """
    wish = config.deduplication
    if not wish.leader_election:
        return None
    if config.nats.url:
        log.debug("lease", result="leader election is off: all replicas share an external NATS")
        return None
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    file = config.nats.shared_secret_file
    # Where nobody asked for it and there are no replicas, its absence is no news.
    wanted = in_cluster or file is not None or "leader_election" in wish.model_fields_set
    off = log.warning if wanted else log.debug
    if not in_cluster and not config.kubeconfig:
        off("lease", result="leader election is off: this is not a cluster")
        return None
    if file is None:
        off("lease", result="leader election is off: 'nats.shared_secret_file' is not set")
        return None
    peers = Peers.of(config, file)
    try:
        await clients.ready(["kubernetes"])
        kubernetes = clients.kubernetes
        namespace = environ.get("NAMESPACE") or kubernetes.own_namespace or _DEFAULT_NAMESPACE
        path("leases", namespace=namespace)
        where = _own_address(config, environ)
    except (TalonError, PluginError) as error:
        log.warning("lease", result=f"leader election is off: {error}")
        return None
    name = environ.get("POD_NAME") or socket.gethostname()
    return Replica(kubernetes, namespace, f"{name}_{where}", peers)


@asynccontextmanager
async def electing(replica: Replica, bus: Bus, tasks: asyncio.TaskGroup) -> AsyncIterator[None]:
    """Take part in the election. At the end, when the engine is done: leave, and hand over.

    The lease goes first, so that there is a leader to take what we leave behind.
    """
    election = Election(replica.kubernetes, replica.namespace, replica.identity, bus.follow)
    running = tasks.create_task(election.run(), name="election")
    try:
        yield
    finally:
        running.cancel()
        await election.release()
        await bus.hand_over(election.heir)


def _own_address(config: Config, environ: Mapping[str, str]) -> str:
    """Return where the others reach us: ``host:port``, of an IPv6 address ``[host]:port``.

    :raises TalonError: if nobody says it, and this machine has no address.
    """
    host = config.nats.peer_address or environ.get("POD_IP") or _routed(environ)
    if not host:
        raise TalonError("this machine has no address: set 'nats.peer_address'")
    with suppress(ValueError):
        if ipaddress.ip_address(host).version == 6:
            host = f"[{host}]"
    has_port = ":" in host.rpartition("]")[2]
    return host if has_port else f"{host}:{config.nats.peer_port}"


def _routed(environ: Mapping[str, str]) -> str:
    """Return our address on the way to the API server, else on the default way; nothing is sent."""
    for target in (environ.get("KUBERNETES_SERVICE_HOST", ""), *_ROUTED):
        with suppress(ValueError, OSError):
            family = (
                socket.AF_INET6 if ipaddress.ip_address(target).version == 6 else socket.AF_INET
            )
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
    return ""
