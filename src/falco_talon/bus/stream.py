"""The stream of accepted events: a work queue on disk, with one message for equal outputs."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, Header, RetentionPolicy, StorageType, StreamConfig

from falco_talon.bus.server import Address
from falco_talon.errors import BusError, BusUnavailableError
from falco_talon.event import Event

log = structlog.get_logger()

STREAM = "EVENTS"
_CONNECT_TIMEOUT_SECONDS = 5.0
_PUBLISH_TIMEOUT_SECONDS = 5.0


@asynccontextmanager
async def connect(address: Address) -> AsyncIterator[Client]:
    """Connect to the server at *address*, for ever: a lost connection is made anew.

    :raises BusError: if the first connection cannot be made.
    """
    client = Client()

    async def on_error(error: Exception) -> None:
        log.debug("nats", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats", result="the connection to nats-server is lost, making it anew")

    async def on_reconnect() -> None:
        log.info("nats", result="connected to nats-server again")

    try:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
                await client.connect(
                    address.url,
                    name="falco-talon",
                    user=address.user,
                    password=address.password,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type] # it sleeps that long
                    ping_interval=10,
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=on_reconnect,
                )
        except (OSError, nats.errors.Error, TimeoutError) as error:
            why = str(error) or f"no answer within {_CONNECT_TIMEOUT_SECONDS:g} s"
            raise BusError(f"no connection to nats-server at {address.url}: {why}") from None
        yield client
    finally:
        await client.close()


class Stream:
    """Where events wait for their turn, from the answer 200 until they have been worked on."""

    def __init__(
        self,
        client: Client,
        key: Literal["output", "event"],
        *,
        window_seconds: float,
        max_bytes: int,
    ) -> None:
        self._client = client
        self._by_event = key == "event"
        self._jetstream = JetStreamContext(client, timeout=_PUBLISH_TIMEOUT_SECONDS)
        self._window_seconds = window_seconds
        self._max_bytes = max_bytes

    @property
    def connected(self) -> bool:
        """Whether the server can be reached at this moment."""
        return self._client.is_connected

    async def open(self) -> None:
        """Create the stream, or bring the one that is there into the configured shape.

        :raises BusError: if the server refuses that, or the stream cannot be changed so.
        """
        wanted = StreamConfig(
            name=STREAM,
            description="Falco events, accepted and not yet worked on",
            subjects=[f"{STREAM}.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self._max_bytes,
            max_age=0,
            # The server takes 0 for its own default of two minutes; without an id in the
            # messages nothing is deduplicated, so any window will do.
            duplicate_window=self._window_seconds or 1,
        )
        try:
            try:
                await self._jetstream.stream_info(STREAM)
            except nats.js.errors.NotFoundError:
                await self._jetstream.add_stream(wanted)
            else:
                await self._jetstream.update_stream(wanted)
        except (nats.js.errors.APIError, nats.errors.Error, TimeoutError) as error:
            raise BusError(f"the stream {STREAM} cannot be set up: {_reason(error)}") from None

    async def publish(self, event: Event, headers: Mapping[str, str]) -> bool:
        """Store the event, unless an equal one was stored within the window.

        :returns: whether it was stored (and not a known duplicate).
        :raises BusUnavailableError: if the server did not confirm that it has it.
        """
        key = event.event_hash if self._by_event else event.output_hash
        headers = dict(headers)
        if self._window_seconds:
            headers[Header.MSG_ID] = key
        try:
            stored = await self._jetstream.publish(
                f"{STREAM}.{key}", event.to_json(), headers=headers
            )
        except (nats.js.errors.APIError, nats.errors.Error, TimeoutError, OSError) as error:
            raise BusUnavailableError(f"the event could not be stored: {_reason(error)}") from None
        return not stored.duplicate


def _reason(error: Exception) -> str:
    return str(getattr(error, "description", None) or "") or str(error) or type(error).__name__
