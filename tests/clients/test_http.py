"""One HTTP exchange, and what its outcome means."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import ClientSession
from pydantic import TypeAdapter, ValidationError

from falco_talon.clients.http import (
    Headers,
    HttpUrl,
    Reply,
    exchange,
    open_session,
    require_success,
    retry_after,
)
from falco_talon.errors import PluginError, TransientError
from tests.cluster.cluster import Cluster
from tests.endpoint import Answer, Endpoint


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    """The session that plugins share."""
    async with open_session(concurrency=4) as session:
        yield session


async def _get(session: ClientSession, url: str, **options: float) -> Reply:
    return await exchange(
        session,
        "GET",
        url,
        headers={},
        body=None,
        seconds=options.get("seconds", 5),
        limit=int(options.get("limit", 4096)),
    )


async def test_answer(session: ClientSession, endpoint: Endpoint) -> None:
    """The reply has what the server sent."""
    endpoint.answers = [Answer(201, b"made", {"X-Id": "7"})]
    reply = await _get(session, f"{endpoint.url}/a?b=c")
    assert (reply.status, reply.line, reply.body) == (201, "201 Created", b"made")
    assert (reply.headers["x-id"], reply.truncated) == ("7", False)
    assert endpoint.received[0].path == "/a?b=c"
    assert endpoint.received[0].headers["User-Agent"] == "falco-talon"


async def test_connections_are_reused(session: ClientSession, endpoint: Endpoint) -> None:
    """One connection serves one request after the other."""
    for _ in range(5):
        await _get(session, endpoint.url)
    assert (len(endpoint.received), len(endpoint.connections)) == (5, 1)


@pytest.mark.parametrize("size", [0, 10, 11, 1_000_000], ids=str)
async def test_long_answers_are_cut(session: ClientSession, endpoint: Endpoint, size: int) -> None:
    """No more than the limit is kept, and the reply says so."""
    endpoint.answers = [Answer(body=b"x" * size)]
    reply = await _get(session, endpoint.url, limit=10)
    assert (len(reply.body), reply.truncated) == (min(size, 10), size > 10)


async def test_redirects_are_not_followed(session: ClientSession, endpoint: Endpoint) -> None:
    """What is meant for one host does not reach another."""
    endpoint.answers = [Answer(302, headers={"Location": f"{endpoint.url}/elsewhere"})]
    assert (await _get(session, endpoint.url)).status == 302
    assert len(endpoint.received) == 1


async def test_cookies_are_not_kept(session: ClientSession, endpoint: Endpoint) -> None:
    """Nothing of one request shows in the next."""
    endpoint.answers = [Answer(headers={"Set-Cookie": "session=1"})]
    for _ in range(2):
        await _get(session, endpoint.url)
    assert "Cookie" not in endpoint.received[1].headers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(Answer(fault="hang"), r"within 0\.2 s", id="no answer in time"),
        pytest.param(Answer(fault="reset"), r"no answer from '127", id="connection reset"),
        pytest.param(Answer(fault="garbage"), "something else than HTTP", id="not HTTP"),
    ],
)
async def test_faults_are_transient(
    session: ClientSession, endpoint: Endpoint, answer: Answer, text: str
) -> None:
    """No answer is worth another try; the text names the host and nothing else of the URL."""
    endpoint.answers = [answer]
    url = endpoint.url.replace("//", "//user:secret@") + "/secret?token=secret"
    with pytest.raises(TransientError, match=text) as raised:
        await _get(session, url, seconds=0.2)
    assert "secret" not in str(raised.value)


async def test_nothing_listens(session: ClientSession, unused_url: str) -> None:
    """A refused connection is worth another try."""
    with pytest.raises(TransientError, match="no answer from '127"):
        await _get(session, unused_url)


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "[::1%25]"])
async def test_impossible_host(session: ClientSession, host: str) -> None:
    """A host that can have no address is an error of the plugin, whatever the libraries raise."""
    with pytest.raises(PluginError):
        await _get(session, f"http://{host}/")


async def test_distrusted_certificate(session: ClientSession, cluster: Cluster) -> None:
    """A server whose certificate nobody vouches for is a final error."""
    with pytest.raises(PluginError, match="the certificate of .* is not trusted") as raised:
        await _get(session, cluster.server)
    assert type(raised.value) is PluginError


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        *(pytest.param(status, None, "", id=str(status)) for status in (200, 201, 202, 204)),
        pytest.param(400, PluginError, "bad request: no such field", id="400 (ON-9)"),
        pytest.param(401, PluginError, "authentication error", id="401"),
        pytest.param(403, PluginError, "access denied", id="403"),
        pytest.param(404, PluginError, "resource not found", id="404"),
        pytest.param(422, PluginError, "wrong request", id="422"),
        pytest.param(429, TransientError, "exceeding post rate limit", id="429"),
        pytest.param(302, PluginError, "302 Found", id="302"),
        pytest.param(418, PluginError, "418 Found", id="418"),
        pytest.param(503, TransientError, "503 Found", id="503"),
    ],
)
def test_statuses(status: int, error: type[PluginError] | None, text: str) -> None:
    """Each status means what the reference says; 429 and 5xx are worth another try."""
    reply = Reply(status, "Found", {"Retry-After": "7"}, b"no such\nfield")
    if error is None:
        require_success(reply)
        return
    with pytest.raises(PluginError, match=f"^{re.escape(text)}$") as raised:
        require_success(reply)
    assert type(raised.value) is error
    if isinstance(raised.value, TransientError):
        assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("3", 3.0, id="seconds"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="nonsense"),
        pytest.param("-1", None, id="negative"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, id="a date gone by"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 -0000", 0.0, id="a date without a zone"),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """The header is read as a number or a date; nonsense counts as absent."""
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_date() -> None:
    """A date to come is that many seconds away."""
    then = datetime.now(UTC) + timedelta(seconds=60)
    assert retry_after({"Retry-After": format_datetime(then, usegmt=True)}) == pytest.approx(60, 1)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:8443/a/b?c=d%2Fe",
        "HTTP://EXAMPLE.COM/",
        "http://[::1]:8080/",
        "http://user:pass@example.com/",
    ],
)
def test_urls(url: str) -> None:
    """A valid URL stays as it is written."""
    assert TypeAdapter(HttpUrl).validate_python(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "xhttp://example.com",
        "ftp://example.com",
        "http://",
        "http:///path",
        "http://exa mple.com",
        "http://example.com:99999",
        "http://example.com/\r\nX-Header: 1",
        "http://[::1",
    ],
    ids=repr,
)
def test_invalid_urls(url: str) -> None:
    """ON-13: only http and https, with a host, without anything that splits a request."""
    with pytest.raises(ValidationError, match="invalid url"):
        TypeAdapter(HttpUrl).validate_python(url)


def test_header_values_are_text() -> None:
    """Unquoted scalars of YAML are taken for what is written; the values do not show."""
    headers = TypeAdapter(Headers).validate_python({"X-A": 1, "X-B": True, "X-C": "secret"})
    assert [value.get_secret_value() for value in headers.values()] == ["1", "true", "secret"]
    assert "secret" not in repr(headers)


@pytest.mark.parametrize(
    "headers", [{"X A": "1"}, {"": "1"}, {"X-A": "1\r\nX-B: 2"}, {"X-A": "a\0b"}], ids=repr
)
def test_invalid_headers(headers: dict[str, str]) -> None:
    """No header can end its line and begin another."""
    with pytest.raises(ValidationError):
        TypeAdapter(Headers).validate_python(headers)
