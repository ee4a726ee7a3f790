"""http:request, against a real server."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.http.request import Request
from falco_talon.clients import Clients
from falco_talon.errors import PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, Result
from tests.endpoint import Answer, Endpoint

EVENT = Event(
    trace_id="0af7",
    output="Shell in a container",
    rule="Terminal shell",
    output_fields={"fd.name": "/../?x=y#z\r\nX: 1", "proc.pid": 2**64, "evt.arg": None},
    context={
        "falco-talon.rule": "rule",
        "falco-talon.action.parameters": '{"headers":{"Authorization":"s3cret"}}',
    },
)


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Clients for HTTP."""
    async with Clients() as clients:
        await clients.ready({"http"})
        yield clients


async def run(clients: Clients, url: str, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Request(Request.Parameters.model_validate({"url": url, **parameters}), clients)
    await plugin.check(EVENT)
    return await plugin.run(EVENT)


async def test_event_is_the_body(clients: Clients, endpoint: Endpoint) -> None:
    """The endpoint gets the whole event, but not our own parameters, and the URL as written."""
    result = await run(clients, f"{endpoint.url}/hook?a=%2F")
    (received,) = endpoint.received
    assert (received.method, received.path) == ("POST", "/hook?a=%2F")
    assert received.headers["Content-Type"] == "application/json"
    sent = json.loads(received.body)
    assert sent["context"] == {"falco-talon.rule": "rule"}
    assert sent | {"context": EVENT.context} == json.loads(EVENT.to_json())
    where = endpoint.url.removeprefix("http://")
    assert result == Result(f"'{where}' answered 200 OK", {"host": where})


@pytest.mark.parametrize(
    ("parameters", "body", "content_type"),
    [
        pytest.param({"body": {"a": [1, "é"]}}, '{"a":[1,"é"]}', "application/json", id="mapping"),
        pytest.param({"body": []}, "[]", "application/json", id="empty list"),
        pytest.param({"body": "é $X"}, "é $X", "text/plain; charset=utf-8", id="text"),
        pytest.param({"method": "put", "body": ""}, "", "text/plain; charset=utf-8", id="nothing"),
        pytest.param({"method": "GET"}, "", None, id="GET"),
        pytest.param({"method": "DELETE"}, "", None, id="DELETE"),
        pytest.param(
            {"body": "<a/>", "headers": {"content-type": "text/xml"}}, "<a/>", "text/xml", id="own"
        ),
    ],
)
async def test_bodies(
    clients: Clients,
    endpoint: Endpoint,
    parameters: dict[str, Any],
    body: str,
    content_type: str | None,
) -> None:
    """A body of the rule goes out as it is, with the type that fits unless the rule says one."""
    await run(clients, endpoint.url, **parameters)
    (received,) = endpoint.received
    assert received.method == parameters.get("method", "POST").upper()
    assert received.body.decode() == body
    headers = {name.lower(): value for name, value in received.headers.items()}
    if content_type:
        assert headers["content-type"] == content_type
    else:
        assert "content-type" not in headers


async def test_headers_are_secret(clients: Clients, endpoint: Endpoint) -> None:
    """Headers arrive, and show nowhere: neither in the parameters nor in an error."""
    given = {"url": f"{endpoint.url}/s3cret", "headers": {"Authorization": "Bearer s3cret"}}
    endpoint.answers = [Answer(401)]
    with pytest.raises(PluginError, match="answered 401 Unauthorized, expected 200") as raised:
        await run(clients, given["url"], headers=given["headers"])  # type: ignore[arg-type]
    assert endpoint.received[0].headers["Authorization"] == "Bearer s3cret"
    shown = f"{raised.value!r} {Request.Parameters.model_validate(given)!r}"
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        pytest.param("application/json; charset=utf-8", "reply.json", id="JSON"),
        pytest.param("application/problem+json", "reply.json", id="kind of JSON"),
        pytest.param("text/html", "reply.txt", id="text"),
        pytest.param("../../etc/passwd", "reply.bin", id="nonsense"),
    ],
)
async def test_reply_is_the_artifact(
    clients: Clients, endpoint: Endpoint, content_type: str, name: str
) -> None:
    """What the endpoint answers can be stored, byte by byte, under a name of ours."""
    endpoint.answers = [Answer(202, b"\x00\xff{}", {"Content-Type": content_type})]
    result = await run(clients, endpoint.url)
    assert result.artifact == Artifact(name, b"\x00\xff{}", result.objects)


