"""HTTP in: events by POST, and what operators ask for: health, readiness, metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import msgspec
import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11

from falco_talon.bus import Stream
from falco_talon.errors import BusUnavailableError, InvalidEventError, TalonError
from falco_talon.event import Event
from falco_talon.reporting import Reporter
from falco_talon.telemetry.metrics import CONTENT_TYPE, Metrics

log = structlog.get_logger()

_BODY_TIMEOUT_SECONDS = 10.0
_DRAIN_SECONDS = 2.0
_SHUTDOWN_SECONDS = 5.0
_DRAIN_BYTES = 512 * 1024
_LOG_EVERY_SECONDS = 60.0
_NO_TIMEOUT: AbstractAsyncContextManager[None] = nullcontext()
_PLAIN = {"X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is not as it should be, by part; empty texts are fine.

    ``faults`` keep events away; ``notes`` (rules that could not be reloaded) are only told: the
    daemon goes on with what it has.
    """

    faults: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)


class Server:
    """Answers requests. 200 to an event: it is on disk, a known duplicate, or no rule can match."""

    def __init__(
        self,
        stream: Stream,
        can_match: Callable[[Event], bool],
        reporter: Reporter,
        metrics: Metrics,
        readiness: Callable[[], Readiness],
        *,
        max_body_bytes: int,
        show_events: bool,
        publish_unmatched: bool,
    ) -> None:
        self._stream = stream
        self._can_match = can_match
        self._reporter = reporter
        self._metrics = metrics
        self._readiness = readiness
        self._max_body_bytes = max_body_bytes
        self._show_events = show_events
        self._publish_unmatched = publish_unmatched
        self._last_refusal_logged = float("-inf")
        self._pages: dict[str, Callable[[], web.Response]] = {
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": self._exposition,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        page = self._pages.get(request.path)
        if page is not None:
            if request.method in {"GET", "HEAD"}:
                return page()
            return self._refuse(405, "Please send with GET http method", {"Allow": "GET, HEAD"})
        if request.method != "POST":
            return self._refuse(405, "Please send with POST http method", {"Allow": "POST"})
        if (request.content_length or 0) > self._max_body_bytes:
            return await self._too_large(request)
        if "Expect" in request.headers and request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            here = request.content.is_eof()  # it came with its head, as most do: no clock needed
            async with _NO_TIMEOUT if here else asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                body = await self._read(request)
        except TimeoutError:
            return self._refuse(408, "The body did not arrive in time", {"Connection": "close"})
        if body is None:
            return await self._too_large(request)
        return await self._accept(request, body)

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """Read the body; none if it is larger than allowed."""
        content = request.content
        chunks: list[bytes] = []
        left = self._max_body_bytes
        while not content.at_eof():
            chunk = await content.readany()
            chunks.append(chunk)
            left -= len(chunk)
            if left < 0:
                return None
        return b"".join(chunks)

    async def _accept(self, request: web.BaseRequest, body: bytes) -> web.Response:
        tracing = self._reporter.tracing
        with tracing.span("event", parent=request.headers) as span:
            try:
                event = Event.from_body(body)
            except InvalidEventError as error:
                span.fail(str(error))
                return self._refuse(400, f"Please send a valid request body: {error}")
            wanted = self._publish_unmatched or self._can_match(event)
            if wanted or self._show_events:
                event = event.with_trace_id(span.trace_id)
            self._reporter.received(event, show=self._show_events)
            if not wanted:
                return web.Response()
            try:
                await self._stream.publish(event, tracing.headers())
            except BusUnavailableError as error:
                span.fail(str(error))
                self._log_refusal(error)
                return self._refuse(503, f"Please send again: {error}", {"Retry-After": "1"})
            span.succeed("event received")
        return web.Response()

    def _log_refusal(self, error: Exception) -> None:
        """Say once a minute that events are refused: a flood of lines would not help."""
        now = asyncio.get_running_loop().time()
        if now - self._last_refusal_logged >= _LOG_EVERY_SECONDS:
            self._last_refusal_logged = now
            log.error("http", error=f"refusing events with 503: {error}")

    def _refuse(
        self, status: int, text: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        self._metrics.refused.count(str(status))
        response = web.Response(status=status, text=text + "\n", headers=_PLAIN | (headers or {}))
        if status == 408:
            response.force_close()
        return response

    async def _too_large(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer 413 without taking the rest of the body.

        The answer goes out at once. A little more is read after it, so that a client that sends
        before it reads has a chance to see it: closing on unread data would reset the connection.
        """
        response = self._refuse(413, f"The body is larger than {self._max_body_bytes} bytes")
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        drained = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while drained < _DRAIN_BYTES and not request.content.at_eof():
                    drained += len(await request.content.readany())
        except (TimeoutError, ConnectionError):
            pass
        return response

    def _health(self) -> web.Response:
        return web.json_response({"status": "ok"})

    def _ready(self) -> web.Response:
        readiness = self._readiness()
        faults = {part: fault for part, fault in readiness.faults.items() if fault}
        notes = {part: note for part, note in readiness.notes.items() if note}
        body = msgspec.json.encode({"status": "not ready" if faults else "ok", **faults, **notes})
        status = 503 if faults else 200
        return web.Response(status=status, body=body, content_type="application/json")

    def _exposition(self) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


@asynccontextmanager
async def listening(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], address: str, port: int
) -> AsyncIterator[int]:
    """Serve *handle* on *address* until the body ends; gives the port (of use when it was 0).

    :raises TalonError: if the address or port cannot be had.
    """
    # The low-level server: no routing, no middleware, 15 % more events a second. It never
    # lingers, because Server reads what has to be read.
    runner = web.ServerRunner(
        web.Server(
            handle, access_log=None, logger=logging.getLogger("aiohttp.server"), lingering_time=0
        ),
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port, backlog=1024)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise TalonError(f"cannot listen on {address}:{port}: {_os_text(error)}") from None
        sockets = runner.addresses
        yield sockets[0][1] if sockets else port
    finally:
        await runner.cleanup()


def _os_text(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.rpartition(": ")[2] or text
