"""Spans, received by a real OTLP collector over gRPC."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tests.daemon import Daemon
from tests.endpoint import Endpoint

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.port = 0
        self.metrics = MetricsCollector()
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        for group in request.resource_spans:
            attributes = group.resource.attributes
            self.resources.append({item.key: item.value.string_value for item in attributes})
            for scope in group.scope_spans:
                self.spans += scope.spans
        return ExportTraceServiceResponse()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


class MetricsCollector(MetricsServiceServicer):
    """Keeps the counters that it is sent."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[dict[str, str], float]]] = {}

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        for group in request.resource_metrics:
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    self.points[metric.name] = [
                        ({a.key: a.value.string_value for a in point.attributes}, point.as_double)
                        for point in metric.sum.data_points
                    ]
        return ExportMetricsServiceResponse()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Listen on loopback."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    add_MetricsServiceServicer_to_server(collector.metrics, server)  # type: ignore[no-untyped-call]
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector
    server.stop(0).wait()


RULES = """
- rule: Call
  match: {{rules: [Shell]}}
  actions:
    - {{action: First, actionner: "http:request", parameters: {{url: "{url}"}}}}
    - {{action: Second, actionner: "http:request", parameters: {{url: "{url}/x", body: "x"}}}}
  notifiers: [webhook]
"""


async def test_one_trace_from_the_request_to_the_notification(
    daemon: Daemon, endpoint: Endpoint, collector: Collector, in_thread: Callable[..., Any]
) -> None:
    """Every step is a span of the sender's trace, below the step that led to it."""
    daemon.write(
        RULES.format(url=endpoint.url),
        otel={
            "traces_enabled": True,
            "collector_endpoint": "127.0.0.1",
            "collector_port": collector.port,
            "collector_use_insecure_grpc": True,
            "timeout": 2,
        },
        notifiers={"webhook": {"url": endpoint.url}},
    )
    await in_thread(daemon.start)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    event = {"rule": "Shell", "output": "o", "priority": "Notice", "tags": ["a"]}
    assert await in_thread(daemon.post, event, headers) == 200
    await in_thread(daemon.wait_for_lines, 2, message="notification", status="success")
    assert await in_thread(daemon.stop) == 0

    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    (received,), (match,) = collector.named("event"), collector.named("match")
    actions, notifications = collector.named("action"), collector.named("notification")
    assert received.parent_span_id.hex() == PARENT
    assert match.parent_span_id == received.span_id
    assert [span.parent_span_id for span in actions] == [match.span_id] * 2
    assert {span.parent_span_id for span in notifications} == {span.span_id for span in actions}
    facts = {item.key: item.value.string_value for item in actions[0].attributes}
    assert facts["action.name"] == "First"
    assert facts["actionner.name"] == "http:request"
    assert collector.resources[0]["service.name"] == "falco-talon"
    assert daemon.lines(message="match")[0]["trace_id"] == TRACE


async def test_the_counters(
    daemon: Daemon, endpoint: Endpoint, collector: Collector, in_thread: Callable[..., Any]
) -> None:
    """The collector gets what /metrics shows, at the latest when the daemon ends."""
    daemon.write(
        RULES.format(url=endpoint.url),
        otel={
            "metrics_enabled": True,
            "collector_endpoint": "127.0.0.1",
            "collector_port": collector.port,
            "collector_use_insecure_grpc": True,
        },
        notifiers={"webhook": {"url": endpoint.url}},
    )
    await in_thread(daemon.start)
    await in_thread(daemon.post, {"rule": "Shell", "output": "o", "priority": "Notice"})
    await in_thread(daemon.wait_for_lines, 2, message="action", status="success")
    assert await in_thread(daemon.stop) == 0

    labels = {"event": "Shell", "priority": "Notice", "source": "syscall"}
    assert collector.metrics.points["falcosecurity_falco_talon_events"] == [(labels, 1.0)]
    assert len(collector.metrics.points["falcosecurity_falco_talon_actions"]) == 2
    assert collector.spans == []


async def test_a_collector_that_is_away(
    daemon: Daemon, endpoint: Endpoint, in_thread: Callable[..., Any]
) -> None:
    """DA-19: without a collector everything but the spans goes on."""
    daemon.write(
        RULES.format(url=endpoint.url).replace("notifiers: [webhook]", ""),
        otel={"traces_enabled": True, "collector_endpoint": "127.0.0.1", "collector_port": 1,
              "collector_use_insecure_grpc": True, "timeout": 1},
    )  # fmt: skip
    await in_thread(daemon.start)
    assert await in_thread(daemon.post, {"rule": "Shell", "output": "o"}) == 200
    await in_thread(daemon.wait_for_lines, 2, message="action", status="success")
    assert await in_thread(daemon.stop) == 0
