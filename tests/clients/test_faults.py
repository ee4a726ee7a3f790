"""The Kubernetes client through a proxy that breaks what it is told to, to the real API server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import pytest

from falco_talon.clients import Clients
from falco_talon.clients.kubernetes import Kubernetes, path
from falco_talon.clients.pod_exec import PROTOCOLS
from falco_talon.errors import PluginError, TransientError
from falco_talon.retry import retrying
from tests.cluster.cluster import Cluster
from tests.proxy import Proxy, proxied

DEFAULT = path("namespaces", "default")


class Way(NamedTuple):
    """A client, and the proxy between it and the API server."""

    client: Kubernetes
    proxy: Proxy


@pytest.fixture
async def way(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Way]:
    """A way through a proxy."""
    async with (
        proxied(cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        yield Way(clients.kubernetes, proxy)


async def test_connections_are_reused(way: Way) -> None:
    """One request after the other goes over one connection; at once they have some."""
    for _ in range(20):
        await way.client.get(DEFAULT)
    assert way.proxy.connections == 1
    await asyncio.gather(*(way.client.get(DEFAULT) for _ in range(10)))
    assert way.proxy.connections <= 10


async def test_too_many_requests(way: Way) -> None:
    """429: the wait that the server asks for is kept, then the request succeeds."""
    way.proxy.answer("GET", 429, Retry_After="1")
    started = time.monotonic()
    assert (await retrying(way.client.get, DEFAULT))["kind"] == "Namespace"
    assert time.monotonic() - started >= 1
    assert len(way.proxy.requests) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_errors(status: int, way: Way) -> None:
    """5xx: worth another try, in the server's words."""
    way.proxy.answer("GET", status)
    with pytest.raises(TransientError, match=rf"^so the proxy says \({status} "):
        await way.client.get(DEFAULT)
    way.proxy.answer("GET", status, times=2)
    assert (await retrying(way.client.get, DEFAULT))["kind"] == "Namespace"


async def test_gone(way: Way) -> None:
    """410: what a list or watch began with is too old, so that it must be begun again."""
    way.proxy.answer("GET", 410)
    with pytest.raises(TransientError, match="410 Gone"):
        await way.client.get(path("namespaces"), **{"continue": "old"})


async def test_reset(way: Way) -> None:
    """A reset connection: what only asks is asked again on a new one, what changes something is
    not repeated in silence.
    """
    way.proxy.reset("PATCH")
    with pytest.raises(TransientError, match="cannot be reached"):
        await way.client.patch(DEFAULT, {})
    assert len(way.proxy.requests) == 1
    for _ in range(2):
        assert (await retrying(way.client.get, DEFAULT))["kind"] == "Namespace"
        way.proxy.cut()  # the idle ones, as a load balancer does


async def test_slow(way: Way) -> None:
    """A slow server is waited for, up to the limit."""
    way.proxy.delay_seconds = 0.3
    assert (await way.client.get(DEFAULT))["kind"] == "Namespace"
    impatient = Kubernetes(way.client._access, seconds=0.2)
    with pytest.raises(TransientError, match="did not answer in time"):
        await impatient.get(DEFAULT)


async def test_watch_is_cut(way: Way) -> None:
    """A watch whose connection is lost is worth another one."""
    changes = way.client.watch(
        path("namespaces"), fieldSelector="metadata.name=default", resourceVersion="0"
    )
    async with aclosing(changes):
        assert (await anext(changes))["type"] == "ADDED"
        way.proxy.cut()
        with pytest.raises(TransientError, match="cannot be reached"):
            await anext(changes)


async def test_watch_of_large_objects(way: Way, namespace: str) -> None:
    """An object of the largest size arrives whole."""
    collection = path("configmaps", namespace=namespace)
    body = {"metadata": {"name": "large"}, "data": {"a": "x" * 900_000}}
    await way.client.post(collection, body)
    changes = way.client.watch(collection, fieldSelector="metadata.name=large", resourceVersion="0")
    async with aclosing(changes):
        assert (await anext(changes))["object"]["data"] == body["data"]


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (429, TransientError, "429 Too Many Requests"),
        (500, TransientError, "500 Internal Server Error"),
        (503, TransientError, "503 Service Unavailable"),
        (403, PluginError, r"so the proxy says \(403 Forbidden\)"),
    ],
)
async def test_refused_streams(
    status: int, error: type[PluginError], text: str, way: Way, namespace: str
) -> None:
    """A stream that is refused is told apart as any request is; the wait asked for is known."""
    where = path("pods", "web", namespace=namespace, subresource="exec")
    way.proxy.answer("/exec", status, times=2, Retry_After="3")
    with pytest.raises(PluginError, match=text) as raised:
        await way.client.connect(where, [("command", "true")], PROTOCOLS)
    assert type(raised.value) is error
    if isinstance(raised.value, TransientError):
        assert raised.value.retry_after == 3
