"""HTTP in, over real sockets, onto a real bus."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from nats.aio.client import Client

from falco_talon.bus import EmbeddedServer, Stream
from falco_talon.errors import TalonError
from falco_talon.event import Event
from falco_talon.reporting import Reporter
from falco_talon.server import Readiness, Server, listening
from falco_talon.telemetry.metrics import Metrics
from falco_talon.telemetry.tracing import NoTracing

KIB = 1024


class Daemon:
    """The accepting half of the daemon, which stores what names the rule `wanted`."""

    def __init__(self, stream: Stream, **options: Any) -> None:
        self.metrics = Metrics()
        self.faults: dict[str, str] = {"bus": ""}
        self.note = ""
        defaults = {"max_body_bytes": 64 * KIB, "show_events": False, "publish_unmatched": False}
        self.server = Server(
            stream,
            lambda event: event.rule == "wanted",
            Reporter(NoTracing(), self.metrics),
            self.metrics,
            lambda: Readiness(self.faults, {"rules": self.note}),
            **(defaults | options),
        )
        self.port = 0

    def counted(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"falcosecurity_falco_talon_{name}", labels)
        return value or 0


@pytest.fixture
async def daemon(stream: Stream) -> AsyncIterator[Daemon]:
    """Listen on a free port of loopback."""
    daemon = Daemon(stream)
    async with listening(daemon.server.handle, "127.0.0.1", 0) as daemon.port:
        yield daemon


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[aiohttp.ClientSession]:
    """Speak to it."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session:
        yield session


async def stored(connection: Client) -> int:
    return (await connection.jetstream().stream_info("EVENTS")).state.messages


async def test_a_matching_event_is_stored(
    daemon: Daemon, client: aiohttp.ClientSession, connection: Client
) -> None:
    """200 with an empty body, and the event lies in the stream with a trace id."""
    async with client.post("/", json={"rule": "wanted", "output": "a", "source": ""}) as reply:
        assert (reply.status, await reply.read()) == (200, b"")

    message = await connection.jetstream().get_msg("EVENTS", 1)
    assert message.data is not None
    event = Event.from_message(message.data)
    assert (event.rule, event.output, event.source) == ("wanted", "a", "syscall")
    assert len(event.trace_id) == 32
    assert daemon.counted("events_total", event="wanted", priority="", source="syscall") == 1


