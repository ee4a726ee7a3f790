"""Tells people in the background: never in the way of an action, retried, bounded, flushed."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, copy_context

import msgspec
import structlog
from pydantic import ValidationError

from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.config import Config
from falco_talon.errors import ConfigError, PluginError
from falco_talon.plugin import Notifier
from falco_talon.report import Report
from falco_talon.retry import retrying, time_limit
from falco_talon.rules.binding import BoundRules

log = structlog.get_logger()

_QUEUE_SIZE = 1000
_DELIVERY_SECONDS = 30.0

StageFunction = Callable[[Report], AbstractAsyncContextManager[object]]


def bind_notifiers(
    config: Config, rules: BoundRules, catalog: Catalog, clients: Clients
) -> dict[str, Notifier]:
    """Make the notifiers that rules or configuration name, with their settings.

    :raises ConfigError: naming every notifier that is unknown, and every setting that is wrong.
    """
    names = [*config.default_notifiers, *(name for rule in rules.rules for name in rule.notifiers)]
    notifiers: dict[str, Notifier] = {}
    faults: list[str] = []
    for name in dict.fromkeys(name.lower() for name in names):
        notifier = catalog.notifiers.get(name)
        if notifier is None:
            faults.append(f"unknown notifier '{name}', known are: {', '.join(catalog.notifiers)}")
            continue
        given = {
            key: value for key, value in config.notifiers.get(name, {}).items() if value is not None
        }
        try:
            notifiers[name] = notifier(notifier.Parameters.model_validate(given), clients)
        except ValidationError as error:
            faults += [
                f"{'.'.join(map(str, ('notifiers', name, *fault['loc'])))}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
    if faults:
        raise ConfigError("; ".join(faults))
    return notifiers


class Notifications:
    """A queue and a worker for each notifier; a full queue drops its oldest report."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        notifiers: Mapping[str, Notifier],
        default: Sequence[str],
        stage: StageFunction,
        dropped: Callable[[Report, str], None] = lambda report, notifier: None,
    ) -> None:
        self._tasks = tasks
        self._default = tuple(name.lower() for name in default)
        self._stage = stage
        self._dropped = dropped
        self._lanes: dict[str, _Lane] = {}
        self.update(notifiers)

    def update(self, notifiers: Mapping[str, Notifier]) -> None:
        """Use these notifiers from now on; what waits for a known name goes to its new one."""
        for name, notifier in notifiers.items():
            if lane := self._lanes.get(name):
                lane.notifier = notifier
            else:
                lane = self._lanes[name] = _Lane(notifier)
                self._tasks.create_task(self._deliver(name, lane), name=f"notifier {name}")

    def send(self, report: Report, names: Sequence[str]) -> None:
        """Queue *report* for the default notifiers and those of *names*; returns at once."""
        for name in dict.fromkeys((*self._default, *names)):
            lane = self._lanes.get(name)
            if lane is None:
                continue
            self._make_room(name, lane)
            lane.waiting.append((report, copy_context()))
            lane.idle.clear()
            lane.wake.set()

    def _make_room(self, name: str, lane: "_Lane") -> None:
        """Drop the oldest report if the queue is full; say so when that begins."""
        full = len(lane.waiting) == _QUEUE_SIZE
        if full:
            self._dropped(lane.waiting.popleft()[0], name)
            if not lane.dropping:
                log.warning(
                    "notification", notifier=name, error="the queue is full, dropping the oldest"
                )
        lane.dropping = full

    async def close(self, grace_seconds: float) -> None:
        """Deliver what is queued, for *grace_seconds* at most, then stop the workers."""
        try:
            async with asyncio.timeout(grace_seconds):
                for lane in self._lanes.values():
                    await lane.idle.wait()
        except TimeoutError:
            left = sum(len(lane.waiting) for lane in self._lanes.values())
            log.warning("notification", error=f"{left} notification(s) could not be delivered")
        for lane in self._lanes.values():
            lane.closed = True
            lane.wake.set()
            if lane.task is not None:
                lane.task.cancel()

    async def _deliver(self, name: str, lane: "_Lane") -> None:
        lane.task = asyncio.current_task()
        while not lane.closed:
            if not lane.waiting:
                lane.idle.set()
                lane.wake.clear()
                await lane.wake.wait()
                continue
            report, context = lane.waiting.popleft()
            record = msgspec.structs.replace(report, notifier=name)
            # In the context of the step that it tells of: there is its span.
            await self._tasks.create_task(self._attempt(lane.notifier, record), context=context)

    async def _attempt(self, notifier: Notifier, record: Report) -> None:
        with suppress(PluginError):  # its stage has reported it
            async with self._stage(_line(record)), time_limit(_DELIVERY_SECONDS):
                await retrying(notifier.run, record)


class _Lane:
    """What waits for one notifier."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self.waiting: deque[tuple[Report, Context]] = deque()
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.dropping = False
        self.closed = False
        self.task: asyncio.Task[None] | None = None


def _line(record: Report) -> Report:
    """Return what the log says of the delivery: which report it was, not all of its text."""
    return Report(
        message="notification",
        rule=record.rule,
        notifier=record.notifier,
        stage=record.stage,
        actionner=record.actionner,
        output_target=record.output_target,
        action=record.action,
        trace_id=record.trace_id,
    )
