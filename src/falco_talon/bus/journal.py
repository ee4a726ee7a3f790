"""What is being worked on and how far: kept so that an interrupted event goes on where it was."""

import asyncio
import secrets
from collections.abc import Sequence

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from falco_talon.bus.buckets import ANSWER_SECONDS, entries, open_bucket, reason
from falco_talon.bus.group import GroupCommit
from falco_talon.errors import BusError

log = structlog.get_logger()

_BUCKET = "TALON_JOURNAL"
_TTL_SECONDS = 7 * 24 * 3600.0
_RETRY_SECONDS = 0.2
_LOG_EVERY_SECONDS = 60.0
_REREAD_SECONDS = 0.5


class Entry(msgspec.Struct, omit_defaults=True):
    """One event: runs begun, the last error, and the statuses of its actions that are done."""

    attempts: int = 0
    error: str = ""
    statuses: dict[str, str] = msgspec.field(default_factory=dict)


class Journal:
    """The entries of the events under way, by stream (its creation time) and sequence.

    The entries of one daemon are one value of the bucket: there are no more of them than events
    under way, all that changes while a write is on its way goes with the next, and what has been
    acknowledged vanishes with the write after. With a key an entry, each would have to be deleted,
    which costs the server more than the write.

    An entry is never found by the hash of an event: a legitimate repeat must act again.
    """

    def __init__(
        self, client: Client, tasks: asyncio.TaskGroup, *, shared: bool = False, replicas: int = 1
    ) -> None:
        self._jetstream = JetStreamContext(client, timeout=ANSWER_SECONDS)
        self._shared = shared
        self._replicas = replicas
        self._name = secrets.token_hex(8)
        self._mine: dict[str, Entry] = {}
        self._others: dict[str, Entry] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._logged_at = float("-inf")
        self._group: GroupCommit[None] = GroupCommit(tasks, self._write, name="journal")

    async def open(self) -> None:
        """Read what earlier runs left.

        If the bucket is not *shared*, nobody else is at work: what they left becomes ours.

        :raises BusError: if the bucket cannot be had.
        """
        self._bucket = await open_bucket(
            self._jetstream,
            _BUCKET,
            "events under way: runs begun, actions done",
            ttl_seconds=_TTL_SECONDS,
            replicas=self._replicas,
        )
        names = await self._read()
        if not self._shared and names:
            self._mine, self._others = self._others, {}
            await self._put()
            for name in names:
                await self._bucket.purge(name)

    def close(self) -> None:
        """Write no more."""
        self._group.close()

    async def entry(self, key: str, *, redelivered: bool) -> Entry:
        """Return what is known of the event: nothing, as a rule.

        *redelivered* says that somebody else may have worked on it.
        """
        if self._shared and redelivered:
            await self._reread()
        known = [found for found in (self._mine.get(key), self._others.pop(key, None)) if found]
        return max(known, key=_progress, default=None) or Entry()

    async def save(self, key: str, entry: Entry) -> None:
        """Return when the entry is safe; waits for as long as the bus is away."""
        self._mine[key] = entry
        await self._group(None)

    def forget(self, key: str) -> None:
        """The event left the stream."""
        self._mine.pop(key, None)

    async def _reread(self) -> None:
        """Look what others wrote, once for the many events of a daemon that died."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if now - self._read_at >= _REREAD_SECONDS:
                self._others.clear()
                await self._read()
                self._read_at = now

    async def _read(self) -> list[str]:
        names = []
        async for found in entries(self._bucket):
            if found.key == self._name:
                continue
            names.append(found.key)
            for key, entry in _decode(found).items():
                known = self._others.get(key)
                if known is None or _progress(entry) > _progress(known):
                    self._others[key] = entry
        return names

    async def _write(self, _: Sequence[None]) -> None:
        while True:
            try:
                await self._put()
            except BusError as error:
                now = asyncio.get_running_loop().time()
                if now - self._logged_at >= _LOG_EVERY_SECONDS:
                    self._logged_at = now
                    log.warning("nats", error=f"actions wait: {error}")
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _put(self) -> None:
        try:
            await self._bucket.put(self._name, msgspec.json.encode(self._mine))
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError) as error:
            raise BusError(f"the journal cannot be written: {reason(error)}") from None


def _progress(entry: Entry) -> tuple[int, int]:
    return entry.attempts, len(entry.statuses)


def _decode(found: KeyValue.Entry) -> dict[str, Entry]:
    try:
        return msgspec.json.decode(found.value or b"{}", type=dict[str, Entry])
    except msgspec.MsgspecError as error:
        log.warning("nats", error=f"a journal of an earlier run is unreadable: {error}")
        return {}
