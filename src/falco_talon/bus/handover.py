"""Gives the events that wait in our stream to another replica, when this one stops."""

import asyncio
import time

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg

from falco_talon.bus.buckets import reason
from falco_talon.bus.heritage import accepted_at, bequeath
from falco_talon.bus.journal import Journal
from falco_talon.bus.link import Link
from falco_talon.bus.stream import STREAM, identity
from falco_talon.errors import BusError

log = structlog.get_logger()

_BATCH = 100
_ANSWER_SECONDS = 5.0
_FAULTS = (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError)


class HandOver:
    """Publishes our waiting events to the leader's stream, then deletes each from ours.

    An event goes with its headers. What was begun goes with its journal, so that the other goes on
    after the last action that is done.
    """

    def __init__(
        self, client: Client, link: Link, journal: Journal, *, window_seconds: float
    ) -> None:
        self._jetstream = JetStreamContext(client)
        self._link = link
        self._journal = journal
        self._window_seconds = window_seconds

    async def waiting(self) -> int:
        """Return how many events wait.

        :raises BusError: if our server does not answer.
        """
        try:
            info = await self._jetstream.stream_info(STREAM)
        except _FAULTS as error:
            raise BusError(f"the stream cannot be read: {reason(error)}") from None
        self._stream = identity(info)
        return info.state.messages

    async def run(self) -> int:
        """Hand events over, in their order, until none is left or one is not taken.

        :returns: how many the other has now.
        :raises BusError: if our server does not answer. What was not deleted is still ours.
        """
        number, sequence = 0, 1
        while batch := await self._batch(sequence):
            async with asyncio.TaskGroup() as tasks:
                given = [tasks.create_task(self._give(message)) for message in batch]
            taken = sum(task.result() for task in given)
            number += taken
            if taken < len(batch):
                break
            sequence = int(batch[-1].seq or 0) + 1
        return number

    async def _batch(self, sequence: int) -> list[RawStreamMsg]:
        """Return the next events, from *sequence* on."""
        batch: list[RawStreamMsg] = []
        try:
            while len(batch) < _BATCH:
                message = await self._jetstream.get_msg(
                    STREAM, sequence, subject=f"{STREAM}.*", next=True
                )
                batch.append(message)
                sequence = int(message.seq or 0) + 1
        except nats.js.errors.NotFoundError:
            pass  # that was the last
        except _FAULTS as error:
            raise BusError(f"the stream cannot be read: {reason(error)}") from None
        return batch

    async def _give(self, message: RawStreamMsg) -> bool:
        """Hand one event over; false if it stays here."""
        key = f"{self._stream}-{message.seq}"
        headers = await self._headers(message, key)
        stored = await self._link.publish(
            message.subject or "", message.data or b"", headers, seconds=_ANSWER_SECONDS
        )
        if stored is None:
            return False
        try:
            await self._jetstream.delete_msg(STREAM, int(message.seq or 0))
        except _FAULTS as error:
            # It may be acted on twice, when we are back.
            log.warning("nats", error=f"an event handed over stays here: {reason(error)}")
        self._journal.forget(key)
        return True

    async def _headers(self, message: RawStreamMsg, key: str) -> dict[str, str]:
        headers = message.headers or {}
        stored_at = message.time.timestamp() if message.time else time.time()
        entry = await self._journal.entry(key, redelivered=False)
        given = bequeath(headers, stored_at, entry)
        age = time.time() - accepted_at(headers, stored_at)
        if Header.MSG_ID not in headers or age > self._window_seconds:
            # An equal event that came after the window is another one, and may wait here, too.
            given[Header.MSG_ID] = key
        return given
