"""Repeats within the window, across restarts of everything."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from nats.aio.client import Client

from falco_talon.bus import EmbeddedServer, Stream, connect
from falco_talon.event import Event
from tests.bus.fixtures import consuming, open_stream, running_server
from tests.bus.test_consumer import Handler, until_left


async def work_off(client: Client) -> Handler:
    handler = Handler()
    async with consuming(client, handler):
        await until_left(client, 0)
    return handler


@pytest.mark.parametrize("worked_off", [True, False], ids=["acknowledged", "waiting"])
async def test_a_restart_forgets_no_id(tmp_path: Path, worked_off: bool) -> None:
    """The same event right before and right after a restart of server and daemon acts once."""
    event = Event(output="again")
    async with running_server(tmp_path) as server, connect(server.address) as client:
        stream = await open_stream(client)
        assert await stream.publish(event, {})
        if worked_off:
            assert (await work_off(client)).seen == ["again"]

    async with running_server(tmp_path) as server, connect(server.address) as client:
        stream = await open_stream(client)
        assert not await stream.publish(event, {})
        assert await stream.publish(Event(output="another"), {})
        seen = (await work_off(client)).seen
        assert seen == (["another"] if worked_off else ["again", "another"])


async def test_a_killed_server_forgets_no_id(
    nats_server: EmbeddedServer, connection: Client, stream: Stream
) -> None:
    """The daemon that lives on remembers what its server forgot."""
    assert await stream.publish(Event(output="again"), {})
    await work_off(connection)
    first = nats_server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(10):
        while nats_server.pid in {None, first} or not connection.is_connected:
            await asyncio.sleep(0.02)

    assert not await stream.publish(Event(output="again"), {})


async def test_the_window_ends_across_a_restart(tmp_path: Path) -> None:
    """A legitimate repeat after the window acts again, wherever the restart fell."""
    event = Event(output="again")
    async with running_server(tmp_path) as server, connect(server.address) as client:
        stream = await open_stream(client, window_seconds=2)
        assert await stream.publish(event, {})
        handler = Handler()
        async with consuming(client, handler, window_seconds=2):
            await until_left(client, 0)
    await asyncio.sleep(2)
    async with running_server(tmp_path) as server, connect(server.address) as client:
        stream = await open_stream(client, window_seconds=2)
        assert await stream.publish(event, {})
        handler = Handler()
        async with consuming(client, handler, window_seconds=2):
            await until_left(client, 0)
    assert handler.seen == ["again"]


async def test_window_zero_acts_on_each(connection: Client) -> None:
    """Without a window nothing is remembered, here or there."""
    stream = await open_stream(connection, window_seconds=0)
    handler = Handler()
    async with consuming(connection, handler, window_seconds=0):
        for _ in range(3):
            assert await stream.publish(Event(output="a"), {})
            await until_left(connection, 0)
    assert handler.seen == ["a"] * 3
