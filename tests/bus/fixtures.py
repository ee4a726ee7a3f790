"""A real nats-server, connections to it, and a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from nats.aio.client import Client

from falco_talon.bus import (
    Acknowledgements,
    Bookkeeping,
    Consumer,
    DeadLetters,
    Duplicates,
    EmbeddedServer,
    Journal,
    Stream,
    connect,
)
from falco_talon.bus.consumer import Handler


@asynccontextmanager
async def running_server(store_dir: Path, **options: object) -> AsyncIterator[EmbeddedServer]:
    """Run an embedded nats-server on *store_dir*."""
    defaults = {"binary": None, "max_payload_bytes": 1024 * 1024, "always_sync": False}
    async with (
        asyncio.TaskGroup() as tasks,
        EmbeddedServer(tasks, store_dir, **(defaults | options)) as server,  # type: ignore[arg-type]
    ):
        yield server


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """Run a real nats-server on an empty folder."""
    async with running_server(tmp_path / "store") as server:
        yield server


@pytest.fixture
async def connection(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    """Connect to the server."""
    async with connect(nats_server.address) as client:
        yield client


async def open_stream(
    connection: Client, *, window_seconds: float = 60, key: Literal["output", "event"] = "output"
) -> Stream:
    """Set a stream up, with the ids that earlier runs left."""
    duplicates = Duplicates(connection, window_seconds=window_seconds)
    stream = Stream(
        connection, key, duplicates, window_seconds=window_seconds, max_bytes=64 * 1024 * 1024
    )
    await stream.open()
    await duplicates.open()
    return stream


@pytest.fixture
async def stream(connection: Client) -> Stream:
    """Set the stream up, with a window that no test outlasts."""
    return await open_stream(connection)


@asynccontextmanager
async def consuming(
    connection: Client,
    handler: Handler,
    *,
    max_in_flight: int = 10,
    max_attempts: int = 5,
    retention_seconds: float = 3600,
    window_seconds: float = 60,
    grace_seconds: float = 1,
) -> AsyncIterator[Consumer]:
    """Hand the events of the stream to *handler*, with books of their own as a daemon has."""
    async with asyncio.TaskGroup() as tasks:
        duplicates = Duplicates(connection, window_seconds=window_seconds)
        journal = Journal(connection, tasks)
        acknowledge = Acknowledgements(connection, tasks, duplicates)
        dead = DeadLetters(connection)
        for part in (duplicates, journal, dead):
            await part.open()
        books = Bookkeeping(
            journal,
            acknowledge,
            dead,
            max_attempts=max_attempts,
            retention_seconds=retention_seconds,
        )
        consumer = Consumer(connection, tasks, handler, books, max_in_flight=max_in_flight)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop(grace_seconds)
            journal.close()
            acknowledge.close()
