"""The stream of accepted events: a work queue on disk, with one message for equal outputs."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    Header,
    PubAck,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from falco_talon.bus.buckets import ensure, reason
from falco_talon.bus.duplicates import Duplicates
from falco_talon.bus.link import Link
from falco_talon.errors import BusUnavailableError
from falco_talon.event import Event

STREAM = "EVENTS"
_CLOSED = "EVENTS_CLOSED"
_PUBLISH_TIMEOUT_SECONDS = 5.0
_TRY_SECONDS = 2.0
_RETRY_SECONDS = 0.1


class Stream:
    """Where events wait for their turn, from the answer 200 until they have been worked on."""

    def __init__(
        self,
        client: Client,
        key: Literal["output", "event"],
        duplicates: Duplicates,
        *,
        window_seconds: float,
        max_bytes: int,
        replicas: int = 1,
        fault: Callable[[], str] = lambda: "",
        leader: Link | None = None,
    ) -> None:
        self._client = client
        self._by_event = key == "event"
        self._jetstream = JetStreamContext(client)
        self._window_seconds = window_seconds
        self._max_bytes = max_bytes
        self._replicas = replicas
        self._duplicates = duplicates
        self._fault = fault
        self._leader = leader

    @property
    def connected(self) -> bool:
        """Whether the server can be reached at this moment."""
        return self._client.is_connected

    async def open(self) -> None:
        """Create the stream, or bring the one that is there into the configured shape.

        :raises BusError: if the server refuses that, or the stream cannot be changed so.
        """
        await ensure(self._jetstream, self._shape(f"{STREAM}.*"))

    async def close(self) -> None:
        """Take no more events, from us or from others; those that are there stay.

        :raises BusError: if the server refuses that.
        """
        await ensure(self._jetstream, self._shape(_CLOSED))

    def _shape(self, subject: str) -> StreamConfig:
        return StreamConfig(
            name=STREAM,
            description="Falco events, accepted and not yet worked on",
            subjects=[subject],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self._max_bytes,
            max_age=0,
            # The server takes 0 for its own default of two minutes; without an id in the
            # messages nothing is deduplicated, so any window will do.
            duplicate_window=self._window_seconds or 1,
            num_replicas=self._replicas,
        )

    async def publish(self, event: Event, headers: Mapping[str, str]) -> bool:
        """Store the event, unless an equal one was stored within the window.

        If there is a leader, its stream knows the events of all; our own takes what that does not.

        :returns: whether it was stored (and not a known duplicate).
        :raises BusUnavailableError: if the server did not confirm that it has it.
        """
        key = event.event_hash if self._by_event else event.output_hash
        if self._duplicates.known(key):
            return False
        headers = dict(headers)
        if self._window_seconds:
            headers[Header.MSG_ID] = key
        begin = asyncio.get_running_loop().time()
        subject, data = f"{STREAM}.{key}", event.to_json()
        stored = await self._leader.publish(subject, data, headers) if self._leader else None
        if stored is None:
            stored = await self._store(subject, data, headers)
        if stored.duplicate:  # of an event that another daemon published, as a rule
            return False
        self._duplicates.stored(key, begin)
        return True

    async def _store(self, subject: str, data: bytes, headers: dict[str, str]) -> PubAck:
        """Store it in our own stream.

        :raises BusUnavailableError: if the server did not confirm that it has it.
        """
        if fault := self._fault():  # known: no need to wait for the server to say nothing
            raise BusUnavailableError(f"the event could not be stored: {fault}")
        try:
            return await self._publish(subject, data, headers)
        except (nats.js.errors.APIError, nats.errors.Error, TimeoutError, OSError) as error:
            raise BusUnavailableError(f"the event could not be stored: {reason(error)}") from None

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> PubAck:
        """Publish, again while nobody is there to take it: the servers elect a leader then.

        A publish that is not answered may have been stored: with an id it can be repeated.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PUBLISH_TIMEOUT_SECONDS
        while True:
            left = deadline - clock()
            seconds = min(left, _TRY_SECONDS) if Header.MSG_ID in headers else left
            try:
                return await self._jetstream.publish(
                    subject, data, headers=headers, timeout=seconds
                )
            except (nats.js.errors.NoStreamResponseError, TimeoutError):
                if clock() + _RETRY_SECONDS >= deadline:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)


def identity(info: StreamInfo) -> str:
    """Return what tells this stream from any other; with a sequence, it names one event."""
    return f"{info.created:%Y%m%dT%H%M%S.%f}" if info.created else "unknown"
