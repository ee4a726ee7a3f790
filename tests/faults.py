"""The real API server behind a server that answers some requests itself: with a fault."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web

from falco_talon.clients import Clients
from tests.cluster.client import Client
from tests.cluster.cluster import Cluster

_HOP = {"connection", "content-length", "content-encoding", "host", "transfer-encoding"}


@dataclass
class Fault:
    """What befalls the requests that match: *times* of them, after they were held for a while."""

    method: str
    path: str
    """A regular expression that is searched for."""
    status: int = 0
    """What is answered; 0 passes the request on."""
    times: int = 1
    seconds: float = 0.0
    message: str = "made up"
    headers: dict[str, str] = field(default_factory=dict)


class FaultyApi:
    """Passes requests on as the administrator, unless a fault is meant for them."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession, tls: object) -> None:
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.most_at_once = 0
        """How many evictions were under way at the same time."""
        self._at_once = 0
        self._server = cluster.server
        self._session = session
        self._tls = tls

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with the first fault that fits, or else what the API server answers."""
        self.seen.append((request.method, request.path_qs))
        counts = request.path.endswith("/eviction")
        self._at_once += counts
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request)
        finally:
            self._at_once -= counts

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        for fault in self.faults:
            fits = fault.method == request.method and re.search(fault.path, request.path_qs)
            if fits and fault.times > 0:
                fault.times -= 1
                await asyncio.sleep(fault.seconds)
                if fault.status:
                    status = {"kind": "Status", "reason": "Fault", "message": fault.message}
                    return web.Response(
                        status=fault.status,
                        text=json.dumps(status),
                        headers=fault.headers,
                        content_type="application/json",
                    )
                break
        return await self._pass_on(request)

    async def _pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        async with self._session.request(
            request.method,
            self._server + request.path_qs,
            data=await request.read(),
            headers=headers,
            ssl=self._tls,  # type: ignore[arg-type]
        ) as answer:
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


@asynccontextmanager
async def faulty(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[FaultyApi, Clients]]:
    """Run one; yield it with clients that go through it."""
    admin = Client.from_kubeconfig(cluster.kubeconfig)
    tls: ssl.SSLContext | bool = admin.context or True
    async with aiohttp.ClientSession(headers=admin.headers) as session:
        api = FaultyApi(cluster, session, tls)
        runner = web.ServerRunner(web.Server(api.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        document = {
            "current-context": "faulty",
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "faulty"}}],
            "clusters": [
                {"name": "faulty",
                 "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
            ],
            "users": [{"name": "faulty", "user": {}}],
        }  # fmt: skip
        kubeconfig = folder / "faulty.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(document))
        try:
            async with Clients(kubeconfig=kubeconfig) as clients:
                await clients.ready({"kubernetes"})
                yield api, clients
        finally:
            await runner.cleanup()


@pytest.fixture
async def faulty_api(cluster: Cluster, tmp_path: Path) -> AsyncIterator[tuple[FaultyApi, Clients]]:
    """One for a test."""
    async with faulty(cluster, tmp_path) as found:
        yield found
