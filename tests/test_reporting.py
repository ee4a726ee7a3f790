"""What is said of a step: log line, count, notification."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from falco_talon.errors import CheckError, Ignored, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result
from falco_talon.report import Report
from falco_talon.reporting import Reporter
from falco_talon.telemetry.metrics import Metrics
from falco_talon.telemetry.tracing import NoTracing

Logged = Callable[..., list[dict[str, Any]]]

STEP = Report(
    message="action",
    rule="R",
    event="the output",
    actionner="kubernetes:label",
    action="A",
    trace_id="f" * 32,
)


class Told:
    """A reporter and what it told whom."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reports: list[tuple[Report, Sequence[str]]] = []
        self.reporter = Reporter(
            NoTracing(), self.metrics, lambda report, names: self.reports.append((report, names))
        )

    def count(self, status: str, **objects: str) -> float:
        labels = {
            "rule": "R",
            "event": "Falco rule",
            "actionner": "kubernetes:label",
            "action": "A",
            "status": status,
            "namespace": "",
            "pod": "",
        }
        name = "falcosecurity_falco_talon_actions_total"
        return self.metrics.registry.get_sample_value(name, labels | objects) or 0


@pytest.fixture
def told() -> Told:
    """Remember what is told."""
    return Told()


async def test_a_success(told: Told, logged: Logged) -> None:
    """One line at the begin, one at the end, one count, one report with the objects."""
    async with told.reporter.stage(STEP, ("slack",), falco_rule="Falco rule") as stage:
        stage.begin()
        stage.result = Result("done", {"pod": "p", "namespace": "n"})

    begin, end = logged(message="action")
    assert (begin["status"], begin["level"]) == ("in_progress", "info")
    assert end | {"time": ""} == {
        "level": "info",
        "rule": "R",
        "event": "Falco rule",
        "output": "done",
        "actionner": "kubernetes:label",
        "action": "A",
        "status": "success",
        "trace_id": "f" * 32,
        "pod": "p",
        "namespace": "n",
        "time": "",
        "message": "action",
    }
    assert told.count("success", pod="p", namespace="n") == 1
    ((report, names),) = told.reports
    assert names == ("slack",)
    assert (report.stage, report.status, report.output) == ("action", "success", "done")
    assert report.event == "the output"
    assert report.time.endswith("Z")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(PluginError("no way"), "no way", id="final"),
        pytest.param(CheckError("missing pod name"), "missing pod name", id="check"),
        pytest.param(KeyError("x"), "internal error: KeyError('x')", id="fault of the plugin"),
    ],
)
async def test_ac_06_a_failure(told: Told, logged: Logged, error: Exception, text: str) -> None:
    """Every failure, of a check too, is logged, counted and told, and goes on as one kind."""
    with pytest.raises(PluginError, match=text.replace("(", r"\(").replace(")", r"\)")):
        async with told.reporter.stage(STEP, falco_rule="Falco rule"):
            raise error

    (line,) = logged(message="action")
    assert (line["level"], line["status"], line["error"]) == ("error", "failure", text)
    assert told.count("failure") == 1
    ((report, _),) = told.reports
    assert (report.status, report.error) == ("failure", text)


async def test_ac_02_an_exempt_target(told: Told, logged: Logged) -> None:
    """What is exempt is told as such with its reason, and the rule goes on."""
    async with told.reporter.stage(STEP, falco_rule="Falco rule"):
        raise Ignored("it belongs to a DaemonSet", {"pod": "p", "namespace": "n"})

    (line,) = logged(message="action")
    assert (line["status"], line["result"], line["pod"]) == (
        "ignored",
        "it belongs to a DaemonSet",
        "p",
    )
    assert told.count("ignored", pod="p", namespace="n") == 1
    assert told.reports[0][0].result == "it belongs to a DaemonSet"


async def test_a_step_cut_short_has_no_outcome(told: Told, logged: Logged) -> None:
    """A cancelled step is neither a success nor a failure: it will run again."""
    with pytest.raises(asyncio.CancelledError):
        async with told.reporter.stage(STEP, falco_rule="Falco rule"):
            raise asyncio.CancelledError

    assert logged(message="action") == []
    assert told.reports == []


def test_a_match(told: Told, logged: Logged) -> None:
    """A match is logged with the event's output and counted by rule."""
    event = Event(rule="F", priority="Notice", output="o", trace_id="t")
    told.reporter.matched(event, "R")

    (line,) = logged(message="match")
    assert (line["rule"], line["event"], line["output"]) == ("R", "F", "o")
    labels = {"rule": "R", "event": "F", "priority": "Notice", "source": "syscall"}
    name = "falcosecurity_falco_talon_matches_total"
    assert told.metrics.registry.get_sample_value(name, labels) == 1


def test_da_17_series_are_bounded(told: Told) -> None:
    """Rule names that an attacker makes up do not grow without end."""
    for number in range(5000):
        told.reporter.received(Event(rule=f"rule {number}"), show=False)

    samples = next(
        metric.samples
        for metric in told.metrics.registry.collect()
        if metric.name == "falcosecurity_falco_talon_events"
    )
    totals = [sample for sample in samples if sample.name.endswith("_total")]
    assert len(totals) == 2001
    assert sum(sample.value for sample in totals) == 5000


async def test_progress(told: Told, logged: Logged) -> None:
    """How far an action is stands in the log alone: it is no outcome."""
    async with told.reporter.stage(STEP, ("slack",), falco_rule="Falco rule") as stage:
        stage.tell("2 of 3 pods evicted")
        assert told.reports == []

    line, _ = logged(message="action")
    assert (line["status"], line["output"]) == ("in_progress", "2 of 3 pods evicted")
    assert (line["level"], line["action"], line["trace_id"]) == ("info", "A", "f" * 32)