async def test_the_trace_of_the_sender_goes_on(
    client: aiohttp.ClientSession, connection: Client
) -> None:
    """A W3C `traceparent` gives the trace id; a broken one does not."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    for number, sent in enumerate((f"00-{trace_id}-b7ad6b7169203331-01", "00-xx-yy-01")):
        event = {"rule": "wanted", "output": str(number)}
        async with client.post("/", json=event, headers={"traceparent": sent}) as reply:
            assert reply.status == 200
    first = await connection.jetstream().get_msg("EVENTS", 1)
    second = await connection.jetstream().get_msg("EVENTS", 2)
    assert first.data is not None
    assert second.data is not None
    assert Event.from_message(first.data).trace_id == trace_id
    assert len(Event.from_message(second.data).trace_id) == 32


async def test_a_duplicate_is_fine_and_stored_once(
    client: aiohttp.ClientSession, connection: Client
) -> None:
    """The sender need not know that the event was there already."""
    for _ in range(3):
        async with client.post("/any/path", json={"rule": "wanted", "output": "a"}) as reply:
            assert reply.status == 200
    assert await stored(connection) == 1


async def test_what_no_rule_can_match_is_counted_only(
    daemon: Daemon, client: aiohttp.ClientSession, connection: Client
) -> None:
    """It is answered 200 without touching the bus."""
    async with client.post("/", json={"rule": "other", "output": "a"}) as reply:
        assert reply.status == 200
    assert await stored(connection) == 0
    assert daemon.counted("events_total", event="other", priority="", source="syscall") == 1


async def test_publish_unmatched(stream: Stream, connection: Client) -> None:
    """`publish_unmatched` puts every event on the bus."""
    daemon = Daemon(stream, publish_unmatched=True)
    async with (
        listening(daemon.server.handle, "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/", json={"rule": "other"}) as reply,
    ):
        assert reply.status == 200
    assert await stored(connection) == 1


async def test_print_all_events(stream: Stream, logged: Any) -> None:
    """`print_all_events` logs what matches no rule, hostile text made inert."""
    daemon = Daemon(stream, show_events=True)
    event = {"rule": "other", "output": 'x\n{"level":"fatal"}\x1b[2J', "priority": "Notice"}
    async with (
        listening(daemon.server.handle, "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/", json=event) as reply,
    ):
        assert reply.status == 200
    (line,) = logged(message="event")
    assert (line["event"], line["priority"], line["output"]) == ("other", "Notice", event["output"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "not valid JSON", id="empty"),
        pytest.param(b'{"rule": "x', "not valid JSON", id="truncated"),
        pytest.param(b'{"rule": "\xff"}', "not valid JSON", id="not UTF-8"),
        pytest.param(b"[]", "not a JSON object but an array", id="array"),
        pytest.param(b'{"rule": 1}', "'rule' must be a string", id="wrong type"),
        pytest.param(b'{"x": NaN}', "not valid JSON", id="NaN"),
        pytest.param(b"[" * 60_000, "nested too deeply", id="deep"),
    ],
)
async def test_what_is_no_event_is_refused_with_the_reason(
    daemon: Daemon, client: aiohttp.ClientSession, body: bytes, reason: str
) -> None:
    """400, the reason in the answer, and the daemon serves the next one."""
    async with client.post("/", data=body) as reply:
        text = await reply.text()
        assert reply.status == 400
        assert text.startswith("Please send a valid request body: ")
        assert reason in text
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.content_type == "text/plain"
    async with client.get("/healthz") as reply:
        assert reply.status == 200
    assert daemon.counted("refused_requests_total", code="400") == 1


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/", "POST"),
        ("PUT", "/events", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ],
)
async def test_da_15_the_wrong_method(
    client: aiohttp.ClientSession, method: str, path: str, allow: str
) -> None:
    """405 says which method is right."""
    async with client.request(method, path) as reply:
        assert (reply.status, reply.headers["Allow"]) == (405, allow)


async def test_pages_of_the_operator(daemon: Daemon, client: aiohttp.ClientSession) -> None:
    """Alive, ready with the reason if not, and the counters in Prometheus' format."""
    async with client.get("/healthz") as reply:
        assert (reply.status, await reply.json()) == (200, {"status": "ok"})
    async with client.get("/readyz") as reply:
        assert (reply.status, await reply.json()) == (200, {"status": "ok"})
    daemon.note = "line 3: the rules of yesterday stay in use"
    async with client.get("/readyz") as reply:
        assert (reply.status, await reply.json()) == (200, {"status": "ok", "rules": daemon.note})
    daemon.note, daemon.faults["bus"] = "", "not connected"
    async with client.get("/readyz") as reply:
        assert reply.status == 503
        assert await reply.json() == {"status": "not ready", "bus": "not connected"}
    async with client.post("/", json={"rule": "r", "priority": "Notice"}) as reply:
        assert reply.status == 200
    async with client.get("/metrics") as reply:
        text = await reply.text()
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (
        'falcosecurity_falco_talon_events_total{event="r",priority="Notice",source="syscall"} 1.0'
        in text
    )
    assert 'target_info{service_name="falco-talon"' in text


async def test_a_bus_that_cannot_store(
    nats_server: EmbeddedServer, client: aiohttp.ClientSession, logged: Any
) -> None:
    """503 and `Retry-After`, said once in the log however many events are refused."""
    assert nats_server.pid is not None
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:

        async def send(number: int) -> tuple[int, str]:
            event = {"rule": "wanted", "output": str(number)}
            async with client.post("/", json=event) as reply:
                return reply.status, reply.headers["Retry-After"]

        assert await asyncio.gather(*map(send, range(3))) == [(503, "1")] * 3
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    assert len(logged(message="http", level="error")) == 1


