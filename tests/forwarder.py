"""A way to a server that can be closed: bytes go through, or do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.cluster.cluster import Cluster


class Forwarder:
    """Passes bytes on, both ways. ``port`` is where it listens, on 127.0.0.1."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._closed = False
        self.port = 0

    def close(self) -> None:
        """Reset every connection, and every new one until :meth:`open`."""
        self._closed = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Keep all bytes back until :meth:`open`, as a network does that loses packets."""
        self._open.clear()

    def open(self) -> None:
        """Let everything through again."""
        self._closed = False
        self._open.set()

    async def end(self) -> None:
        """Close, and wait until all is over."""
        self.close()
        self._open.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.append(writer)
        if self._closed:
            writer.transport.abort()
            return
        with suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection(*self._target)
            self._writers.append(other_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, other_writer))
                tasks.create_task(self._pass(other_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def forwarding(host: str, port: int) -> AsyncIterator[Forwarder]:
    """Forward to a server."""
    forwarder = Forwarder(host, port)
    server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
    forwarder.port = server.sockets[0].getsockname()[1]
    try:
        yield forwarder
    finally:
        server.close()
        await forwarder.end()


@asynccontextmanager
async def way_to(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[Forwarder, Path]]:
    """Forward to the API server; yield the way, and a kubeconfig that takes it."""
    parts = urlsplit(cluster.server)
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    section, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    for mapping in (section, user):
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if key in mapping:
                mapping[key] = str(cluster.kubeconfig.parent.resolve() / mapping[key])
    async with forwarding(parts.hostname or "", parts.port or 443) as forwarder:
        section["server"] = f"{parts.scheme}://127.0.0.1:{forwarder.port}"
        section["tls-server-name"] = parts.hostname
        kubeconfig = folder / "forwarded.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(document))
        yield forwarder, kubeconfig
