"""Spans and counters sent to an OTLP collector. Slow to import (0.3 s): only on demand."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry

from falco_talon import __version__
from falco_talon.config.model import Otel
from falco_talon.telemetry.tracing import Attributes, Span

_METRICS_EVERY_MS = 60_000


class OtlpTracing:
    """Implements ``Tracing`` with the OpenTelemetry SDK; spans go out in batches over gRPC."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("falco-talon", __version__)
        self._propagator = CompositePropagator(
            [TraceContextTextMapPropagator(), W3CBaggagePropagator()]
        )

    @classmethod
    def to_collector(cls, otel: Otel) -> "OtlpTracing":
        """Send the spans where the configuration says."""
        exporter = OTLPSpanExporter(
            endpoint=f"{otel.collector_endpoint}:{otel.collector_port}",
            insecure=otel.collector_use_insecure_grpc,
            timeout=otel.timeout,
        )
        return cls(BatchSpanProcessor(exporter))

    @contextmanager
    def span(
        self,
        name: str,
        *,
        attributes: Attributes | None = None,
        parent: Mapping[str, str] | None = None,
    ) -> Iterator[Span]:
        """Make a span that is sent when it ends."""
        context = None
        if parent is not None:
            context = self._propagator.extract({key.lower(): parent[key] for key in parent})
        with self._tracer.start_as_current_span(name, context, attributes=attributes) as span:
            yield _OtlpSpan(span)

    def headers(self) -> Mapping[str, str]:
        """Return the W3C headers of the current span."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def close(self) -> None:
        """Send what was not sent yet; takes as long as the exporter's time limit at most."""
        self._provider.shutdown()


class _OtlpSpan:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        return format(self._span.get_span_context().trace_id, "032x")

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, text: str, time: datetime | None = None) -> None:
        stamp = int(time.timestamp() * 1e9) if time and time.year > 1 else None
        self._span.add_event(text, timestamp=stamp)

    def succeed(self, text: str) -> None:
        # The API keeps a description of errors only; an event tells the rest.
        self._span.add_event(text)
        self._span.set_status(StatusCode.OK)

    def fail(self, error: str) -> None:
        self._span.set_status(StatusCode.ERROR, error)


class OtlpMetrics:
    """Sends the counters of a Prometheus registry every minute, and once more at the end.

    Their names lack the ``_total`` of the text format; label values are the attributes.
    """

    def __init__(self, registry: CollectorRegistry, reader: MetricReader) -> None:
        self._provider = MeterProvider([reader], resource=_resource(), shutdown_on_exit=False)
        meter = self._provider.get_meter("falco-talon", __version__)
        for metric in registry.collect():
            if metric.type == "counter" and metric.name.startswith("falcosecurity_"):
                observe = partial(_observations, registry, metric.name)
                meter.create_observable_counter(metric.name, [observe], "", metric.documentation)

    @classmethod
    def to_collector(cls, registry: CollectorRegistry, otel: Otel) -> "OtlpMetrics":
        """Send the counters where the configuration says."""
        exporter = OTLPMetricExporter(
            endpoint=f"{otel.collector_endpoint}:{otel.collector_port}",
            insecure=otel.collector_use_insecure_grpc,
            timeout=otel.timeout,
        )
        return cls(registry, PeriodicExportingMetricReader(exporter, _METRICS_EVERY_MS))

    def close(self) -> None:
        """Send the last values; takes as long as the exporter's time limit at most."""
        self._provider.shutdown()


def _observations(
    registry: CollectorRegistry, name: str, _: CallbackOptions
) -> Iterator[Observation]:
    for metric in registry.collect():
        if metric.name == name:
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    yield Observation(sample.value, sample.labels)


def _resource() -> Resource:
    return Resource.create(
        {
            "service.name": "falco-talon",
            "service.version": __version__,
            "service.instance.id": socket.gethostname(),
        }
    )
