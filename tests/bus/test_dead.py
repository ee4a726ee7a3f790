"""Events that are given up, on a real nats-server."""

import asyncio

import pytest
from nats.aio.client import Client
from nats.js.api import RawStreamMsg

from falco_talon.bus import Progress, Stream
from falco_talon.event import Event
from tests.bus.fixtures import consuming
from tests.bus.test_consumer import Handler, until_left


async def dead(connection: Client, number: int = 1) -> RawStreamMsg:
    return await connection.jetstream().get_msg("EVENTS_DEAD", number)


async def left(connection: Client) -> int:
    return (await connection.jetstream().stream_info("EVENTS_DEAD")).state.messages


async def test_an_event_that_fails_again_and_again(connection: Client, stream: Stream) -> None:
    """After its attempts it is kept with the reason, and the others are served."""
    handler = Handler()
    handler.beginning = True
    handler.fault = RuntimeError("boom\r\nX-Evil: 1")
    await stream.publish(Event(output="poison"), {"traceparent": "x"})
    async with consuming(connection, handler, max_attempts=2):
        await until_left(connection, 0)
        handler.fault = None
        await stream.publish(Event(output="fine"), {})
        await until_left(connection, 0)

    assert handler.seen == ["poison", "poison", "fine"]
    assert handler.attempts == [1, 2, 1]
    letter = await dead(connection)
    assert letter.headers is not None
    assert letter.data is not None
    assert Event.from_message(letter.data).output == "poison"
    assert letter.headers["Talon-Reason"] == "interrupted"
    assert letter.headers["Talon-Attempts"] == "2"
    assert "boom" in letter.headers["Talon-Last-Error"]
    assert "X-Evil" not in letter.headers
    assert letter.headers["traceparent"] == "x"
    assert await left(connection) == 1


async def test_an_event_that_was_begun_too_often(connection: Client, stream: Stream) -> None:
    """An event that kills the daemon each time is not begun once more: crashes count as well."""

    class Crash(Handler):
        async def __call__(self, event: Event, headers: object, progress: Progress) -> bool:
            self.begun = await progress.begin()
            if not self.begun:
                return True
            await progress.save()
            self.seen.append(event.output)
            await asyncio.sleep(60)
            return True

    handler = Crash()
    await stream.publish(Event(output="killer"), {})
    for number in range(1, 3):
        async with consuming(connection, handler, max_attempts=2) as consumer:
            async with asyncio.timeout(5):
                while len(handler.seen) < number:
                    await asyncio.sleep(0.01)
            await consumer.stop(0)

    async with consuming(connection, handler, max_attempts=2):
        await until_left(connection, 0)

    assert handler.seen == ["killer", "killer"]
    assert not handler.begun
    letter = await dead(connection)
    assert letter.headers is not None
    assert letter.headers["Talon-Last-Error"] == "the daemon was killed"


async def test_an_event_whose_turn_comes_too_late(connection: Client, stream: Stream) -> None:
    """What waited longer than `nats.retention_seconds` is not acted on, and not lost either."""
    handler = Handler()
    handler.beginning = True
    await stream.publish(Event(output="old"), {})
    await asyncio.sleep(1.1)
    async with consuming(connection, handler, retention_seconds=1):
        await stream.publish(Event(output="new"), {})
        await until_left(connection, 0)

    assert handler.seen == ["new"]
    letter = await dead(connection)
    assert letter.headers is not None
    assert letter.headers["Talon-Reason"] == "expired"
    assert letter.headers["Talon-Attempts"] == "0"


@pytest.mark.parametrize("body", [b"\xff not an event", b"", b'{"output": 1}'])
async def test_what_is_no_event(connection: Client, stream: Stream, body: bytes) -> None:
    """A message that somebody else put there harms nobody, and can be looked at."""
    handler = Handler()
    await connection.jetstream().publish("EVENTS.x", body)
    await stream.publish(Event(output="fine"), {})
    async with consuming(connection, handler):
        await until_left(connection, 0)

    assert handler.seen == ["fine"]
    letter = await dead(connection)
    assert letter.headers is not None
    assert (letter.data or b"") == body
    assert letter.headers["Talon-Reason"] == "invalid"
