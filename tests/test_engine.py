"""Event → rules → actions."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falco_talon.bus import Progress
from falco_talon.clients import Clients
from falco_talon.engine import Engine
from falco_talon.errors import CheckError, Ignored, PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Actionner, Artifact, BaseParameters, Context, Output, Result, Tell
from falco_talon.report import Report
from falco_talon.reporting import Reporter
from falco_talon.rules.binding import BoundAction, BoundRule, BoundRules
from falco_talon.rules.match import Matcher
from falco_talon.telemetry.metrics import Metrics
from falco_talon.telemetry.tracing import NoTracing

Logged = Callable[..., list[dict[str, Any]]]


class Step(Actionner):
    """Records its runs; behaves as the test says."""

    name = "test:step"

    def __init__(self, journal: list[str], label: str, **behaviour: Any) -> None:
        super().__init__(BaseParameters(), Clients())
        self.journal = journal
        self.label = label
        self.faults: list[Exception] = behaviour.pop("faults", [])
        self.check_fault: Exception | None = behaviour.pop("check_fault", None)
        self.seconds: float = behaviour.pop("seconds", 0)
        self.result: Artifact | None = behaviour.pop("result", None)
        self.events: list[Event] = []
        assert not behaviour

    async def check(self, event: Event) -> None:
        if self.check_fault:
            raise self.check_fault

    async def run(self, event: Event) -> Result:
        self.events.append(event)
        self.journal.append(f"{self.label}>")
        await asyncio.sleep(self.seconds)
        if self.faults:
            raise self.faults.pop(0)
        self.journal.append(f"{self.label}<")
        return Result(f"{self.label} done", {"pod": "p"}, self.result)


class Fetching(Step):
    """Always brings something back."""

    name = "test:fetching"
    artifact = "always"


class Shelf(Output):
    """Keeps artifacts in memory."""

    name = "test:shelf"

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__(BaseParameters(), Clients())
        self.fault = fault
        self.kept: list[Artifact] = []

    async def check(self) -> None:
        if self.fault:
            raise self.fault

    async def run(self, artifact: Artifact) -> Result:
        self.kept.append(artifact)
        return Result("stored", {"file": artifact.name})


class Weather(Context):
    """Knows the weather, unless it does not."""

    name = "weather"

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__(Clients())
        self.fault = fault

    async def fetch(self, event: Event) -> dict[str, str]:
        if self.fault:
            raise self.fault
        return {"weather.sky": f"over {event.hostname}"}


class Everything(Matcher):
    """Every rule matches: what matches is tested elsewhere."""

    def __init__(self, number: int) -> None:
        self.number = number

    def matching(self, event: Event) -> list[int]:
        return list(range(self.number))

    def any(self, event: Event) -> bool:
        return self.number > 0


class Run:
    """An engine on rules, and what it told."""

    def __init__(self, *rules: BoundRule, concurrency: int = 32, timeout: float = 5) -> None:
        self.reports: list[tuple[Report, Sequence[str]]] = []
        self.metrics = Metrics()
        reporter = Reporter(NoTracing(), self.metrics, lambda *told: self.reports.append(told))
        self.engine = Engine(
            BoundRules(rules, Everything(len(rules))),
            reporter,
            concurrency=concurrency,
            action_timeout_seconds=timeout,
        )

    async def __call__(self, event: Event | None = None, progress: Progress | None = None) -> bool:
        event = event or Event(rule="F", output="o", hostname="h")
        return await self.engine.handle(event, {}, progress or Progress())

    @property
    def statuses(self) -> list[tuple[str, str, str]]:
        return [(report.message, report.action, report.status) for report, _ in self.reports]


def action(actionner: Actionner, name: str = "A", **options: Any) -> BoundAction:
    return BoundAction(name, "", actionner, **({"continue_": True} | options))


def rule(*actions: BoundAction, name: str = "R", **options: Any) -> BoundRule:
    return BoundRule(name, "", actions, **options)


@pytest.fixture
def journal() -> list[str]:
    """Remember the order of things."""
    return []


async def test_actions_run_in_order_and_are_told(journal: list[str]) -> None:
    """Each action begins when the one before it has ended; notifiers hear of each."""
    run = Run(
        rule(action(Step(journal, "a"), "A"), action(Step(journal, "b"), "B"), notifiers=("n",))
    )

    assert await run()

    assert journal == ["a>", "a<", "b>", "b<"]
    assert run.statuses == [("action", "A", "success"), ("action", "B", "success")]
    assert run.reports[0][1] == ("n",)
    assert run.reports[0][0].objects == {"pod": "p"}


@pytest.mark.parametrize(
    ("options", "fault", "expected"),
    [
        pytest.param({}, None, ["a", "b"], id="success goes on"),
        pytest.param({"continue_": False}, None, ["a"], id="continue false stops"),
        pytest.param({}, PluginError("x"), ["a"], id="failure stops"),
        pytest.param({"ignore_errors": True}, PluginError("x"), ["a", "b"], id="ignored failure"),
        pytest.param(
            {"ignore_errors": True, "continue_": False}, PluginError("x"), ["a"], id="both"
        ),
        pytest.param({}, Ignored("exempt"), ["a", "b"], id="exempt goes on"),
        pytest.param({}, ValueError("bug"), ["a"], id="fault of the plugin"),
    ],
)
async def test_what_runs_after_an_action(
    journal: list[str], options: dict[str, Any], fault: Exception | None, expected: list[str]
) -> None:
    """`continue` and `ignore_errors` decide, as the rules say."""
    first = Step(journal, "a", faults=[fault] if fault else [])
    run = Run(rule(action(first, "A", **options), action(Step(journal, "b"), "B")))

    assert await run()

    assert [entry[0] for entry in journal if entry.endswith(">")] == expected


@pytest.mark.parametrize("fault", [None, PluginError("x")], ids=["success", "failure"])
async def test_a_rule_that_stops_the_next(journal: list[str], fault: Exception | None) -> None:
    """`continue: false` of a rule holds whatever became of its actions."""
    first = Step(journal, "a", faults=[fault] if fault else [])
    run = Run(
        rule(action(first), name="1", continue_=True),
        rule(action(Step(journal, "b")), name="2", continue_=False),
        rule(action(Step(journal, "c")), name="3"),
    )

    await run()

    assert [entry for entry in journal if entry.endswith(">")] == ["a>", "b>"]


async def test_dry_run(journal: list[str], logged: Logged) -> None:
    """Nothing is run, checked, counted or told; the log says what would be."""
    step = Step(journal, "a", check_fault=CheckError("x"))
    run = Run(rule(action(step, "A"), action(step, "B", continue_=False), action(step, "C"),
                   dry_run=True))  # fmt: skip

    await run()

    lines = logged(message="action")
    assert [line["action"] for line in lines] == ["A", "B"]
    assert {line["output"] for line in lines} == {"no action, dry-run is enabled"}
    assert "status" not in lines[0]
    assert journal == []
    assert run.reports == []


async def test_ac_06_a_failed_check(journal: list[str]) -> None:
    """The action is not run, and its failure is told."""
    run = Run(rule(action(Step(journal, "a", check_fault=CheckError("missing pod name")))))

    await run()

    assert journal == []
    ((report, _),) = run.reports
    assert (report.status, report.error) == ("failure", "missing pod name")


async def test_a_transient_fault_is_tried_again(journal: list[str]) -> None:
    """What passes by itself is no failure."""
    step = Step(journal, "a", faults=[TransientError("429", retry_after=0.01)] * 2)
    run = Run(rule(action(step)))

    await run()

    assert journal == ["a>", "a>", "a>", "a<"]
    assert run.statuses == [("action", "A", "success")]


async def test_a_final_fault_is_not(journal: list[str]) -> None:
    """403 stays 403."""
    run = Run(rule(action(Step(journal, "a", faults=[PluginError("403 Forbidden")]))))

    await run()

    assert journal == ["a>"]


async def test_ac_12_an_action_that_hangs(journal: list[str]) -> None:
    """It is cancelled after its time, as a failure that says so."""
    run = Run(rule(action(Step(journal, "a", seconds=60))), timeout=0.05)

    await run()

    assert run.reports[0][0].error == "timed out after 0.05 s"


async def test_the_timeout_of_the_rule_beats_the_default(journal: list[str]) -> None:
    """It is the whole time, longer or shorter, whatever the action lasts by itself."""
    slow = Step(journal, "a", seconds=0.3)
    lasting = Lasting(journal, "b", seconds=60)
    patient = action(slow, "A", timeout_seconds=5)
    hasty = action(lasting, "B", timeout_seconds=0.05)
    run = Run(rule(patient, hasty), timeout=0.1)

    await run()

    assert run.statuses == [("action", "A", "success"), ("action", "B", "failure")]
    assert run.reports[1][0].error == "timed out after 0.05 s"


async def test_the_timeout_is_that_of_the_output_as_well(journal: list[str]) -> None:
    """What is brought back must be stored in that time, too."""

    class Stuck(Shelf):
        """Never done."""

        name = "test:stuck"

        async def run(self, artifact: Artifact) -> Result:
            await asyncio.sleep(60)
            return Result("")

    first = action(Step(journal, "a", result=ARTIFACT), output=Stuck(), timeout_seconds=0.05)
    run = Run(rule(first))

    await run()

    assert run.statuses == [("action", "A", "success"), ("output", "A", "failure")]
    assert run.reports[1][0].error == "timed out after 0.05 s"


ARTIFACT = Artifact("log", b"line 1\nline 2 \xff", {"pod": "p", "namespace": "n"})


async def test_an_artifact_is_stored(journal: list[str]) -> None:
    """The output gets what the actionner brought, and its report names where that came from."""
    shelf = Shelf()
    run = Run(rule(action(Fetching(journal, "a", result=ARTIFACT), output=shelf), notifiers=("n",)))

    await run()

    assert shelf.kept == [ARTIFACT]
    assert run.statuses == [("action", "A", "success"), ("output", "A", "success")]
    report, names = run.reports[1]
    assert report.output_target == "test:shelf"
    assert (report.category, report.rule, report.actionner) == ("test", "R", "test:fetching")
    assert report.objects == {"pod": "p", "namespace": "n", "file": "log"}
    assert names == ("n",)


async def test_without_an_output_the_artifact_is_the_text(journal: list[str]) -> None:
    """This is how logs are printed."""
    run = Run(rule(action(Step(journal, "a", result=ARTIFACT))))

    await run()

    assert run.reports[0][0].output == "line 1\nline 2 \ufffd"


@pytest.mark.parametrize("ignore", [False, True], ids=["stops", "ignored"])
async def test_a_failed_output_fails_the_action(journal: list[str], ignore: bool) -> None:
    """What could not be stored counts as a failed action (ON-15: the check is always made)."""
    shelf = Shelf(CheckError("no folder"))
    first = action(Step(journal, "a", result=ARTIFACT), output=shelf, ignore_errors=ignore)
    run = Run(rule(first, action(Step(journal, "b"), "B")))

    await run()

    assert shelf.kept == []
    assert run.statuses[1] == ("output", "A", "failure")
    assert ("b>" in journal) == ignore


async def test_nothing_to_store(journal: list[str]) -> None:
    """An actionner that must bring something and does not has failed."""
    run = Run(rule(action(Fetching(journal, "a"), output=Shelf())))

    await run()

    assert run.reports[1][0].error == "empty output"


async def test_the_context_of_an_action(journal: list[str]) -> None:
    """The action knows its rule, itself and what its contexts say; other events do not."""
    step = Step(journal, "a")
    bound = action(step, contexts=(Weather(),), flags={"ignore_errors": "true"})
    run = Run(rule(bound, flags={"continue": "false", "dry_run": "false"}))

    await run()

    assert step.events[0].context == {
        "falco-talon.rule": "R",
        "falco-talon.rule.continue": "false",
        "falco-talon.rule.dry_run": "false",
        "falco-talon.rule.dryrun": "false",
        "falco-talon.rule.action": "A",
        "falco-talon.rule.actionner": "test:step",
        "falco-talon.action": "A",
        "falco-talon.actionner": "test:step",
        "falco-talon.action.ignore_errors": "true",
        "falco-talon.action.parameters": "{}",
        "weather.sky": "over h",
    }
    assert json.loads(step.events[0].to_json())["context"]["weather.sky"] == "over h"


async def test_ac_35_without_its_context_an_action_fails(journal: list[str]) -> None:
    """It does not run half blind."""
    run = Run(rule(action(Step(journal, "a"), contexts=(Weather(PluginError("no IMDS")),))))

    await run()

    assert journal == []
    assert run.reports[0][0].error == "the context 'weather' failed: no IMDS"


def pod_event(pod: str, number: int = 0) -> Event:
    return Event(output=str(number), output_fields={"k8s.pod.name": pod, "k8s.ns.name": "n"})


async def test_da_05_different_targets_at_the_same_time(journal: list[str]) -> None:
    """A slow action on one pod delays no other pod."""
    run = Run(rule(action(Step(journal, "a", seconds=0.2))))
    begin = asyncio.get_running_loop().time()

    await asyncio.gather(*(run(pod_event(f"pod-{number}")) for number in range(20)))

    assert asyncio.get_running_loop().time() - begin < 1
    assert journal[:20] == ["a>"] * 20


async def test_no_more_than_the_bound_at_once(journal: list[str]) -> None:
    """`engine.concurrency` bounds what runs."""
    run = Run(rule(action(Step(journal, "a", seconds=0.01))), concurrency=3)

    await asyncio.gather(*(run(pod_event(f"pod-{number}")) for number in range(20)))

    running = most = 0
    for entry in journal:
        running += 1 if entry.endswith(">") else -1
        most = max(most, running)
    assert most == 3


async def test_a_busy_target_takes_no_slots(journal: list[str]) -> None:
    """Events that wait for their turn leave the slots to other targets."""
    run = Run(rule(action(Step(journal, "a", seconds=0.3))), concurrency=2)
    busy = [asyncio.ensure_future(run(pod_event("busy"))) for _ in range(5)]  # noqa: TID251
    await asyncio.sleep(0.05)

    async with asyncio.timeout(0.4):
        await run(pod_event("other"))

    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=20), st.integers(1, 4))
def test_one_target_in_arrival_order(pods: list[str], concurrency: int) -> None:
    """Whatever the mix, each pod sees its events one after the other, as they came."""
    step = Step([], "a", seconds=0.001)

    async def main() -> None:
        run = Run(rule(action(step)), concurrency=concurrency)
        await asyncio.gather(*(run(pod_event(pod, n)) for n, pod in enumerate(pods)))

    asyncio.run(main())

    for pod in set(pods):
        numbers = [int(event.output) for event in step.events if event.pod == pod]
        assert numbers == sorted(numbers)
        assert len(numbers) == pods.count(pod)


async def test_a_stopping_engine_begins_nothing(journal: list[str]) -> None:
    """What waits for its turn is handed back; what runs ends."""
    run = Run(rule(action(Step(journal, "a", seconds=0.1))))
    first = asyncio.ensure_future(run(pod_event("p")))  # noqa: TID251
    second = asyncio.ensure_future(run(pod_event("p")))  # noqa: TID251
    await asyncio.sleep(0.02)

    run.engine.stop()

    assert (await first, await second) == (True, False)
    assert journal == ["a>", "a<"]


async def test_rules_are_swapped_as_a_whole(journal: list[str]) -> None:
    """An event goes on with the rules that it matched when it came."""
    run = Run(rule(action(Step(journal, "old"))))
    busy = asyncio.ensure_future(run(pod_event("p")))  # noqa: TID251
    await asyncio.sleep(0)

    run.engine.rules = BoundRules([rule(action(Step(journal, "new")))], Everything(1))
    await busy
    await run(pod_event("p"))

    assert journal == ["old>", "old<", "new>", "new<"]


async def test_an_interrupted_event_goes_on_after_what_is_done(journal: list[str]) -> None:
    """Actions that are done are passed over, with `continue` and `ignore_errors` as ever."""
    first, second, third = (Step(journal, label) for label in "abc")
    one = rule(
        action(first, "A", ignore_errors=True), action(second, "B"), action(third, "C"), name="1"
    )
    two = rule(action(Step(journal, "d"), "D"), name="2")
    run = Run(one, two)
    done = {"1/0": "failure", "1/1": "failure"}

    await run(progress=Progress(done, attempt=2))

    assert journal == ["d>", "d<"]  # B had failed: C must not run
    assert run.reports[0][0].attempt == 2
    assert done["2/0"] == "success"


async def test_the_line_of_a_repeated_action_says_so(journal: list[str], logged: Logged) -> None:
    """The action that was interrupted runs again, and its lines say which attempt that is."""
    await Run(rule(action(Step(journal, "a"))))(progress=Progress(attempt=3))
    await Run(rule(action(Step(journal, "b"))))(progress=Progress(attempt=1))

    attempts = [line.get("attempt") for line in logged(message="action", status="success")]
    assert attempts == [3, None]


class Recording(Progress):
    """Remembers what it was told, among what the actions do."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.journal = journal

    async def begin(self) -> bool:
        self.journal.append("begin")
        return True

    async def save(self) -> None:
        self.journal.append(f"save {len(self._statuses)}")

    async def end(self) -> None:
        self.journal.append("end")


