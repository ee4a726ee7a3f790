"""What is said of every step: one span, log line, count and notification, in one place."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from falco_talon.errors import Ignored, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result, Tell
from falco_talon.report import Report, Status
from falco_talon.telemetry.metrics import Metrics
from falco_talon.telemetry.tracing import Span, Tracing

log = structlog.get_logger()

Notify = Callable[[Report, Sequence[str]], None]


@dataclass(slots=True)
class Stage:
    """One step while it lasts; its ``result`` is what the step sets when it is done."""

    span: Span
    result: Result = field(default_factory=lambda: Result(""))
    begin: Callable[[], None] = lambda: None
    """Says that the checks have passed and the work begins."""
    tell: Tell = lambda text: None
    """Says how far the work is."""


class Reporter:
    """Tells the log, the metrics, the trace and the notifiers about each step."""

    def __init__(self, tracing: Tracing, metrics: Metrics, notify: Notify | None = None) -> None:
        self.tracing = tracing
        self._metrics = metrics
        self._notify = notify

    def received(self, event: Event, *, show: bool) -> None:
        """An event came in; *show* writes it to the log, whether or not a rule will match."""
        self._metrics.events.count(event.rule, event.priority, event.source)
        if show:
            log.info("event", **_event_fields(event))

    def matched(self, event: Event, rule: str) -> None:
        """A rule matches the event."""
        self._metrics.matches.count(rule, event.rule, event.priority, event.source)
        log.info("match", rule=rule, **_event_fields(event))

    def dry_run(self, report: Report) -> None:
        """An action was not run, as its rule asks."""
        log.info("action", **_fields(report), output="no action, dry-run is enabled")

    def dropped(self, report: Report, notifier: str) -> None:
        """A notification was dropped, unsent, because its queue was full."""
        r = report
        self._metrics.notifications.count(
            r.rule, notifier, r.actionner, r.action, "dropped", r.output_target
        )

    @asynccontextmanager
    async def stage(
        self, report: Report, notifiers: Sequence[str] = (), *, falco_rule: str = ""
    ) -> AsyncIterator[Stage]:
        """Report the step done in the body: its outcome, by what the body sets or raises.

        A ``PluginError`` is reported and goes on to the caller. An ``Ignored`` is reported as
        such and swallowed: the target is exempt, and that is no fault. Any other exception is a
        fault of the plugin: it is reported with its type and becomes a ``PluginError``. A
        cancelled step is not reported: it has no outcome.
        """
        with self.tracing.span(report.message, attributes=_attributes(report)) as span:
            stage = Stage(
                span,
                begin=lambda: self._under_way(report, falco_rule),
                tell=lambda text: self._under_way(report, falco_rule, text),
            )
            try:
                yield stage
            except Ignored as ignored:
                result = Result(str(ignored), ignored.objects)
                self._done(stage, report, "ignored", result, notifiers, falco_rule)
            except PluginError as error:
                self._failed(stage, report, str(error) or repr(error), notifiers, falco_rule)
                raise
            except Exception as error:
                text = f"internal error: {error!r}"
                log.debug("internal error", exc_info=True)
                self._failed(stage, report, text, notifiers, falco_rule)
                raise PluginError(text) from error
            else:
                self._done(stage, report, "success", stage.result, notifiers, falco_rule)

    def _under_way(self, report: Report, falco_rule: str, text: str = "") -> None:
        report = msgspec.structs.replace(report, status="in_progress", output=text)
        log.info(report.message, **_fields(report, falco_rule))

    def _done(
        self,
        stage: Stage,
        report: Report,
        status: Status,
        result: Result,
        notifiers: Sequence[str],
        falco_rule: str,
    ) -> None:
        text = {"result": result.text} if status == "ignored" else {"output": result.text}
        objects = dict(result.objects) or report.objects
        report = msgspec.structs.replace(report, status=status, objects=objects, **text)
        stage.span.set({f"object.{key}": value for key, value in objects.items()})
        stage.span.succeed(result.text)
        log.info(report.message, **_fields(report, falco_rule))
        self._tell(report, notifiers, falco_rule)

    def _failed(
        self, stage: Stage, report: Report, error: str, notifiers: Sequence[str], falco_rule: str
    ) -> None:
        report = msgspec.structs.replace(report, status="failure", error=error)
        stage.span.fail(error)
        log.error(report.message, **_fields(report, falco_rule))
        self._tell(report, notifiers, falco_rule)

    def _tell(self, report: Report, notifiers: Sequence[str], falco_rule: str) -> None:
        self._count(report, falco_rule)
        if self._notify is not None:
            time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            stage = report.message
            self._notify(msgspec.structs.replace(report, time=time, stage=stage), notifiers)

    def _count(self, report: Report, falco_rule: str) -> None:
        metrics, r = self._metrics, report
        match r.message:
            case "action":
                where = r.objects.get("namespace", ""), r.objects.get("pod", "")
                metrics.actions.count(r.rule, falco_rule, r.actionner, r.action, r.status, *where)
            case "output":
                metrics.outputs.count(r.rule, r.category, r.action, r.status, r.output_target)
            case "notification":
                metrics.notifications.count(
                    r.rule, r.notifier, r.actionner, r.action, r.status, r.output_target
                )


def _event_fields(event: Event) -> Mapping[str, str]:
    return {
        "event": event.rule,
        "priority": event.priority,
        "source": event.source,
        "output": event.output,
        "trace_id": event.trace_id,
    }


def _fields(report: Report, falco_rule: str = "") -> dict[str, Any]:
    """Return what a log line says. ``event`` is the Falco rule's name there, in every line."""
    fields = report.as_dict()
    del fields["message"]
    for said_by_the_match in ("event", "priority", "source"):
        fields.pop(said_by_the_match, None)
    fields.update(fields.pop("objects", {}))
    if falco_rule:
        fields["event"] = falco_rule
    return fields


def _attributes(report: Report) -> dict[str, str]:
    """Return what a span says, with the reference's names."""
    names = {
        "rule": "rule.name",
        "action": "action.name",
        "actionner": "actionner.name",
        "output_target": "output.target",
        "category": "output.category",
        "notifier": "notifier.name",
    }
    values = ((name, getattr(report, key)) for key, name in names.items())
    return {name: value for name, value in values if value}
