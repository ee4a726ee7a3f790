"""A reload is all or nothing, and says what went wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from falco_talon.clients import Clients
from falco_talon.errors import TalonError
from falco_talon.rules.binding import BoundRules
from falco_talon.rules.reload import Reloader
from tests.rules.conftest import Write
from tests.rules.plugins import CATALOG

GOOD = "[{rule: good, match: {rules: [x]}, actions: [{action: a, actionner: test:log}]}]"
DOUBTFUL = GOOD.replace("match: {rules: [x]}", "match: {}")
BAD = "[{rule: bad, matches: {}, notifiers: [slak], actions: [{action: a, actionner: test:log}]}]"

Logged = Callable[..., list[dict[str, Any]]]


class Reloading:
    """A reloader, what it swapped in and what it counted."""

    def __init__(self, files: list[Path]) -> None:
        self.swapped: list[BoundRules] = []
        self.counted: list[str] = []
        self.refusal: TalonError | None = None
        self.reloader = Reloader(files, CATALOG, Clients(), self.swap, self.count)

    async def swap(self, rules: BoundRules) -> None:
        if self.refusal:
            raise self.refusal
        self.swapped.append(rules)

    def count(self, status: Literal["success", "failure"]) -> None:
        self.counted.append(status)


async def test_success(write: Write, logged: Logged) -> None:
    reloading = Reloading(write(GOOD, DOUBTFUL.replace("good", "doubtful")))

    await reloading.reloader.reload()

    assert [len(rules) for rules in reloading.swapped] == [2]
    assert reloading.counted == ["success"]
    assert reloading.reloader.fault == ""
    assert [record.get("result") for record in logged(message="rules", level="info")] == [
        "changes detected",
        "2 rules have been successfully loaded",
    ]
    (warning,) = logged(message="rules", level="warn")
    assert warning["warning"] == "the rule has no match criterion: it matches every event"


async def test_every_fault_is_logged_and_nothing_swapped(write: Write, logged: Logged) -> None:
    files = write(GOOD, BAD)
    reloading = Reloading(files)

    await reloading.reloader.reload()

    assert reloading.swapped == []
    assert reloading.counted == ["failure"]
    assert [record["error"] for record in logged(message="rules", level="error")] == [
        "unknown key 'matches' in a rule",
        "unknown notifier",
        "invalid rules",
    ]
    assert reloading.reloader.fault == (
        f"{files[1]}:1:14: unknown key 'matches' in a rule, allowed: rule, description, continue, "
        "dry_run, match, actions, notifiers, did you mean 'match'? (and 1 more); "
        "the rules that were loaded before stay in use"
    )


@pytest.mark.parametrize("text", ["", BAD, "a: ["], ids=["empty", "invalid", "no YAML"])
async def test_a_good_file_ends_the_fault(write: Write, text: str) -> None:
    files = write(GOOD, text)
    reloading = Reloading(files)

    await reloading.reloader.reload()
    assert reloading.reloader.fault.startswith(f"{files[1]}")
    files[1].write_text(GOOD.replace("good", "better"))
    await reloading.reloader.reload()

    assert reloading.counted == ["failure", "success"]
    assert reloading.reloader.fault == ""


async def test_a_file_that_is_gone_keeps_the_rules(write: Write) -> None:
    files = write(GOOD)
    reloading = Reloading(files)
    files[0].unlink()

    await reloading.reloader.reload()

    assert reloading.counted == ["failure"]
    assert "no such file or directory; the rules" in reloading.reloader.fault


async def test_comments_alone_are_no_rules_on_purpose(write: Write) -> None:
    reloading = Reloading(write("# nothing for now\n"))

    await reloading.reloader.reload()

    assert [len(rules) for rules in reloading.swapped] == [0]


async def test_what_new_rules_need_cannot_be_had(write: Write) -> None:
    reloading = Reloading(write(GOOD))
    reloading.refusal = TalonError("no kubeconfig")

    await reloading.reloader.reload()

    assert (reloading.swapped, reloading.counted) == ([], ["failure"])
    assert reloading.reloader.fault.startswith("no kubeconfig; ")
