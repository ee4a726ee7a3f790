"""Which replica's stream takes the events of all: elected by a Lease of the Kubernetes API."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from falco_talon.clients.kubernetes import Conflict, Kubernetes, NotFound, Object, path
from falco_talon.errors import PluginError
from falco_talon.plugin import PolicyRule

log = structlog.get_logger()

LEASE: Final = "falco-talon"
PERMISSIONS: Final = (
    PolicyRule(("leases",), ("get", "create", "update"), ("coordination.k8s.io",)),
)
"""What each replica must be allowed, in the namespace of the lease only."""

_Write = Callable[[str, Object], Awaitable[Object]]

_API = "coordination.k8s.io/v1"
_LABELS = {"app.kubernetes.io/name": LEASE, "app.kubernetes.io/part-of": LEASE}
_LEASE_SECONDS = 4
_RENEW_SECONDS = 3.0
_RETRY_SECONDS = 2.0
_PRESSED_SECONDS = 0.5
_LONGEST_LEASE_SECONDS = 60
_LOG_EVERY_SECONDS = 60.0


class Election:
    """Competes for the lease for as long as :meth:`run` runs, whatever the API server does.

    A holder renews it every 2 s and gives itself up 3 s after the last time; the others take a
    lease that has not changed for its 4 s. All of that is measured by our own monotonic clock: the
    times in the lease are for people. Whoever cannot reach the API keeps to the leader that it
    knew: as long as that one's stream can be reached, equal events are found.

    *identity* is ``name_host:port``: who we are, and where the others reach us, in one field, so
    that no one ever sees the one without the other.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        namespace: str,
        identity: str,
        follow: Callable[[str], None],
    ) -> None:
        self.leading = False
        self.leader = ""
        """The identity of the last leader that was seen."""
        self._kubernetes = kubernetes
        self._leases = path("leases", namespace=namespace, api=_API)
        self._path = path("leases", LEASE, namespace=namespace, api=_API)
        self._me = identity
        self._follow = follow
        self._lease: Object | None = None
        """As it was when we wrote it; none if somebody else may have written it since."""
        self._renewed_at = float("-inf")
        self._seen: tuple[object, ...] = ()
        self._seen_at = float("-inf")
        self._said: tuple[str, float] = ("", float("-inf"))

    async def run(self) -> None:
        """Compete, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._patience()):
                    await self._compete()
            except (PluginError, TimeoutError) as error:
                self._lease = None
                self._complain(str(error) or "the Kubernetes API did not answer in time")
                if not self._still_leading():
                    self._lead(False)
            # A leader with a deadline before it tries more often.
            pressed = self.leading and self._lease is None
            await asyncio.sleep(_PRESSED_SECONDS if pressed else _RETRY_SECONDS)

    async def release(self) -> None:
        """Give the lease up, so that another replica takes it at its next look; end run() before.

        If that fails, the lease runs out by itself.
        """
        if not self.leading:
            return
        self.leading = False
        try:
            async with asyncio.timeout(_RETRY_SECONDS):
                try:
                    await self._give_up()
                except Conflict:  # with a renewal of ours that was on its way
                    await self._give_up()
        except (PluginError, TimeoutError) as error:
            log.warning("lease", error=f"the lease is not released, it will run out: {error}")

    async def _give_up(self) -> None:
        lease = await self._kubernetes.get(self._path)
        if _holder(lease) == self._me:
            await self._kubernetes.put(self._path, self._changed(lease, holder=""))
            log.info("lease", result="the lease is released")

    async def heir(self) -> str:
        """Return where the leader is reached that is not us; empty if none is known now."""
        try:
            async with asyncio.timeout(_RETRY_SECONDS):
                holder = _holder(await self._kubernetes.get(self._path))
        except (PluginError, TimeoutError):
            return ""
        return "" if holder == self._me else _where(holder)

    def _still_leading(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self.leading and now - self._renewed_at < _RENEW_SECONDS

    def _patience(self) -> float:
        """Return how long the next attempt may last, in seconds: as a leader, to the deadline."""
        if not self.leading:
            return _RETRY_SECONDS
        left = self._renewed_at + _RENEW_SECONDS - asyncio.get_running_loop().time()
        return min(max(left, 0.0), _RETRY_SECONDS)

    async def _compete(self) -> None:
        """Take or renew the lease, or see who has it."""
        begin = asyncio.get_running_loop().time()
        try:
            lease = self._lease or await self._kubernetes.get(self._path)
        except NotFound:
            body = {"metadata": {"name": LEASE, "labels": _LABELS}}
            await self._hold(begin, self._kubernetes.post, self._leases, self._changed(body))
            return
        self._observe(lease)
        holder = _holder(lease)
        if holder not in {"", self._me} and not self._ran_out(lease):
            self._lead(False)
            self._see(holder)
            return
        await self._hold(begin, self._kubernetes.put, self._path, self._changed(lease))

    async def _hold(self, begin: float, write: _Write, where: str, lease: Object) -> None:
        try:
            self._lease = await write(where, lease)
        except Conflict:  # somebody was faster: see who, at the next look
            self._lease = None
            return
        self._renewed_at = begin
        self._said = ("", float("-inf"))
        self._lead(True)
        self._see(self._me)

    def _observe(self, lease: Object) -> None:
        """Remember since when the lease has been as it is."""
        spec = lease.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, asyncio.get_running_loop().time()

    def _ran_out(self, lease: Object) -> bool:
        duration = (lease.get("spec") or {}).get("leaseDurationSeconds") or _LEASE_SECONDS
        age = asyncio.get_running_loop().time() - self._seen_at
        return bool(age > min(duration, _LONGEST_LEASE_SECONDS))

    def _changed(self, lease: Object, holder: str | None = None) -> Object:
        """Return the lease as ours, or as *holder*'s; the rest of it stays."""
        holder = self._me if holder is None else holder
        spec = dict(lease.get("spec") or {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if holder and holder != spec.get("holderIdentity"):
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        spec["holderIdentity"] = holder
        spec["renewTime"] = now
        spec["leaseDurationSeconds"] = _LEASE_SECONDS if holder else 1
        return {"apiVersion": _API, "kind": "Lease", "metadata": lease["metadata"], "spec": spec}

    def _lead(self, leading: bool) -> None:
        if leading and not self.leading:
            log.info("lease", result=f"'{self._me}' leads")
        elif self.leading and not leading:
            log.warning("lease", result=f"'{self._me}' leads no more")
        self.leading = leading

    def _see(self, holder: str) -> None:
        if holder != self.leader:
            self.leader = holder
            log.info("nats", result=f"new leader detected '{holder}'")
            self._follow("" if holder == self._me else _where(holder))

    def _complain(self, error: str) -> None:
        """Say what is wrong when it changes, and once a minute."""
        now = asyncio.get_running_loop().time()
        text, at = self._said
        if error != text or now - at >= _LOG_EVERY_SECONDS:
            self._said = (error, now)
            log.warning("lease", error=error)


def _holder(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _where(identity: str) -> str:
    """Return ``host:port`` of an identity."""
    return identity.rpartition("_")[2]
