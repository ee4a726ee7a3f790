"""A real nats-server, connections to it, and a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client

from falco_talon.bus import EmbeddedServer, Stream, connect


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


@pytest.fixture
async def stream(connection: Client) -> Stream:
    """Set the stream up, with a window that no test outlasts."""
    stream = Stream(connection, "output", window_seconds=60, max_bytes=64 * 1024 * 1024)
    await stream.open()
    return stream
