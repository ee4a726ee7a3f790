"""One daemon at a time on one target, when several share a stream."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from falco_talon.bus.buckets import open_bucket, reason
from falco_talon.errors import BusError

log = structlog.get_logger()

_BUCKET = "TALON_LOCKS"
_TTL_SECONDS = 10.0
_RENEW_SECONDS = 2.5
_GIVE_UP_SECONDS = 8.0
_POLL_SECONDS = 0.1

_FAULTS = (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError)


class Locks:
    """A key-value entry for each target that is worked on; it ends by itself with its daemon."""

    def __init__(self, client: Client, *, replicas: int) -> None:
        self._jetstream = JetStreamContext(client)
        self._replicas = replicas

    async def open(self) -> None:
        """Set the bucket up.

        :raises BusError: if it cannot be had.
        """
        self._bucket = await open_bucket(
            self._jetstream,
            _BUCKET,
            "targets that a daemon works on",
            ttl_seconds=_TTL_SECONDS,
            replicas=self._replicas,
        )

    @asynccontextmanager
    async def __call__(self, target: tuple[str, str]) -> AsyncIterator[None]:
        """Hold the target for the body, which is cancelled if the target is lost to another.

        :raises BusError: (in an ``ExceptionGroup``) if it was lost.
        """
        # A target's name comes from an event and is no key; its hash is.
        key = hashlib.sha256("\0".join(target).encode()).hexdigest()
        revision = await self._take(key)
        held = [revision]
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._renew(key, held))
            try:
                yield
            finally:
                renewing.cancel()
        with suppress(*_FAULTS):  # then it ends by its time
            await self._bucket.delete(key, last=held[0])

    async def _take(self, key: str) -> int:
        while True:
            try:
                return await self._bucket.create(key, b"")
            except nats.js.errors.KeyWrongLastSequenceError:
                pass  # another daemon has it
            except _FAULTS as error:
                log.debug("nats", error=f"a target cannot be locked yet: {reason(error)}")
            await asyncio.sleep(_POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def _renew(self, key: str, held: list[int]) -> None:
        clock = asyncio.get_running_loop().time
        renewed = clock()
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            begin = clock()
            try:
                held[0] = await self._bucket.update(key, b"", last=held[0])
            except nats.js.errors.KeyWrongLastSequenceError:
                raise BusError("another daemon took the target over") from None
            except _FAULTS as error:
                if clock() - renewed > _GIVE_UP_SECONDS:
                    raise BusError(f"the lock of the target ran out: {reason(error)}") from None
            else:
                renewed = begin
