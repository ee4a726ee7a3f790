"""A proxy in front of the real API server that breaks what goes through it when it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.cluster.cluster import Cluster


class Proxy:
    """Passes bytes on, both ways; knows what belongs to TLS as little as any router."""

    def __init__(self, cluster: Cluster) -> None:
        parts = urlsplit(cluster.server)
        self._target = (parts.hostname, parts.port)
        self._writers: list[asyncio.StreamWriter] = []
        self.delay_seconds = 0.0
        self.connections = 0

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        with suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection(*self._target)
            self._writers += [writer, other_writer]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, other_writer))
                tasks.create_task(self._pass(other_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """Run a proxy; yield it with a kubeconfig that goes through it."""
    proxy = Proxy(cluster)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    section, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    section["server"] = f"https://127.0.0.1:{port}"
    for mapping in (section, user):
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if key in mapping:
                mapping[key] = str(cluster.kubeconfig.parent.resolve() / mapping[key])
    kubeconfig = folder / "proxied.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    try:
        yield proxy, kubeconfig
    finally:
        server.close()
        proxy.cut()
