"""Tells the server that events are done, and makes sure that it knows."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import Header

from falco_talon.bus.buckets import ANSWER_SECONDS, reason
from falco_talon.bus.duplicates import Duplicates
from falco_talon.bus.group import GroupCommit
from falco_talon.bus.stream import STREAM
from falco_talon.errors import BusError

log = structlog.get_logger()

_ACK = b"+ACK"
_RETRY_SECONDS = 0.2


class Held(Protocol):
    """An event in hand. Its message is another one after another delivery."""

    message: Msg
    unknown: bool
    """The server leaves its acknowledgement without answer: it must hand it over once more."""


class Acknowledgements:
    """Takes events out of the stream for good.

    An acknowledgement that is only sent can be lost with the process, and the event would be
    acted on twice. The server answers in order, so for many of them one answer is enough.
    """

    def __init__(self, client: Client, tasks: asyncio.TaskGroup, duplicates: Duplicates) -> None:
        self._client = client
        self._jetstream = JetStreamContext(client)
        self._duplicates = duplicates
        self._group: GroupCommit[Held] = GroupCommit(tasks, self._write, name="acknowledgements")

    async def __call__(self, held: Held) -> None:
        """Return when the event has left the stream, however long the bus is away."""
        await self._group(held)

    def close(self) -> None:
        """Acknowledge no more."""
        self._group.close()

    async def _write(self, group: Sequence[Held]) -> None:
        left = list(group)
        while left:
            try:
                await self._duplicates.keep(_ids(left))
                for held in left[:-1]:
                    await self._client.publish(held.message.reply, _ACK)
                await self._client.request(left[-1].message.reply, _ACK, timeout=ANSWER_SECONDS)
            except (BusError, nats.errors.Error, TimeoutError, OSError) as error:
                log.debug("nats", error=f"acknowledging again: {reason(error)}")
                await asyncio.sleep(_RETRY_SECONDS)
                left = await self._still_there(left)
                for held in left:
                    held.unknown = True
            else:
                return

    async def _still_there(self, group: Sequence[Held]) -> list[Held]:
        """Leave out what the server did acknowledge, though its answer never came."""
        try:
            return [held for held in group if await self.pending(held)]
        except BusError:
            return list(group)

    async def pending(self, held: Held) -> bool:
        """Tell whether the event is in the stream, not acknowledged by anybody.

        :raises BusError: if that cannot be known now.
        """
        try:
            await self._jetstream.get_msg(STREAM, held.message.metadata.sequence.stream)
        except nats.js.errors.NotFoundError:
            return False
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError) as error:
            raise BusError(f"the stream cannot be read: {reason(error)}") from None
        return True


def _ids(group: Sequence[Held]) -> list[tuple[str, datetime]]:
    """Return the message ids, and when each was stored."""
    ids = []
    for held in group:
        message = held.message
        if name := (message.headers or {}).get(Header.MSG_ID):
            ids.append((name, message.metadata.timestamp))
    return ids
