"""The way to the leader's stream, between two real nats-servers."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from nats.aio.client import Client

from falco_talon.bus import Duplicates, Peers, Stream
from falco_talon.bus.link import Link
from falco_talon.event import Event
from tests.bus.replicas import SECRET, Leader, replica, stored, usable


@asynccontextmanager
async def linked(connection: Client, secret: bytes = SECRET) -> AsyncIterator[tuple[Link, Stream]]:
    """Run a link, and the stream of ours that uses it."""
    link = Link(Peers.derive(4222, secret))
    duplicates = Duplicates(connection, window_seconds=60)
    stream = Stream(
        connection, "output", duplicates, window_seconds=60, max_bytes=2**26, leader=link
    )
    await stream.open()
    await duplicates.open()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        yield link, stream
        running.cancel()


async def publish(stream: Stream, *outputs: str) -> float:
    """Publish events; return the longest time that one took, in seconds."""
    longest = 0.0
    for output in outputs:
        begin = time.monotonic()
        assert await stream.publish(Event(output=output), {"traceparent": "t"})
        longest = max(longest, time.monotonic() - begin)
    return longest


async def freeze(pid: int) -> None:
    """Stop a process; return when it has: a thread that still runs could answer once more."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    async with asyncio.timeout(5):
        while any(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T"
            for thread in threads.iterdir()
        ):
            await asyncio.sleep(0.001)


async def test_events_go_to_the_leader(connection: Client, leader: Leader) -> None:
    """Its stream holds them, with their headers, and knows the equal ones of everybody."""
    async with linked(connection) as (link, stream):
        await publish(stream, "before")
        link.follow(leader.where)
        await usable(link)
        await publish(stream, "a", "b")
        assert not await leader.stream.publish(Event(output="a"), {})
        assert await leader.stream.publish(Event(output="c"), {})
        assert not await stream.publish(Event(output="c"), {})
        link.follow("")
        await publish(stream, "after")

    assert (await stored(connection), await stored(leader.client)) == (2, 3)
    message = await leader.client.jetstream().get_msg("EVENTS", 1)
    assert (message.headers or {})["traceparent"] == "t"


async def test_da_09_another_leader(connection: Client, leader: Leader, tmp_path: Path) -> None:
    """Events go there; the connection to the old one is closed."""
    async with linked(connection) as (link, stream), replica(tmp_path / "second") as second:
        for each in (leader, second):
            link.follow(each.where)
            assert not link.usable
            await usable(link)
            await publish(stream, each.where)
            assert await stored(each.client) == 1


async def test_da_08_the_leader_dies(connection: Client, leader: Leader) -> None:
    """Nobody waits for it, nothing is lost, and it is used again when it is back."""
    async with linked(connection) as (link, stream):
        link.follow(leader.where)
        await usable(link)
        pid = leader.server.pid
        assert pid is not None
        await freeze(pid)
        sending = [
            asyncio.ensure_future(publish(stream, str(number)))  # noqa: TID251
            for number in range(10)
        ]
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        assert max(await asyncio.gather(*sending)) < 0.6
        assert await stored(connection) == 10
        assert await publish(stream, "down") < 0.5
        assert await usable(link) < 5
        await publish(stream, "up")
    assert await stored(connection) == 11


async def test_the_leader_falls_silent(connection: Client, leader: Leader) -> None:
    """One event waits for a second, those after it do not; it is used again when it answers."""
    async with linked(connection) as (link, stream):
        link.follow(leader.where)
        await usable(link)
        pid = leader.server.pid
        assert pid is not None
        await freeze(pid)
        try:
            assert await publish(stream, "first") < 1.5
            assert await publish(stream, *(str(number) for number in range(20))) < 0.3
            await usable(link, False)
        finally:
            os.kill(pid, signal.SIGCONT)
        await usable(link, seconds=15)
        await publish(stream, "again")
    assert await stored(connection) == 21


async def test_the_leader_takes_no_more(connection: Client, leader: Leader) -> None:
    """A leader that stops, or whose stream is full, refuses at once: our own stream takes it."""
    async with linked(connection) as (link, stream):
        link.follow(leader.where)
        await usable(link)
        await leader.stream.close()
        assert await publish(stream, "a", "b") < 0.3
        await leader.stream.open()
        await publish(stream, "c")
    assert (await stored(connection), await stored(leader.client)) == (2, 1)


async def test_another_secret(connection: Client, leader: Leader, logged: object) -> None:
    """It is said, and our own stream takes the events."""
    async with linked(connection, b"another") as (link, stream):
        link.follow(leader.where)
        async with asyncio.timeout(5):
            while not (lines := logged(level="warn")):  # type: ignore[operator]
                await asyncio.sleep(0.01)
        assert not link.usable
        assert await publish(stream, "a") < 0.3
    assert "Authorization Violation" in lines[0]["error"]
    assert SECRET.decode() not in str(logged())  # type: ignore[operator]
    assert len(lines) == 1


async def test_a_leader_at_no_place(connection: Client, logged: object) -> None:
    """A lease that somebody else wrote leads nowhere."""
    async with linked(connection) as (link, stream):
        link.follow("evil@host:1,other")
        await asyncio.sleep(0.3)
        await publish(stream, "a")
    assert "no host:port" in str(logged(level="warn"))  # type: ignore[operator]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"x" * 300_000, id="a line without end"),
        pytest.param(b"INFO []\r\n", id="another JSON"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
        pytest.param(b'INFO {"tls_required": true}\r\n', id="TLS that never comes"),
        pytest.param(b"INFO {}\r\nPONG\r\n" + b"garbage\r\n" * 50, id="garbage later"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_no_nats_server(connection: Client, said: bytes, logged: object) -> None:
    """Whatever listens there, our own stream takes the events."""

    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        served.add(task)
        with suppress(OSError):
            writer.write(said)
            while await reader.read(1000):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with linked(connection) as (link, stream):
        link.follow(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(8):
            while not logged(level="warn"):  # type: ignore[operator]
                await asyncio.sleep(0.02)
        assert await publish(stream, "a") < 0.5
    server.close()
    await asyncio.wait(served, timeout=5)
