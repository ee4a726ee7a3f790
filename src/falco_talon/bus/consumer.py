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

from falco_talon.bus.buckets import reason, settled
from falco_talon.bus.delivery import Bookkeeping, Delivery
from falco_talon.bus.progress import Progress
from falco_talon.bus.stream import STREAM, identity
from falco_talon.errors import BusError, InvalidEventError
from falco_talon.event import Event

log = structlog.get_logger()

CONSUMER: Final = "talon"
_ACK_WAIT_SECONDS = 5.0
_HEARTBEAT_SECONDS = 1.5
_PULL_EXPIRES_SECONDS = 30.0
_SILENCE_SECONDS = 4.0
_NANOSECONDS = 1_000_000_000

Handler = Callable[[Event, Mapping[str, str], Progress], Awaitable[bool]]
"""Works on an event and its headers; false means: not begun, to be handed over again."""


class Consumer:
    """Takes events from the stream, in order, up to *max_in_flight* at once.

    An event stays in the stream until its handler is done: a handler that returns acknowledges
    it, one that is cut short (shutdown, crash, lost bus) leaves it for another delivery.

    If the stream is not *shared* with other daemons, the durable consumer is made anew whenever
    the server may have forgotten what it had handed over: everything comes again, at once and in
    order, and what is in hand already is passed over.
    """

    def __init__(
        self,
        client: Client,
        tasks: asyncio.TaskGroup,
        handle: Handler,
        books: Bookkeeping,
        *,
        max_in_flight: int,
        shared: bool = False,
    ) -> None:
        self._client = client
        self._jetstream = JetStreamContext(client)
        self._tasks = tasks
        self._handle = handle
        self._books = books
        self._max_in_flight = max_in_flight
        self._shared = shared
        self._in_flight: dict[int, Delivery] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._requested = 0
        self._last_sign_of_life = 0.0
        self._reconnects = 0
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
        try:
            info = await settled(lambda: self._jetstream.stream_info(STREAM))
            self._stream = identity(info)
            await settled(self._set_up)
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError) as error:
            raise BusError(f"the consumer {CONSUMER} cannot be set up: {reason(error)}") from None
        self._reconnects = self._client.stats["reconnects"]
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)
        self._heart = self._tasks.create_task(self._beat(), name="consumer")

    async def _set_up(self) -> None:
        if not self._shared:
            # A new consumer hands over at once what an earlier run left unfinished; the old one
            # would wait for the time limit of each. What was acknowledged left the stream.
            with suppress(nats.js.errors.NotFoundError):
                await self._jetstream.delete_consumer(STREAM, CONSUMER)
        await self._jetstream.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=CONSUMER,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=_ACK_WAIT_SECONDS,
                max_deliver=-1,
                max_ack_pending=-1 if self._shared else self._max_in_flight,
            ),
        )

    async def stop(self, grace_seconds: float) -> None:
        """Take no more events; give those being worked on *grace_seconds* to end.

        What is not done by then is cut short and stays in the stream.
        """
        heart, subscription = self._heart, self._subscription
        self._heart = self._subscription = None
        if heart is None or subscription is None:
            return
        if self._client.is_connected:
            await subscription.unsubscribe()
        if self._workers:
            log.info("nats", result=f"waiting for {len(self._workers)} event(s) under way")
            await asyncio.wait(list(self._workers), timeout=grace_seconds)
        heart.cancel()
        cut_short = list(self._workers)
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
            self._take(message)
        elif status != "100":  # 100 is a heartbeat; any other ends the request
            pending = headers.get("Nats-Pending-Messages")
            self._requested -= int(pending) if pending else self._requested
        await self._refill()

    def _take(self, message: Msg) -> None:
        sequence = message.metadata.sequence.stream
        if delivery := self._in_flight.get(sequence):
            delivery.message = message  # the server lost sight of it; we did not
            delivery.unknown = False
            return
        delivery = Delivery(self._books, message, f"{self._stream}-{sequence}")
        self._in_flight[sequence] = delivery
        task = self._tasks.create_task(self._work(delivery))
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)
        task.add_done_callback(lambda _: self._in_flight.pop(sequence))

    async def _refill(self, leaving: int = 0) -> None:
        """Ask for as many events as may still be taken, when half of them came.

        With both hands full, ask for those in them that the server forgot to have handed over.
        """
        free = self._max_in_flight - len(self._workers) + leaving
        if free <= 0:
            free = sum(delivery.unknown for delivery in self._in_flight.values())
        if self._requested > free // 2 or free <= 0 or not self._client.is_connected:
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
        self._last_sign_of_life = clock()
        while True:
            try:
                for delivery in list(self._in_flight.values()):
                    if not delivery.ended:
                        await self._client.publish(delivery.message.reply, Msg.Ack.Progress)
                await self._look_after_the_request(clock())
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
                # Not connected: what we hold goes on regardless.
                log.debug("nats", error=reason(error))
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _look_after_the_request(self, now: float) -> None:
        reconnects = self._client.stats["reconnects"]
        if reconnects != self._reconnects and self._client.is_connected:
            await self._set_up()
            self._reconnects = reconnects
            self._last_sign_of_life = float("-inf")
        if now - self._last_sign_of_life > _SILENCE_SECONDS:
            self._requested = 0
            self._last_sign_of_life = now
        await self._refill()

    async def _work(self, delivery: Delivery) -> None:
        try:
            await self._process(delivery)
        except (BusError, nats.errors.Error) as error:
            log.warning("nats", error=f"an event will be delivered again: {error}")
        try:
            await self._refill(leaving=1)
        except nats.errors.Error as error:  # the next heartbeat asks again
            log.debug("nats", error=str(error))

    async def _process(self, delivery: Delivery) -> None:
        message = delivery.message
        # Events of one target keep their order because nothing is waited for on the way to the
        # handler, unless another daemon may have worked on this one.
        await delivery.recall()
        try:
            delivery.event = Event.from_message(message.data)
        except InvalidEventError as error:
            await delivery.bury("invalid", str(error))
            return
        try:
            done = await self._handle(delivery.event, message.headers or {}, delivery)
        except Exception as error:
            rule, trace_id = delivery.event.rule, delivery.event.trace_id
            log.exception("event", event=rule, trace_id=trace_id, error=repr(error))
            await self._interrupted(delivery, error)
        else:
            if not done:
                await delivery.message.nak()
            elif not delivery.ended:
                await delivery.end()

    @staticmethod
    async def _interrupted(delivery: Delivery, error: Exception) -> None:
        await delivery.failed(repr(error))
        if delivery.exhausted:
            await delivery.bury("interrupted", repr(error))
        else:
            await delivery.message.nak(delay=float(delivery.attempt))
