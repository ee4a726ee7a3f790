"""webhook, against a real server."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.clients import Clients
from falco_talon.errors import PluginError, TransientError
from falco_talon.notifiers.webhook import Webhook
from falco_talon.report import Report
from tests.endpoint import Answer, Endpoint

REPORT = Report(
    objects={"pod": "web", "namespace": "ns"},
    trace_id="0af7",
    rule="rule",
    event="<b>&\n\x00",
    message="action",
    actionner="kubernetes:label",
    action="label",
    status="success",
)


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Clients for HTTP."""
    async with Clients() as clients:
        await clients.ready({"http"})
        yield clients


async def notify(clients: Clients, url: str, **settings: Any) -> None:
    """Send the report."""
    parameters = Webhook.Parameters.model_validate({"url": url, **settings})
    await Webhook(parameters, clients).run(REPORT)


async def test_sent(clients: Clients, endpoint: Endpoint) -> None:
    """The endpoint gets the report's own JSON, with our name and its type."""
    await notify(clients, f"{endpoint.url}/hook?a=b")
    (received,) = endpoint.received
    assert (received.method, received.path) == ("POST", "/hook?a=b")
    assert json.loads(received.body) == REPORT.as_dict()
    assert received.headers["User-Agent"] == "falco-talon"
    assert received.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_settings(clients: Clients, endpoint: Endpoint) -> None:
    """Every setting arrives; headers may be numbers and booleans, as YAML has them."""
    await notify(
        clients,
        endpoint.url,
        http_method="put",
        content_type="application/x-talon",
        user_agent="me",
        custom_headers={"X-Number": 1, "Authorization": "Bearer s3cret"},
    )
    (received,) = endpoint.received
    sent = [
        received.headers[name]
        for name in ("User-Agent", "Content-Type", "X-Number", "Authorization")
    ]
    assert received.method == "PUT"
    assert sent == ["me", "application/x-talon", "1", "Bearer s3cret"]


async def test_get_has_no_body(clients: Clients, endpoint: Endpoint) -> None:
    """A GET tells only that something happened."""
    await notify(clients, endpoint.url, http_method="GET")
    assert (endpoint.received[0].method, endpoint.received[0].body) == ("GET", b"")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_taken(clients: Clients, endpoint: Endpoint, status: int) -> None:
    """These say that it was taken."""
    endpoint.answers = [Answer(status)]
    await notify(clients, endpoint.url)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        pytest.param(Answer(400, b"no\nid"), PluginError, "^bad request: no id$", id="400 (ON-9)"),
        pytest.param(Answer(401), PluginError, "^authentication error$", id="401"),
        pytest.param(Answer(404), PluginError, "^resource not found$", id="404"),
        pytest.param(Answer(307), PluginError, "^307 Temporary Redirect$", id="redirect"),
        pytest.param(Answer(429), TransientError, "^exceeding post rate limit$", id="429"),
        pytest.param(Answer(503), TransientError, "^503 Service Unavailable$", id="503"),
        pytest.param(Answer(fault="reset"), TransientError, "no answer from", id="reset"),
        pytest.param(Answer(fault="garbage"), TransientError, "else than HTTP", id="no HTTP"),
    ],
)
async def test_refusals(
    clients: Clients, endpoint: Endpoint, answer: Answer, error: type[PluginError], text: str
) -> None:
    """What may pass is told apart from what is final; the URL, which may be a secret, is not."""
    endpoint.answers = [answer]
    with pytest.raises(PluginError, match=text) as raised:
        await notify(clients, f"{endpoint.url}/s3cret")
    assert type(raised.value) is error
    assert "s3cret" not in str(raised.value)


async def test_recovery(clients: Clients, endpoint: Endpoint) -> None:
    """After a failure the same session goes on."""
    endpoint.answers = [Answer(500), Answer(fault="reset"), Answer(200)]
    for _ in range(2):
        with pytest.raises(TransientError):
            await notify(clients, endpoint.url)
    await notify(clients, endpoint.url)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        pytest.param({}, "wrong `url` setting", id="none"),
        pytest.param({"url": ""}, "wrong `url` setting", id="empty"),
        pytest.param({"url": None}, "wrong `url` setting", id="null"),
        pytest.param({"url": "xhttp://a"}, "invalid url", id="ON-13"),
        pytest.param({"url": "http://a", "http_method": "P OST"}, "http_method", id="method"),
        pytest.param({"url": "http://a", "user_agent": "a\r\nb"}, "user_agent", id="agent"),
        pytest.param({"url": "http://a", "custom_headers": "a: b"}, "custom_headers", id="headers"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    """Settings that cannot work are refused in the reference's words."""
    with pytest.raises(ValidationError, match=text):
        Webhook.Parameters.model_validate(settings)


def test_settings_are_secret() -> None:
    """Neither the URL nor a header shows."""
    settings = {"url": "http://a/s3cret", "custom_headers": {"Authorization": "s3cret"}}
    assert "s3cret" not in repr(Webhook.Parameters.model_validate(settings))
