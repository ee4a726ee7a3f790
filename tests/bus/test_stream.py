"""The stream, on a real nats-server."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Literal

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from falco_talon.bus import Duplicates, EmbeddedServer, Stream, connect
from falco_talon.bus.connection import Address
from falco_talon.errors import BusError, BusUnavailableError
from falco_talon.event import Event
from tests.bus.fixtures import running_server


def make(
    client: Client, *, window: int = 60, max_bytes: int = 2**26, key: str = "output"
) -> Stream:
    by: Literal["output", "event"] = "event" if key == "event" else "output"
    duplicates = Duplicates(client, window_seconds=window)
    return Stream(client, by, duplicates, window_seconds=window, max_bytes=max_bytes)


async def test_its_shape(connection: Client, stream: Stream) -> None:
    """A work queue on disk that refuses what is too much, and never forgets by age."""
    config = (await connection.jetstream().stream_info("EVENTS")).config

    assert config.retention == "workqueue"
    assert config.storage == "file"
    assert config.discard == "new"
    assert config.max_age == 0
    assert config.duplicate_window == 60
    assert config.max_bytes == 2**26
    assert config.subjects == ["EVENTS.*"]


async def test_equal_outputs_are_stored_once(connection: Client, stream: Stream) -> None:
    """Within the window the hash of the output decides, whatever else differs."""
    assert await stream.publish(Event(output="a", rule="r1"), {})
    assert not await stream.publish(Event(output="a", rule="r2"), {})
    assert await stream.publish(Event(output="b"), {})

    message = await connection.jetstream().get_msg("EVENTS", 1)
    assert message.subject == "EVENTS.0cc175b9c0f1b6a831c399e269772661"
    assert message.data is not None
    assert Event.from_message(message.data).rule == "r1"


async def test_da_13_the_key_may_be_the_whole_event(connection: Client) -> None:
    """With `deduplication.key: event` another rule's equal output is another event."""
    stream = make(connection, key="event")
    await stream.open()

    assert await stream.publish(Event(output="a", rule="r1"), {})
    assert await stream.publish(Event(output="a", rule="r2"), {})
    assert not await stream.publish(Event(output="a", rule="r1"), {})


async def test_da_04_window_zero_stores_every_event(connection: Client) -> None:
    """A window of 0 means no deduplication, not the two minutes that the server makes of it."""
    stream = make(connection, window=0)
    await stream.open()

    assert [await stream.publish(Event(output="a"), {}) for _ in range(3)] == [True] * 3


async def test_after_the_window_an_equal_event_counts_again(connection: Client) -> None:
    """A legitimate repeat passes once the window is over."""
    stream = make(connection, window=1)
    await stream.open()
    assert await stream.publish(Event(output="a"), {})
    assert not await stream.publish(Event(output="a"), {})

    async with asyncio.timeout(10):
        while not await stream.publish(Event(output="a"), {}):
            await asyncio.sleep(0.1)


async def test_a_full_stream_refuses(connection: Client) -> None:
    """What does not fit is refused aloud; nothing that was accepted makes room for it."""
    stream = make(connection, max_bytes=10_000)
    await stream.open()
    stored = 0
    with pytest.raises(BusUnavailableError, match="maximum bytes exceeded"):
        for number in range(100):
            await stream.publish(Event(output=f"{number} {'x' * 500}"), {})
            stored += 1

    state = (await connection.jetstream().stream_info("EVENTS")).state
    assert state.messages == stored > 5


async def test_it_is_brought_into_the_configured_shape(connection: Client, stream: Stream) -> None:
    """A changed window or size of an existing stream is applied at the next start."""
    await make(connection, window=10, max_bytes=2**27).open()

    config = (await connection.jetstream().stream_info("EVENTS")).config
    assert (config.duplicate_window, config.max_bytes) == (10, 2**27)


async def test_a_stream_that_cannot_be_changed(connection: Client) -> None:
    """A stream of another make is not destroyed but named."""
    await connection.jetstream().add_stream(StreamConfig(name="EVENTS", storage="memory"))  # type: ignore[arg-type]

    with pytest.raises(BusError, match="the stream EVENTS cannot be set up: .*storage type"):
        await make(connection).open()


async def test_without_the_server_the_event_is_refused(
    nats_server: EmbeddedServer, stream: Stream
) -> None:
    """No confirmation, no 200."""
    assert nats_server.pid is not None
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(BusUnavailableError, match="could not be stored"):
            await stream.publish(Event(output="a"), {})
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)


async def test_what_was_stored_survives_a_restart(tmp_path: Path) -> None:
    """Events lie on disk until somebody has worked on them."""
    for expected in (1, 2):
        async with running_server(tmp_path) as server, connect(server.address) as client:
            stream = make(client)
            await stream.open()
            assert await stream.publish(Event(output=f"event {expected}"), {})
            state = (await client.jetstream().stream_info("EVENTS")).state
            assert state.messages == expected


async def test_no_server_to_connect_to() -> None:
    """The first connection must succeed, or the daemon does not start."""
    with pytest.raises(BusError, match="no connection to nats-server at nats://127.0.0.1:1"):
        async with asyncio.timeout(10), connect(Address("nats://127.0.0.1:1", "u", "p")):
            pass
