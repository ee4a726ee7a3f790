"""The ids of the last window: a repeat needs no way to the bus, and a restart forgets none."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from falco_talon.bus.buckets import ANSWER_SECONDS, entries, open_bucket, reason
from falco_talon.errors import BusError

log = structlog.get_logger()

_BUCKET = "TALON_IDS"
_MAX_IDS = 200_000


class Duplicates:
    """Knows what was stored within the window.

    A work queue finds the ids of the messages it holds again when the server restarts, but not
    those of acknowledged ones: these are kept in a bucket. Beyond 200,000 ids the oldest are
    forgotten here; the server, which has its own list, still knows them.
    """

    def __init__(self, client: Client, *, window_seconds: float, replicas: int = 1) -> None:
        self._jetstream = JetStreamContext(client, timeout=ANSWER_SECONDS)
        self._window_seconds = window_seconds
        self._replicas = replicas
        self._expiry: OrderedDict[str, float] = OrderedDict()  # in order of time
        self._name = secrets.token_hex(8)
        self._number = 0

    async def open(self) -> None:
        """Read the ids that earlier runs left. Nothing is done if the window is 0.

        :raises BusError: if the bucket cannot be had.
        """
        if not self._window_seconds:
            return
        self._bucket = await open_bucket(
            self._jetstream,
            _BUCKET,
            "ids of the events acknowledged within the duplicate window",
            ttl_seconds=self._window_seconds,
            replicas=self._replicas,
        )
        found: dict[str, float] = {}
        async for entry in entries(self._bucket):
            try:
                found |= msgspec.json.decode(entry.value or b"{}", type=dict[str, float])
            except msgspec.MsgspecError as error:
                log.warning("nats", error=f"ids of an earlier run are unreadable: {error}")
        now, clock = time.time(), asyncio.get_running_loop().time()
        for name, stored_at in sorted(found.items(), key=lambda item: item[1]):
            # A stored time in the future is a clock that was set back: no longer than the window.
            self._add(name, clock - max(0.0, now - stored_at))

    def known(self, name: str) -> bool:
        """Tell whether the id was stored within the window."""
        expiry = self._expiry.get(name)
        return expiry is not None and expiry > asyncio.get_running_loop().time()

    def stored(self, name: str, at: float) -> None:
        """Remember the id; *at*, by the clock of the loop, is when it went to the bus."""
        if self._window_seconds:
            self._add(name, at)

    async def keep(self, names: Sequence[tuple[str, datetime]]) -> None:
        """Make ids, and when they were stored, safe: their events are about to be acknowledged.

        :raises BusError: if the server did not confirm it.
        """
        horizon = time.time() - self._window_seconds
        fresh = {name: at.timestamp() for name, at in names if at.timestamp() > horizon}
        if not fresh or not self._window_seconds:
            return
        self._number += 1
        try:
            await self._bucket.put(f"{self._name}.{self._number}", msgspec.json.encode(fresh))
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError) as error:
            raise BusError(f"ids cannot be stored: {reason(error)}") from None

    def _add(self, name: str, at: float) -> None:
        clock = asyncio.get_running_loop().time()
        self._expiry.pop(name, None)
        self._expiry[name] = at + self._window_seconds
        while len(self._expiry) > _MAX_IDS or next(iter(self._expiry.values()), clock + 1) <= clock:
            self._expiry.popitem(last=False)
