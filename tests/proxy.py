"""A proxy in front of the real API server that breaks what goes through it when it is told to."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.cluster.client import Client
from tests.cluster.cluster import Cluster

_REQUEST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")


class Proxy:
    """Passes bytes on, both ways, and presents the administrator's certificate for the client.

    It looks at nothing but the first line of each request.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._client = Client.from_kubeconfig(cluster.kubeconfig)
        self._writers: list[asyncio.StreamWriter] = []
        self._faults: list[tuple[str, bytes]] = []
        self._served: set[asyncio.Task[None]] = set()
        self.away = False
        """Whether new connections are reset at once, as if nothing were there."""
        self.delay_seconds = 0.0
        self.connections = 0
        self.requests: list[str] = []
        """Method and path of each request, with the query."""

    async def close(self) -> None:
        """Reset every connection, and wait until all is over."""
        self.cut()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def answer(self, request: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next requests that hold *request* (``GET /api/v1/…``) with this status.

        They do not get to the API server. A header ``Retry_After`` is ``Retry-After``.
        """
        body = json.dumps({"kind": "Status", "message": "so the proxy says"}).encode()
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        self._faults += [(request, "\r\n".join(lines).encode() + body)] * times

    def reset(self, request: str) -> None:
        """Reset the connection of the next request that holds *request*, in place of an answer."""
        self._faults.append((request, b""))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        if self.away:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._served.add(task)
        task.add_done_callback(self._served.discard)
        parts = urlsplit(self._client.server)
        with suppress(OSError, asyncio.CancelledError):  # cancelled by close() only
            there, server = await asyncio.open_connection(
                parts.hostname, parts.port, ssl=self._client.context
            )
            self._writers += [writer, server]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(reader, server, writer))
                tasks.create_task(self._pass(there, writer))

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if (found := _REQUEST.match(data)) and self._breaks(found, client):
                    break
                await asyncio.sleep(self.delay_seconds)
                server.write(data)
                await server.drain()
        server.close()

    def _breaks(self, found: re.Match[bytes], client: asyncio.StreamWriter) -> bool:
        request = f"{found[1].decode()} {found[2].decode()}"
        self.requests.append(request)
        for fault in self._faults:
            if fault[0] in request:
                self._faults.remove(fault)
                if not fault[1]:
                    client.transport.abort()
                client.write(fault[1])
                return True
        return False

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """Run a proxy; yield it with a kubeconfig that goes through it, over plain HTTP."""
    proxy = Proxy(cluster)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    name = "proxied"
    section = {"server": f"http://127.0.0.1:{port}"}
    token = Client.from_kubeconfig(cluster.kubeconfig).headers.get("Authorization", "")
    user = {"token": token.removeprefix("Bearer ")} if token else {}
    document = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": section}],
        "users": [{"name": name, "user": user}],
    }
    kubeconfig = folder / "proxied.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    try:
        yield proxy, kubeconfig
    finally:
        server.close()
        await proxy.close()
