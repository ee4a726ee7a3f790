"""Delivery in the background."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import Field, SecretStr

from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.config import Config
from falco_talon.errors import ConfigError, PluginError, TransientError
from falco_talon.notifications import Notifications, bind_notifiers
from falco_talon.plugin import BaseParameters, Notifier
from falco_talon.report import Report
from falco_talon.reporting import Reporter
from falco_talon.rules.binding import BoundRules
from falco_talon.rules.match import Matcher
from falco_talon.telemetry.metrics import Metrics
from falco_talon.telemetry.tracing import NoTracing

Logged = Callable[..., list[dict[str, Any]]]


class Recorder(Notifier):
    """Records what it is sent, once its gate is open."""

    name = "recorder"

    class Parameters(BaseParameters):
        token: SecretStr = Field(description="secret")
        retries: int = Field(3, ge=1, description="number")

    def __init__(self, parameters: Any, clients: Clients) -> None:
        super().__init__(parameters, clients)
        self.sent: list[Report] = []
        self.faults: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, report: Report) -> None:
        await self.gate.wait()
        if self.faults:
            raise self.faults.pop(0)
        self.sent.append(report)


class Other(Recorder):
    """Another one."""

    name = "other"


CATALOG = Catalog({}, {}, {"recorder": Recorder, "other": Other}, {})
SETTINGS = {"token": "s3cret"}


def bound(names: list[str], settings: dict[str, dict[str, Any]]) -> dict[str, Notifier]:
    config = Config.model_validate({"default_notifiers": names, "notifiers": settings})
    return bind_notifiers(config, BoundRules([], Matcher([])), CATALOG, Clients())


def recorder(name: str = "recorder") -> Recorder:
    notifier = bound([name], {name: SETTINGS})[name]
    assert isinstance(notifier, Recorder)
    return notifier


@asynccontextmanager
async def running(*notifiers: Recorder, default: tuple[str, ...] = ()) -> AsyncIterator[Any]:
    metrics = Metrics()
    async with asyncio.TaskGroup() as tasks:
        reporter = Reporter(NoTracing(), metrics)
        notifications = Notifications(
            tasks,
            {notifier.name: notifier for notifier in notifiers},
            default,
            reporter.stage,
            reporter.dropped,
        )
        yield notifications, metrics
        await notifications.close(1)


def count(metrics: Metrics, status: str, notifier: str = "recorder") -> float:
    labels = {"notifier": notifier, "status": status, "rule": "R"}
    labels |= {"actionner": "", "action": "", "target": ""}
    name = "falcosecurity_falco_talon_notifications_total"
    return metrics.registry.get_sample_value(name, labels) or 0


REPORT = Report(message="action", rule="R", stage="action", output="done", status="success")


async def test_default_and_named_notifiers_each_once(logged: Logged) -> None:
    """The rule's notifiers are added to the default ones; each gets the report once."""
    first, second = recorder(), recorder("other")
    async with running(first, second, default=("Recorder",)) as (notifications, metrics):
        notifications.send(REPORT, ["recorder", "other", "unknown"])

    assert [report.notifier for report in first.sent + second.sent] == ["recorder", "other"]
    assert first.sent[0].output == "done"
    assert count(metrics, "success") == 1
    line = logged(message="notification", notifier="recorder")[0]
    assert (line["status"], line["stage"], line["rule"]) == ("success", "action", "R")
    assert "output" not in line


async def test_a_transient_fault_is_tried_again() -> None:
    """A notifier that was away for a moment still gets the report."""
    notifier = recorder()
    notifier.faults = [TransientError("503"), TransientError("503", retry_after=0.01)]
    async with running(notifier) as (notifications, metrics):
        notifications.send(REPORT, ["recorder"])
    assert len(notifier.sent) == 1
    assert count(metrics, "success") == 1


@pytest.mark.parametrize("fault", [PluginError("401"), RuntimeError("bug")], ids=repr)
async def test_on_07_a_failure_is_logged_and_counted(logged: Logged, fault: Exception) -> None:
    """A failed delivery counts as a failed notification, and the next one is made (ON-6)."""
    notifier = recorder()
    notifier.faults = [fault]
    async with running(notifier) as (notifications, metrics):
        notifications.send(REPORT, ["recorder"])
        notifications.send(REPORT, ["recorder"])
    assert (count(metrics, "failure"), count(metrics, "success")) == (1, 1)
    failed, succeeded = logged(message="notification")
    assert failed["status"] == "failure"
    assert "error" not in succeeded


async def test_a_slow_notifier_delays_nobody(logged: Logged) -> None:
    """Sending returns at once; others get theirs; a full queue drops its oldest, said once."""
    slow, quick = recorder(), recorder("other")
    slow.gate.clear()
    async with running(slow, quick) as (notifications, metrics):
        for number in range(1100):
            report = Report(message="action", rule="R", output=str(number))
            notifications.send(report, ["recorder"])
        notifications.send(REPORT, ["other"])
        async with asyncio.timeout(5):
            while not quick.sent:
                await asyncio.sleep(0.01)
        slow.gate.set()
    assert len(slow.sent) + count(metrics, "dropped") == 1100
    assert 1000 <= len(slow.sent) <= 1001
    assert slow.sent[-1].output == "1099"
    assert len(logged(message="notification", level="warning")) <= 1
    assert len([line for line in logged() if "queue is full" in line.get("error", "")]) == 1


async def test_on_08_what_is_queued_is_flushed_within_the_grace(logged: Logged) -> None:
    """Closing delivers what it can and says what it could not."""
    notifier = recorder()
    notifier.gate.clear()
    async with running(notifier) as (notifications, _):
        notifications.send(REPORT, ["recorder"])
        notifications.send(REPORT, ["recorder"])
        await notifications.close(0.1)
    assert notifier.sent == []
    assert any("could not be delivered" in line.get("error", "") for line in logged())


async def test_new_notifiers_of_a_reload() -> None:
    """A reload may bring a notifier, or another make of one that is there."""
    old, new, other = recorder(), recorder(), recorder("other")
    async with running(old) as (notifications, _):
        notifications.update({"recorder": new, "other": other})
        notifications.send(REPORT, ["recorder", "other"])
    assert (len(old.sent), len(new.sent), len(other.sent)) == (0, 1, 1)


def test_on_10_names_in_any_case() -> None:
    """A notifier is found whatever the case of its name."""
    assert list(bound(["Recorder"], {"recorder": SETTINGS})) == ["recorder"]


def test_every_fault_of_the_settings_is_named_without_values() -> None:
    """Unknown names and wrong settings come in one error, which shows no secret."""
    settings = {"token": ["s3cret"], "retries": "0"}

    with pytest.raises(ConfigError) as caught:
        bound(["recorder", "slak"], {"recorder": settings})

    text = str(caught.value)
    assert "unknown notifier 'slak', known are: recorder, other" in text
    assert "notifiers.recorder.token: " in text
    assert "notifiers.recorder.retries: Input should be greater than or equal to 1" in text
    assert "s3cret" not in text
