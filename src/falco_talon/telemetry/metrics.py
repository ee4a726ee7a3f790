"""The counters of the daemon, with the reference's names and a bounded number of label sets."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from falco_talon import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "falcosecurity_falco_talon_"
_MAX_SERIES = 2000
_REST = "other"


class BoundedCounter:
    """A counter whose label values come from events: past a bound they are counted as ``other``.

    An attacker who invents rule names or pods can fill neither our memory nor Prometheus.
    """

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], registry: CollectorRegistry
    ) -> None:
        self._labels = labels
        self._counter = Counter(_PREFIX + name, text, labels, registry=registry)
        self._children: dict[tuple[str, ...], Counter] = {}

    def count(self, *values: str) -> None:
        """Add one for these label values, in the order of the labels."""
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= _MAX_SERIES:
                values = (_REST,) * len(self._labels)
            child = self._children[values] = self._counter.labels(*values)
        child.inc()


class Metrics:
    """What ``/metrics`` shows. Labels are fixed; those of an action name its pod and namespace."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.events = self._counter(
            "events_total", "number of received events", ("event", "priority", "source")
        )
        self.matches = self._counter(
            "matches_total",
            "number of matched events",
            ("rule", "event", "priority", "source"),
        )
        self.actions = self._counter(
            "actions_total",
            "number of actions",
            ("rule", "event", "actionner", "action", "status", "namespace", "pod"),
        )
        self.notifications = self._counter(
            "notifications_total",
            "number of notifications",
            ("rule", "notifier", "actionner", "action", "status", "target"),
        )
        self.outputs = self._counter(
            "outputs_total",
            "number of outputs",
            ("rule", "category", "action", "status", "target"),
        )
        self.refused = self._counter(
            "refused_requests_total", "number of requests that were not accepted", ("code",)
        )
        self.rule_reloads = self._counter(
            "rule_reloads_total", "number of reloads of the rule files", ("status",)
        )
        info = Info("target", "Target metadata", registry=self.registry)
        info.info({"service_name": "falco-talon", "service_version": __version__})

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> BoundedCounter:
        return BoundedCounter(name, text, labels, self.registry)

    def with_process(self) -> "Metrics":
        """Add the collectors of the Python process (memory, file handles, garbage)."""
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        return self

    def exposition(self) -> bytes:
        """Render everything in Prometheus' text format."""
        return generate_latest(self.registry)
