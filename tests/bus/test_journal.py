"""What an interrupted event finds again, on a real nats-server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client

from falco_talon.bus import EmbeddedServer, Journal
from falco_talon.bus.journal import Entry


@asynccontextmanager
async def opened(connection: Client, *, shared: bool = False) -> AsyncIterator[Journal]:
    async with asyncio.TaskGroup() as tasks:
        journal = Journal(connection, tasks, shared=shared)
        await journal.open()
        yield journal
        journal.close()


async def test_an_entry_is_found_after_a_crash(connection: Client) -> None:
    """Runs begun, the last error and what is done are there again; others are not."""
    entry = Entry(attempts=2, error="boom", statuses={"Rule/0": "failure"})
    async with opened(connection) as journal:
        await journal.save("stream-1", entry)

    async with opened(connection) as journal:
        assert await journal.entry("stream-1", redelivered=False) == entry
        assert await journal.entry("stream-2", redelivered=True) == Entry()


async def test_what_was_acknowledged_is_forgotten(connection: Client) -> None:
    """A forgotten entry is gone with the next write, and the bucket does not grow."""
    async with opened(connection) as journal:
        for number in range(200):
            await journal.save(f"s-{number}", Entry(attempts=1))
            journal.forget(f"s-{number}")
        await journal.save("last", Entry(attempts=1))

    info = await connection.jetstream().stream_info("KV_TALON_JOURNAL")
    assert info.state.messages == 1
    assert info.config.max_age == 7 * 24 * 3600
    async with opened(connection) as journal:
        assert await journal.entry("s-7", redelivered=True) == Entry()
        assert await journal.entry("last", redelivered=True) == Entry(attempts=1)


async def test_many_at_once_share_their_writes(connection: Client) -> None:
    """What waits while a write is under way goes together with the next."""
    async with opened(connection) as journal:
        await asyncio.gather(
            *(journal.save(f"s-{number}", Entry(attempts=1)) for number in range(500))
        )
        info = await connection.jetstream().stream_info("KV_TALON_JOURNAL")
        assert info.state.last_seq <= 3


async def test_a_write_waits_for_the_server(
    nats_server: EmbeddedServer, connection: Client
) -> None:
    """Nothing begins while it cannot be written down; it is, once the server is back."""
    async with opened(connection) as journal:
        assert nats_server.pid is not None
        os.kill(nats_server.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await journal.save("s-1", Entry(attempts=1))
    async with opened(connection) as journal:
        assert await journal.entry("s-1", redelivered=False) == Entry(attempts=1)


async def test_another_daemon_finds_it(connection: Client) -> None:
    """With a shared stream, what a daemon wrote is read by the one that gets its event."""
    async with opened(connection, shared=True) as first, opened(connection, shared=True) as second:
        await first.save("s-1", Entry(attempts=1, statuses={"R/0": "success"}))
        assert (await second.entry("s-1", redelivered=True)).statuses == {"R/0": "success"}
        assert (await first.entry("s-1", redelivered=False)).attempts == 1


async def test_what_is_no_journal_harms_nobody(connection: Client) -> None:
    """A value that somebody else put there is passed over."""
    async with opened(connection):
        pass
    await connection.jetstream().publish("$KV.TALON_JOURNAL.x", b"\xff no JSON")

    async with opened(connection) as journal:
        assert await journal.entry("s-1", redelivered=True) == Entry()