async def test_port_in_use(daemon: Daemon) -> None:
    """One line that names the port and what is wrong."""
    with pytest.raises(TalonError, match=f"cannot listen on 127.0.0.1:{daemon.port}: .*in use"):
        async with listening(daemon.server.handle, "127.0.0.1", daemon.port):
            pass


def post(port: int, head: str, body: bytes, *, seconds: float = 10) -> tuple[bytes, int]:
    """Send head and body as fast as the other side takes them; return answer, bytes sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        connection.setblocking(False)
        view, sent, answer, deadline = memoryview(body), 0, b"", time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                sent += connection.send(view[sent : sent + 65536]) if sent < len(body) else 0
            except BlockingIOError:
                time.sleep(0.001)
            except ConnectionError:
                break
            try:
                part = connection.recv(65536)
            except BlockingIOError:
                continue
            except ConnectionError:
                break
            if not part:
                break
            answer += part
        return answer, sent


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
async def test_a_huge_body_is_refused_unread(daemon: Daemon, chunked: bool) -> None:
    """413 reaches a client that is still sending 50 MB, of which next to nothing is read."""
    body = b"x" * (50 * KIB * KIB)
    head = f"Content-Length: {len(body)}\r\n"
    if chunked:
        head, body = "Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    answer, sent = await asyncio.to_thread(post, daemon.port, head, body)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 65536 bytes" in answer
    # What the kernel's buffers on both sides hold counts as sent: a few MB on loopback.
    assert sent < 12 * KIB * KIB


async def test_a_client_that_sends_all_before_it_reads(daemon: Daemon) -> None:
    """Python's own client sees the 413 of a body a little too large."""

    def send() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
        connection.request("POST", "/", b"x" * (300 * KIB))
        status = connection.getresponse().status
        connection.close()
        return status

    assert await asyncio.to_thread(send) == 413


@pytest.mark.parametrize("size", [64 * KIB, 64 * KIB + 1], ids=["largest", "one too many"])
async def test_the_limit_is_exact(client: aiohttp.ClientSession, size: int) -> None:
    """A body as large as allowed is an event."""
    frame = len(json.dumps({"output": ""}))
    async with client.post("/", data=json.dumps({"output": "x" * (size - frame)})) as reply:
        assert reply.status == (200 if size == 64 * KIB else 413)


async def test_expect_100_continue(daemon: Daemon, connection: Client) -> None:
    """Falco's http_output is libcurl: it waits a second for the go-ahead of larger bodies."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    event = json.dumps({"rule": "wanted", "output": "x" * 3000})
    process = await asyncio.create_subprocess_exec(
        curl, "-sS", "--max-time", "10", "-H", "Expect: 100-continue",
        "-w", "%{http_code} %{time_total}", "-d", event, f"http://127.0.0.1:{daemon.port}/",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    status, seconds = output.split()
    assert status == b"200"
    assert float(seconds) < 0.9
    assert await stored(connection) == 1


async def test_a_body_that_never_comes(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that stops in the middle gets 408 and holds nothing for long."""
    monkeypatch.setattr("falco_talon.server._BODY_TIMEOUT_SECONDS", 0.3)

    answer, _ = await asyncio.to_thread(post, daemon.port, "Content-Length: 100\r\n", b'{"rule":')

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_keep_alive(daemon: Daemon) -> None:
    """One connection carries many events: Falco and Falcosidekick keep theirs open."""
    event = b'{"rule": "other"}'
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(event), event)
    ) * 20
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    writer.write(request)
    seen = b""
    async with asyncio.timeout(10):
        while seen.count(b"HTTP/1.1 200 OK") < 20:
            seen += await reader.read(65536)
    writer.close()
    await writer.wait_closed()
