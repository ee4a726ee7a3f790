"""Event → rules → actions. Different targets at the same time, one target in arrival order."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from falco_talon.bus import Progress
from falco_talon.errors import PluginError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, Output
from falco_talon.report import Report
from falco_talon.reporting import Reporter
from falco_talon.retry import retrying, time_limit
from falco_talon.rules.binding import BoundAction, BoundRule, BoundRules

Target = tuple[str, str]
_MAX_TEXT_BYTES = 16 * 1024


class Engine:
    """Works on the events that it is handed. ``rules`` may be swapped at any time, as a whole."""

    def __init__(
        self,
        rules: BoundRules,
        reporter: Reporter,
        *,
        concurrency: int,
        action_timeout_seconds: float,
    ) -> None:
        self.rules = rules
        self._reporter = reporter
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout_seconds = action_timeout_seconds
        self._turns: WeakValueDictionary[Target, asyncio.Lock] = WeakValueDictionary()
        self._stopping = False

    def stop(self) -> None:
        """Begin with no more events: those that wait for their turn are handed back."""
        self._stopping = True

    async def handle(self, event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        """Run the actions of every rule that matches, when it is the turn of the event's target.

        Those that are done according to *progress* are passed over. The next event of the target
        begins when it is certain that this one never comes again.

        :returns: false if the event was not begun, because the engine stops.
        """
        rules = self.rules
        matching = rules.matching(event)
        if not matching:
            return True
        async with self._turn(event.target, progress):
            if self._stopping:
                return False
            if not await progress.begin():
                return True
            for rule in matching:
                await self._run_rule(rule, event, headers, progress)
                if not rule.continue_:
                    break
            await progress.end()
        return True

    @asynccontextmanager
    async def _turn(self, target: Target, progress: Progress) -> AsyncIterator[None]:
        """Wait until no earlier event of the target is under way, here or in another daemon.

        Then wait for a free slot.

        In this order, so that events that wait for a busy target take no slot from others.
        """
        turn = self._turns.get(target)
        if turn is None:  # no one holds or awaits it, or it would still be there
            turn = self._turns[target] = asyncio.Lock()
        async with turn, progress.alone_with(target), self._slots:
            yield

    async def _run_rule(
        self, rule: BoundRule, event: Event, headers: Mapping[str, str], progress: Progress
    ) -> None:
        """Run the rule's actions in order, until one fails or says not to continue."""
        with self._reporter.tracing.span("match", parent=headers) as span:
            span.set({"rule.name": rule.name, "rule.description": rule.description})
            span.set({"event.rule": event.rule, "event.source": event.source})
            span.set({"event.output": event.output, "event.trace_id": event.trace_id})
            self._reporter.matched(event, rule.name)
            for index, action in enumerate(rule.actions):
                status = progress.status(rule.name, index)
                if status is None:
                    status = await self._attempt(rule, action, event, progress)
                    progress.finished(rule.name, index, status)
                if status == "failure" and not action.ignore_errors:
                    span.fail("an action failed")
                    return
                if not action.continue_:
                    break
            span.succeed("match detected")

    async def _attempt(
        self, rule: BoundRule, action: BoundAction, event: Event, progress: Progress
    ) -> str:
        """Run one action and return its status.

        What came before it is safe first, so that an interruption repeats this action at most. A
        dry run has no effect that could not be repeated: it is spared that.
        """
        if not rule.dry_run:
            await progress.save()
        try:
            await self._run_action(rule, action, event, progress.attempt)
        except PluginError:  # its stage has reported it
            return "failure"
        return "success"

    async def _run_action(
        self, rule: BoundRule, action: BoundAction, event: Event, attempt: int
    ) -> None:
        """Run one action, then store what it brought back.

        :raises PluginError: if either failed.
        """
        report = Report(
            message="action",
            rule=rule.name,
            event=event.output,
            priority=event.priority,
            source=event.source,
            actionner=action.actionner.name,
            action=action.name,
            trace_id=event.trace_id,
            attempt=attempt if attempt > 1 else 0,
        )
        if rule.dry_run:
            self._reporter.dry_run(report)
            return
        artifact: Artifact | None = None
        async with (
            self._reporter.stage(report, rule.notifiers, falco_rule=event.rule) as stage,
            time_limit(self._limit_of(action)),
        ):
            event = event.with_context(await self._context(rule, action, event))
            await retrying(action.actionner.check, event)
            stage.begin()
            result = await retrying(action.actionner.work, event, stage.tell)
            artifact = result.artifact
            if artifact is not None and action.output is None:
                result = replace(result, text=_as_text(artifact))
            stage.result = result
        if action.output is not None:
            await self._store(rule, action, action.output, report, artifact, event.rule)

    def _limit_of(self, action: BoundAction) -> float:
        """Return what the rules say, else the default on top of what the action itself lasts."""
        return action.timeout_seconds or (self._timeout_seconds + action.actionner.duration_seconds)

    async def _store(
        self,
        rule: BoundRule,
        action: BoundAction,
        output: Output,
        report: Report,
        artifact: Artifact | None,
        falco_rule: str,
    ) -> None:
        """Store the artifact.

        :raises PluginError: if that failed, or an actionner that always makes one made none.
        """
        if artifact is None and action.actionner.artifact != "always":
            return
        objects = artifact.objects if artifact is not None else {}
        report = msgspec.structs.replace(
            report,
            message="output",
            category=output.category(),
            output_target=output.name,
            objects=objects,
        )
        async with (
            self._reporter.stage(report, rule.notifiers, falco_rule=falco_rule) as stage,
            time_limit(action.timeout_seconds or self._timeout_seconds),
        ):
            if artifact is None:
                raise PluginError("empty output")
            await retrying(output.check)
            stage.begin()
            result = await retrying(output.run, artifact)
            stage.result = replace(result, objects={**objects, **result.objects})

    async def _context(self, rule: BoundRule, action: BoundAction, event: Event) -> dict[str, Any]:
        """Return what the action may know beside the event: itself, and the contexts it asks for.

        :raises PluginError: if a context cannot be had.
        """
        context = talon_context(rule, action)
        for source in action.contexts:
            with self._reporter.tracing.span("context", attributes={"context.source": source.name}):
                try:
                    context |= await retrying(source.fetch, event)
                except PluginError as error:
                    raise PluginError(f"the context '{source.name}' failed: {error}") from error
        return context


def talon_context(rule: BoundRule, action: BoundAction) -> dict[str, Any]:
    """Return the ``falco-talon.*`` elements: what runs and why. Secret parameters stay hidden.

    The reference's program and its published pages name some of them differently: both are there.
    """
    parameters = action.actionner.parameters.model_dump_json(exclude_unset=True)
    published = (
        {"falco-talon.rule.dryrun": rule.flags["dry_run"]} if "dry_run" in rule.flags else {}
    )
    return {
        **published,
        "falco-talon.rule.action": action.name,
        "falco-talon.rule.actionner": action.actionner.name,
        "falco-talon.rule": rule.name,
        **{f"falco-talon.rule.{key}": text for key, text in rule.flags.items()},
        "falco-talon.action": action.name,
        "falco-talon.actionner": action.actionner.name,
        **{f"falco-talon.action.{key}": text for key, text in action.flags.items()},
        "falco-talon.action.parameters": parameters,
    }


def _as_text(artifact: Artifact) -> str:
    """Return what the artifact holds as text, since nobody stores it (so are logs printed)."""
    text = artifact.data[:_MAX_TEXT_BYTES].decode(errors="replace")
    cut = len(artifact.data) - _MAX_TEXT_BYTES
    return f"{text}… ({cut} more bytes)" if cut > 0 else text
