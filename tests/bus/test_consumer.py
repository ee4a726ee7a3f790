"""Handing over and acknowledging, on a real nats-server."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping

import pytest
from nats.aio.client import Client

from falco_talon.bus import EmbeddedServer, Progress, Stream
from falco_talon.event import Event
from tests.bus.fixtures import consuming


class Handler:
    """Remembers what it was handed; waits where a test says so."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.gate: dict[str, asyncio.Event] = {}
        self.answer = True
        self.fault: Exception | None = None
        self.beginning = False
        self.attempts: list[int] = []

    async def __call__(self, event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        if self.beginning:
            if not await progress.begin():
                return True
            await progress.save()
        self.attempts.append(progress.attempt)
        self.seen.append(event.output)
        self.headers.append(headers)
        if gate := self.gate.get(event.output):
            await gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.answer


async def until(probe: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not probe():
            await asyncio.sleep(0.01)


async def left(connection: Client) -> int:
    return (await connection.jetstream().stream_info("EVENTS")).state.messages


async def until_left(connection: Client, number: int) -> None:
    async with asyncio.timeout(10):
        while await left(connection) != number:
            await asyncio.sleep(0.02)


@pytest.fixture
def handler() -> Handler:
    """Handle by remembering."""
    return Handler()


async def test_every_event_once_in_order(
    connection: Client, stream: Stream, handler: Handler
) -> None:
    """Events come in the order of the stream, those stored before the start first."""
    for number in range(5):
        await stream.publish(Event(output=str(number)), {"traceparent": "x"})
    async with consuming(connection, handler, max_in_flight=100) as consumer:
        for number in range(5, 500):
            await stream.publish(Event(output=str(number)), {})
        await until(lambda: len(handler.seen) == 500)
        await until_left(connection, 0)

    assert handler.seen == [str(number) for number in range(500)]
    assert handler.headers[0]["traceparent"] == "x"
    assert not consumer.running


async def test_it_is_acknowledged_after_the_work(
    connection: Client, stream: Stream, handler: Handler
) -> None:
    """An event stays in the stream while it is worked on, longer than the server would wait."""
    handler.gate["slow"] = asyncio.Event()
    await stream.publish(Event(output="slow"), {})
    async with consuming(connection, handler):
        await until(lambda: handler.seen == ["slow"])
        await asyncio.sleep(7)  # the server's ack_wait is 5 s
        assert handler.seen == ["slow"]
        assert await left(connection) == 1
        handler.gate["slow"].set()
        await until_left(connection, 0)


async def test_no_more_than_may_be_in_flight(
    connection: Client, stream: Stream, handler: Handler
) -> None:
    """The rest waits in the stream, and comes as soon as there is room."""
    for number in range(10):
        handler.gate[str(number)] = asyncio.Event()
        await stream.publish(Event(output=str(number)), {})
    async with consuming(connection, handler, max_in_flight=3):
        await until(lambda: len(handler.seen) == 3)
        await asyncio.sleep(0.3)
        assert len(handler.seen) == 3
        for gate in handler.gate.values():
            gate.set()
        await until_left(connection, 0)
    assert sorted(handler.seen) == sorted(map(str, range(10)))


async def test_what_is_cut_short_stays(
    connection: Client, stream: Stream, handler: Handler
) -> None:
    """A stop waits its grace, then leaves the unfinished event for the next start."""
    handler.gate["slow"] = asyncio.Event()
    await stream.publish(Event(output="slow"), {})
    async with consuming(connection, handler) as consumer:
        await until(lambda: handler.seen == ["slow"])
        await consumer.stop(0.2)
    assert await left(connection) == 1

    handler.gate.clear()
    async with consuming(connection, handler):
        await until_left(connection, 0)
    assert handler.seen == ["slow", "slow"]


async def test_what_was_not_begun_is_handed_back(
    connection: Client, stream: Stream, handler: Handler
) -> None:
    """A handler that declines leaves the event to be handed over again at once."""
    handler.answer = False
    await stream.publish(Event(output="a"), {})
    async with consuming(connection, handler):
        await until(lambda: len(handler.seen) >= 2)
        handler.answer = True
        await until_left(connection, 0)


async def test_da_27_a_fault_of_ours_stops_nobody_else(
    connection: Client, stream: Stream, handler: Handler
) -> None:
    """An exception that nobody foresaw leads to another try, and to no end of the others."""
    handler.fault = RuntimeError("boom")
    await stream.publish(Event(output="bad"), {})
    async with consuming(connection, handler):
        await until(lambda: handler.seen == ["bad"])
        handler.fault = None
        await stream.publish(Event(output="fine"), {})
        await until_left(connection, 0)
    assert handler.seen == ["bad", "fine", "bad"]


class Ending(Handler):
    """Takes the event out of the stream by itself, as the engine does."""

    async def __call__(self, event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        done = await super().__call__(event, headers, progress)
        await progress.end()
        return done


async def test_hands_that_are_full_when_the_server_was_killed(
    nats_server: EmbeddedServer, connection: Client, stream: Stream
) -> None:
    """A server that forgot what it handed over is asked for it, though nothing new could be taken.

    It answers the acknowledgement of what it knows about, and of nothing else.
    """
    handler = Ending()
    for name in "abcd":
        handler.gate[name] = asyncio.Event()
        await stream.publish(Event(output=name), {})
    async with consuming(connection, handler, max_in_flight=2):
        await until(lambda: len(handler.seen) == 2)
        first = nats_server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: nats_server.pid not in {None, first} and connection.is_connected)
        await asyncio.sleep(2)  # by then there is a new consumer
        for gate in handler.gate.values():
            gate.set()
        await until_left(connection, 0)
    assert handler.seen == ["a", "b", "c", "d"]


async def test_it_goes_on_after_the_server_was_killed(
    nats_server: EmbeddedServer, connection: Client, stream: Stream, handler: Handler
) -> None:
    """A new server process serves the same stream; nothing stored is lost."""
    async with consuming(connection, handler):
        await stream.publish(Event(output="before"), {})
        await until_left(connection, 0)
        first = nats_server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: nats_server.pid not in {None, first} and connection.is_connected)
        await stream.publish(Event(output="after"), {})
        await until(lambda: "after" in handler.seen, 15)
        await until_left(connection, 0)
