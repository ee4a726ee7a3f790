"""The Kubernetes client, against the real API server and against one that fails."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_asyncio.client import Configuration

from falco_talon.clients import Clients
from falco_talon.clients.access import Access
from falco_talon.clients.kubernetes import Conflict, Kubernetes, NotFound, path
from falco_talon.errors import PluginError, TalonError, TransientError
from tests.cluster.cluster import Cluster
from tests.endpoint import Answer, Endpoint


@pytest.fixture
async def kubernetes(cluster: Cluster) -> AsyncIterator[Kubernetes]:
    """A client of the real API server."""
    async with Clients(kubeconfig=cluster.kubeconfig) as clients:
        await clients.ready({"kubernetes"})
        yield clients.kubernetes


@pytest.fixture
async def failing(endpoint: Endpoint) -> AsyncIterator[Kubernetes]:
    """A client of an API server that answers what the test says."""
    client = Kubernetes(Access(Configuration(host=endpoint.url)), seconds=0.3)
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (path("pods", "web-0", namespace="prod"), "/api/v1/namespaces/prod/pods/web-0"),
        (path("nodes", "ip-1.eu.internal"), "/api/v1/nodes/ip-1.eu.internal"),
        (path("events", namespace="prod"), "/api/v1/namespaces/prod/events"),
        (
            path("replicasets", "a", namespace="b", api="apps/v1"),
            "/apis/apps/v1/namespaces/b/replicasets/a",
        ),
        (
            path("pods", "a", namespace="b", subresource="eviction"),
            "/api/v1/namespaces/b/pods/a/eviction",
        ),
        (
            path("clusterroles", "system:node", api="rbac.authorization.k8s.io/v1"),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        ),
    ],
    ids=["pod", "node", "collection", "group", "subresource", "rbac"],
)
def test_paths(built: str, expected: str) -> None:
    """A path is what the API documents."""
    assert built == expected


@pytest.mark.parametrize("resource", ["pods", "nodes", "clusterroles"])
@given(name=st.text() | st.from_regex(r"[./%?#a-z]{1,20}", fullmatch=True))
def test_no_name_leads_elsewhere(resource: str, name: str) -> None:
    """Whatever an event names, the path is that of one object of the kind, or there is none."""
    try:
        built = path(resource, name, namespace="ns")
    except NotFound:
        return
    assert re.fullmatch(f"/api/v1/namespaces/ns/{resource}/[-A-Za-z0-9._:@]+", built)
    assert built.rpartition("/")[2] not in {".", ".."}


@pytest.mark.parametrize("namespace", ["", "a/b", "..", "A", "a.b", "a" * 64, "a\n", "kübe"])
def test_no_namespace_leads_elsewhere(namespace: str) -> None:
    """A namespace is one label of a DNS name."""
    with pytest.raises(NotFound):
        path("pods", "web", namespace=namespace)


async def test_objects_come_and_go(kubernetes: Kubernetes, namespace: str) -> None:
    """An object can be created, read, replaced, patched, listed and deleted."""
    collection = path("configmaps", namespace=namespace)
    item = path("configmaps", "settings", namespace=namespace)
    created = await kubernetes.post(
        collection, {"metadata": {"name": "settings", "labels": {"of": "test"}}, "data": {"a": "1"}}
    )
    assert (await kubernetes.get(item)) == created
    replaced = await kubernetes.put(item, created | {"data": {"a": "2", "b": "é"}})
    assert replaced["data"] == {"a": "2", "b": "é"}
    patched = await kubernetes.patch(item, {"data": {"a": None, "c": "3"}})
    assert patched["data"] == {"b": "é", "c": "3"}
    found = await kubernetes.get(collection, labelSelector="of=test")
    assert [each["metadata"]["name"] for each in found["items"]] == ["settings"]
    assert (await kubernetes.get(collection, labelSelector="of=other"))["items"] == []
    await kubernetes.delete(item)
    with pytest.raises(NotFound, match=r'configmaps "settings" not found \(404 NotFound\)'):
        await kubernetes.get(item)


async def test_conflicts(kubernetes: Kubernetes, namespace: str) -> None:
    """An object that is another, or exists already, is told apart from other refusals."""
    collection = path("configmaps", namespace=namespace)
    await kubernetes.post(collection, {"metadata": {"name": "settings"}})
    with pytest.raises(Conflict, match=r"already exists \(409 AlreadyExists\)"):
        await kubernetes.post(collection, {"metadata": {"name": "settings"}})
    with pytest.raises(Conflict, match=r"\(409 Conflict\)"):
        await kubernetes.delete(
            path("configmaps", "settings", namespace=namespace), {"preconditions": {"uid": "1-2"}}
        )


async def test_invalid_objects(kubernetes: Kubernetes, namespace: str) -> None:
    """A refused object is a final error with the server's sentence."""
    body = {"metadata": {"name": "settings", "labels": {"a b": "c"}}}
    with pytest.raises(PluginError, match=r"Invalid value.*\(422 Invalid\)") as raised:
        await kubernetes.post(path("configmaps", namespace=namespace), body)
    assert type(raised.value) is PluginError


