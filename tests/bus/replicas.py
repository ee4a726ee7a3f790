"""Another replica: a real nats-server that lets peers in."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client

from falco_talon.bus import EmbeddedServer, Peers, Stream, connect
from falco_talon.bus.link import Link
from tests.bus.cluster import free_ports
from tests.bus.fixtures import open_stream, running_server

SECRET = b"shared-s3cret"


class Leader:
    """Another replica's server and stream."""

    def __init__(self, server: EmbeddedServer, client: Client, stream: Stream, port: int) -> None:
        self.server = server
        self.client = client
        self.stream = stream
        self.where = f"127.0.0.1:{port}"


@asynccontextmanager
async def replica(folder: Path) -> AsyncIterator[Leader]:
    """Run a server that lets peers in."""
    (port,) = free_ports(1)
    async with (
        running_server(folder, peers=Peers.derive(port, SECRET)) as server,
        connect(server.address) as client,
    ):
        yield Leader(server, client, await open_stream(client), port)


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Leader]:
    """Run the other replica."""
    async with replica(tmp_path / "leader") as found:
        yield found


async def usable(link: Link, wanted: bool = True, seconds: float = 10) -> float:
    begin = time.monotonic()
    async with asyncio.timeout(seconds):
        while link.usable != wanted:
            await asyncio.sleep(0.01)
    return time.monotonic() - begin


async def stored(client: Client) -> int:
    return int((await client.jetstream().stream_info("EVENTS")).state.messages)
