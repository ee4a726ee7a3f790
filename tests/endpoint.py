"""A real HTTP server on loopback that records what it is sent and answers, or fails, as told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

import pytest
from aiohttp import web

Fault = Literal["hang", "reset", "garbage"]


@dataclass(frozen=True)
class Answer:
    """What the endpoint answers with, or how it fails."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass(frozen=True)
class Received:
    """One request, as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Endpoint:
    """The server. ``answers`` are given in turn, the last of them for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.received: list[Received] = []
        self.connections: set[asyncio.Transport] = set()
        self.port = 0
        self._closing = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record the request and answer it."""
        assert request.transport
        self.connections.add(request.transport)
        body = await request.read()
        self.received.append(Received(request.method, request.path_qs, dict(request.headers), body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.fault == "hang":
            await self._closing.wait()
        elif answer.fault:
            if answer.fault == "garbage":
                request.transport.write(b"\x00\xff not HTTP\r\n\r\n")
            request.transport.abort()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def close(self) -> None:
        """Let those that hang go."""
        self._closing.set()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A server that answers 200 with nothing unless told otherwise."""
    found = Endpoint()
    runner = web.ServerRunner(web.Server(found.handle), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await found.close()
    await runner.cleanup()


@pytest.fixture
def unused_url(unused_tcp_port_factory: Callable[[], int]) -> str:
    """A URL on which nothing listens."""
    return f"http://127.0.0.1:{unused_tcp_port_factory()}"
