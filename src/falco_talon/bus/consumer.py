"""Hands the events of the stream to their handler, and acknowledges what has been worked on.

It speaks the pull protocol itself: the library's ``fetch`` of a batch waits for the batch to
fill, which would hold the first event back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from falco_talon.bus.stream import STREAM
from falco_talon.errors import BusError, InvalidEventError
from falco_talon.event import Event

log = structlog.get_logger()

CONSUMER: Final = "talon"
_MAX_ATTEMPTS = 5
_ACK_WAIT_SECONDS = 5.0
_HEARTBEAT_SECONDS = 1.5
_PULL_EXPIRES_SECONDS = 30.0
_SILENCE_SECONDS = 4.0
_NANOSECONDS = 1_000_000_000

Handler = Callable[[Event, Mapping[str, str]], Awaitable[bool]]
"""Works on an event and its headers; false means: not begun, to be handed over again."""


class Consumer:
    """Takes events from the stream, in order, up to *max_in_flight* at once.

    An event stays in the stream until its handler is done: a handler that returns acknowledges
    it, one that is cut short (shutdown, crash, lost bus) leaves it for another delivery.
    """

    def __init__(
        self, client: Client, tasks: asyncio.TaskGroup, handle: Handler, *, max_in_flight: int
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._handle = handle
        self._max_in_flight = max_in_flight
        self._in_flight: dict[asyncio.Task[None], Msg] = {}
        self._requested = 0
        self._last_sign_of_life = 0.0
        self._subscription: Subscription | None = None
        self._heart: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether events are being taken from the stream."""
        return self._heart is not None and not self._heart.done()

    async def start(self) -> None:
        """Begin to take events.

        :raises BusError: if the server refuses the consumer.
        """
        jetstream = JetStreamContext(self._client)
        try:
            # A new consumer hands over at once what an earlier run left unfinished; the old one
            # would wait for the time limit of each. What was acknowledged left the stream.
            with suppress(nats.js.errors.NotFoundError):
                await jetstream.delete_consumer(STREAM, CONSUMER)
            await jetstream.add_consumer(
                STREAM,
                ConsumerConfig(
                    durable_name=CONSUMER,
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=_ACK_WAIT_SECONDS,
                    max_deliver=-1,
                    max_ack_pending=self._max_in_flight,
                ),
            )
        except (nats.js.errors.APIError, nats.errors.Error, TimeoutError) as error:
            raise BusError(f"the consumer {CONSUMER} cannot be set up: {error}") from None
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)
        self._heart = self._tasks.create_task(self._beat(), name="consumer")

    async def stop(self, grace_seconds: float) -> None:
        """Take no more events; give those being worked on *grace_seconds* to end.

        What is not done by then is cut short and stays in the stream.
        """
        if self._heart is None or self._subscription is None:
            return
        if self._client.is_connected:
            await self._subscription.unsubscribe()
        if self._in_flight:
            log.info("nats", result=f"waiting for {len(self._in_flight)} event(s) under way")
            await asyncio.wait(list(self._in_flight), timeout=grace_seconds)
        self._heart.cancel()
        cut_short = list(self._in_flight)
        for task in cut_short:
            task.cancel()
        if cut_short:
            log.warning("nats", result=f"{len(cut_short)} event(s) cut short stay in the stream")
            await asyncio.wait(cut_short)

    async def _on_message(self, message: Msg) -> None:
        self._last_sign_of_life = asyncio.get_running_loop().time()
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None:
            self._requested -= 1
            task = self._tasks.create_task(self._work(message))
            self._in_flight[task] = message
            task.add_done_callback(self._in_flight.pop)
        elif status != "100":  # 100 is a heartbeat; any other ends the request
            pending = headers.get("Nats-Pending-Messages")
            self._requested -= int(pending) if pending else self._requested
        await self._refill()

    async def _refill(self, leaving: int = 0) -> None:
        """Ask for as many events as may still be taken, when half of them came."""
        free = self._max_in_flight - len(self._in_flight) + leaving
        if self._requested > free // 2 or free == 0 or not self._client.is_connected:
            return
        batch = free - self._requested
        self._requested += batch
        request = {
            "batch": batch,
            "expires": int(_PULL_EXPIRES_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}",
            msgspec.json.encode(request),
            reply=self._inbox,
        )

    async def _beat(self) -> None:
        """Tell the server what is still being worked on; ask anew when it forgot about us."""
        clock = asyncio.get_running_loop().time
        self._last_sign_of_life, reconnects = clock(), 0
        while True:
            try:
                for message in list(self._in_flight.values()):
                    await message.in_progress()
                silent = clock() - self._last_sign_of_life > _SILENCE_SECONDS
                if silent or reconnects != self._client.stats["reconnects"]:
                    self._requested = 0
                    self._last_sign_of_life = clock()
                    reconnects = self._client.stats["reconnects"]
                await self._refill()
            except nats.errors.Error as error:  # not connected: what we hold goes on regardless
                log.debug("nats", error=str(error))
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _work(self, message: Msg) -> None:
        await self._process(message)
        try:
            await self._refill(leaving=1)
        except nats.errors.Error as error:  # the next heartbeat asks again
            log.debug("nats", error=str(error))

    async def _process(self, message: Msg) -> None:
        attempt = message.metadata.num_delivered
        try:
            event = Event.from_message(message.data)
        except InvalidEventError as error:
            log.error("event", error=f"not an event, dropped from the stream: {error}")
            await self._settle(message.term)
            return
        try:
            done = await self._handle(event, message.headers or {})
        except Exception as error:
            log.exception("event", event=event.rule, trace_id=event.trace_id, error=repr(error))
            if attempt >= _MAX_ATTEMPTS:
                log.error(
                    "event",
                    event=event.rule,
                    output=event.output,
                    trace_id=event.trace_id,
                    error=f"given up after {attempt} attempts",
                )
                await self._settle(message.term)
            else:
                await self._settle(lambda: message.nak(delay=float(attempt)))
        else:
            await self._settle(message.ack if done else message.nak)

    @staticmethod
    async def _settle(answer: Callable[[], Awaitable[None]]) -> None:
        try:
            await answer()
        except nats.errors.Error as error:
            log.warning("nats", error=f"an event will be delivered again: {error}")