async def test_long_replies_are_cut(clients: Clients, endpoint: Endpoint) -> None:
    """No more of a reply is kept than asked for, and the result says so."""
    endpoint.answers = [Answer(200, b"x" * 1_000_000)]
    result = await run(clients, endpoint.url, max_reply_bytes=1000)
    assert result.text.endswith("answered 200 OK (reply truncated to 1000 bytes)")
    assert result.artifact
    assert len(result.artifact.data) == 1000


@pytest.mark.parametrize(
    ("status", "expected", "error"),
    [
        (201, None, None),
        (302, None, PluginError),
        (302, [302], None),
        (404, None, PluginError),
        (404, [200, 404], None),
        (200, [201], PluginError),
        (429, None, TransientError),
        (500, None, TransientError),
        (503, [503], None),
    ],
)
async def test_statuses(
    clients: Clients,
    endpoint: Endpoint,
    status: int,
    expected: list[int] | None,
    error: type[PluginError] | None,
) -> None:
    """The rule says which statuses are success; of the others 429 and 5xx may pass."""
    endpoint.answers = [Answer(status, headers={"Location": "/x", "Retry-After": "3"})]
    parameters = {"expected_status": expected} if expected else {}
    if error is None:
        assert f"answered {status}" in (await run(clients, endpoint.url, **parameters)).text
        return
    with pytest.raises(PluginError, match=f"answered {status} .*, expected 20") as raised:
        await run(clients, endpoint.url, **parameters)
    assert type(raised.value) is error
    if isinstance(raised.value, TransientError):
        assert raised.value.retry_after == 3


@pytest.mark.parametrize("fault", ["reset", "garbage"])
async def test_faults(clients: Clients, endpoint: Endpoint, fault: Any) -> None:
    """A lost connection is worth another try."""
    endpoint.answers = [Answer(fault=fault)]
    with pytest.raises(TransientError):
        await run(clients, endpoint.url, timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("method", "error"), [("POST", PluginError), ("PUT", PluginError), ("get", TransientError)]
)
async def test_no_answer_in_time(
    clients: Clients, endpoint: Endpoint, method: str, error: type[PluginError]
) -> None:
    """What has been sent may have been done: only what reads is sent again."""
    endpoint.answers = [Answer(fault="hang")]
    with pytest.raises(PluginError, match=r"no answer from '.*' within 0\.2 s") as raised:
        await run(clients, endpoint.url, method=method, timeout_seconds=0.2)
    assert type(raised.value) is error


async def test_nothing_listens(clients: Clients, unused_url: str) -> None:
    """A refused connection is worth another try."""
    with pytest.raises(TransientError):
        await run(clients, unused_url)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"url": "ftp://example.com"},
        {"url": "${FD_NAME}"},
        {"url": "http://a", "method": "BREW"},
        {"url": "http://a", "timeout_seconds": 0},
        {"url": "http://a", "timeout_seconds": "nan"},
        {"url": "http://a", "expected_status": []},
        {"url": "http://a", "headers": {"A B": "c"}},
        {"url": "http://a", "headers": {"A": "s3cret\r\nB: c"}},
        {"url": "http://a", "max_reply_bytes": -1},
    ],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any]) -> None:
    """What could never be sent stops the load of the rules, and shows no secret."""
    with pytest.raises(ValidationError) as raised:
        Request.Parameters.model_validate(parameters)
    assert "s3cret" not in str(raised.value)