async def test_nothing_runs_before_the_rest_is_safe(journal: list[str]) -> None:
    """Before each action all that was done is written; after the last, the event just ends."""
    actions = action(Step(journal, "a"), "A"), action(Step(journal, "b"), "B")

    await Run(rule(*actions))(progress=Recording(journal))

    assert journal == ["begin", "save 0", "a>", "a<", "save 1", "b>", "b<", "end"]


async def test_a_dry_run_costs_no_write(journal: list[str]) -> None:
    """It has no effect that could not be repeated."""
    await Run(rule(action(Step(journal, "a")), dry_run=True))(progress=Recording(journal))

    assert journal == ["begin", "end"]


class Lasting(Step):
    """Takes its time by itself."""

    name = "test:lasting"

    @property
    def duration_seconds(self) -> float:
        return self.seconds


async def test_an_action_that_lasts_gets_the_time_it_needs(journal: list[str]) -> None:
    """A capture of 30 s is not cut by a limit of 20 s: the limit begins after it."""
    run = Run(rule(action(Lasting(journal, "a", seconds=0.3))), timeout=0.2)

    await run()

    assert run.statuses == [("action", "A", "success")]


class Long(Step):
    """Tells how far it is."""

    name = "test:long"

    async def work(self, event: Event, tell: Tell) -> Result:
        tell("half of it")
        return await self.run(event)


async def test_what_takes_long_tells_the_log(journal: list[str], logged: Logged) -> None:
    """How far an action is stands in the log between its begin and its end, nowhere else."""
    run = Run(rule(action(Long(journal, "a"), "A")))

    assert await run()

    lines = [(line["status"], line.get("output")) for line in logged(message="action")]
    assert lines == [("in_progress", None), ("in_progress", "half of it"), ("success", "a done")]
    assert run.statuses == [("action", "A", "success")]