async def test_ac_31_requests_run_at_once(kubernetes: Kubernetes) -> None:
    """Two hundred requests are not held to five a second."""
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            *(kubernetes.get(path("namespaces", "default")) for _ in range(200))
        )
    assert len(answers) == 200


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        pytest.param(
            Answer(429, b"{}", {"Retry-After": "2"}), TransientError, "429 Too Many", id="429"
        ),
        pytest.param(Answer(500, b"oops"), TransientError, "500 Internal", id="500, no JSON"),
        pytest.param(
            Answer(503, b'{"message":"a\\nb","reason":"ServiceUnavailable"}'),
            TransientError,
            r"^a b \(503 ServiceUnavailable\)$",
            id="503",
        ),
        pytest.param(Answer(403, b"[]"), PluginError, "403 Forbidden", id="403, no object"),
        pytest.param(Answer(302, b"", {"Location": "/x"}), PluginError, "302 Found", id="redirect"),
        pytest.param(Answer(200, b"<html>"), PluginError, "else than a JSON object", id="HTML"),
        pytest.param(Answer(fault="hang"), TransientError, "did not answer in time", id="hang"),
        pytest.param(Answer(fault="reset"), TransientError, "cannot be reached", id="reset"),
        pytest.param(Answer(fault="garbage"), TransientError, "cannot be reached", id="no HTTP"),
    ],
)
async def test_ac_14_faults(
    failing: Kubernetes, endpoint: Endpoint, answer: Answer, error: type[PluginError], text: str
) -> None:
    """Each fault is what it is, and only those that may pass are worth another try."""
    endpoint.answers = [answer]
    with pytest.raises(PluginError, match=text) as raised:
        await failing.patch(path("nodes", "n"), {})
    assert type(raised.value) is error
    if isinstance(raised.value, TransientError) and answer.status == 429:
        assert raised.value.retry_after == 2


async def test_nothing_listens(unused_url: str) -> None:
    """An API server that is away may come back."""
    client = Kubernetes(Access(Configuration(host=unused_url)))
    with pytest.raises(TransientError, match="the Kubernetes API cannot be reached"):
        await client.get("/version")
    await client.close()


async def test_distrusted_certificate(cluster: Cluster) -> None:
    """An API server that is not the one we know is a final error, and gets no token."""
    client = Kubernetes(Access(Configuration(host=cluster.server)))
    with pytest.raises(PluginError, match="is not trusted") as raised:
        await client.get("/version")
    assert type(raised.value) is PluginError
    await client.close()


class _Rotating:
    """Credentials that have just been replaced."""

    async def __call__(self, configuration: Configuration, *, refused: bool) -> bool:
        if refused:
            configuration.api_key["BearerToken"] = "Bearer new"
        return False


async def test_refused_token(endpoint: Endpoint) -> None:
    """A refused token is renewed once, and the request repeated with the new one."""
    configuration = Configuration(host=endpoint.url, api_key={"BearerToken": "Bearer old"})
    client = Kubernetes(Access(configuration, _Rotating()))
    endpoint.answers = [Answer(401), Answer(200, b"{}"), Answer(401)]
    assert await client.get("/version") == {}
    with pytest.raises(PluginError, match="401 Unauthorized"):
        await client.get("/version")
    await client.close()
    sent = [each.headers["Authorization"].removeprefix("Bearer ") for each in endpoint.received]
    assert sent == ["old", "new", "new", "new"]


class _Broken:
    """Credentials that cannot be had."""

    async def __call__(self, configuration: Configuration, *, refused: bool) -> bool:
        raise TalonError("the exec plugin ended with 1")


async def test_no_credentials(endpoint: Endpoint) -> None:
    """Without credentials nothing is sent."""
    client = Kubernetes(Access(Configuration(host=endpoint.url), _Broken()))
    with pytest.raises(PluginError, match="no credentials .* the exec plugin ended with 1"):
        await client.get("/version")
    await client.close()
    assert endpoint.received == []


async def test_read_is_bounded(kubernetes: Kubernetes) -> None:
    """An answer that is no JSON is read as far as asked for, and it shows that it goes on."""
    assert await kubernetes.read("/readyz", 100) == (b"ok", False)
    assert await kubernetes.read("/readyz", 1) == (b"o", True)
    with pytest.raises(NotFound):
        await kubernetes.read("/absent", 1)


async def test_watch(kubernetes: Kubernetes, namespace: str) -> None:
    """A watch tells the changes since the list, as they come."""
    collection = path("configmaps", namespace=namespace)
    version = (await kubernetes.get(collection))["metadata"]["resourceVersion"]
    async with (
        asyncio.timeout(10),
        aclosing(kubernetes.watch(collection, resourceVersion=version)) as changes,
    ):
        await kubernetes.post(collection, {"metadata": {"name": "settings"}})
        change = await anext(changes)
    assert (change["type"], change["object"]["metadata"]["name"]) == ("ADDED", "settings")


async def test_watch_from_the_past(kubernetes: Kubernetes, namespace: str) -> None:
    """A watch that begins too far back is worth another try, with a new list (410)."""
    collection = path("configmaps", namespace=namespace)
    async with (
        asyncio.timeout(10),
        aclosing(kubernetes.watch(collection, resourceVersion="1")) as changes,
    ):
        with pytest.raises(TransientError, match="too old resource version"):
            await anext(changes)
