"""The defects RU-1 … RU-27 of the reference: none of them is ours. See docs/differences.md."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from falco_talon.clients import Clients
from falco_talon.event import Event
from falco_talon.rules.binding import BoundRules, bind
from falco_talon.rules.load import load
from falco_talon.rules.model import Fault
from falco_talon.rules.nodes import value_of
from falco_talon.rules.reload import Reloader
from falco_talon.rules.watch import Watch
from tests.rules.conftest import Bind, Faults, Read, Write
from tests.rules.plugins import CATALOG

MATCH = "match: {rules: [x]}"


def errors(faults: list[Fault]) -> list[str]:
    return [fault.error for fault in faults if fault.severity == "error"]


def warnings(faults: list[Fault]) -> list[str]:
    return [fault.error for fault in faults if fault.severity == "warning"]


def matching(rules: BoundRules, **event: Any) -> list[str]:
    return [rule.name for rule in rules.matching(Event(**event))]


def parameters(rules: Any, rule: int = 0, action: int = 0) -> Any:
    """Return the merged parameters of an action, as plain values."""
    return value_of(rules.rules[rule].actions[action].parameters)


def rule_with(match: str) -> str:
    return f"[{{rule: r, match: {match}, actions: [{{action: a, actionner: test:log}}]}}]"


def test_ru_01_a_list_of_a_later_block_only_is_not_wrapped(read_rules: Read) -> None:
    rules = read_rules(
        "[{action: a, actionner: test:terminate}]",
        "[{action: a, parameters: {allow_cidr: [p, q]}}]",
        f"[{{rule: r, {MATCH}, actions: [{{action: a}}]}}]",
    )

    assert parameters(rules) == {"allow_cidr": ["p", "q"]}


def test_ru_02_a_later_block_without_priority_and_source_keeps_them(read_rules: Read) -> None:
    first = "[{rule: r, match: {priority: '>=Error', source: syscall}, actions: [{action: a}]}]"

    kept = read_rules(first, "[{rule: r, notifiers: [bell]}]").rules[0].match
    replaced = read_rules(first, "[{rule: r, match: {priority: Debug}}]").rules[0].match

    assert (kept.priority, kept.source) == (">=Error", "syscall")
    assert (replaced.priority, replaced.source) == ("Debug", "syscall")


def test_ru_03_a_later_target_replaces_and_drops_the_old_parameters(read_rules: Read) -> None:
    first = "[{action: a, output: {target: test:shelf, parameters: {destination: /x}}}]"
    rule = f"[{{rule: r, {MATCH}, actions: [{{action: a}}]}}]"

    other = read_rules(
        first, "[{action: a, output: {target: test:drawer, parameters: {number: 1}}}]", rule
    )
    same = read_rules(
        first, "[{action: a, output: {target: test:shelf, parameters: {tags: [t]}}}]", rule
    )

    output = other.rules[0].actions[0].output
    assert (output.target, value_of(output.parameters)) == ("test:drawer", {"number": 1})
    output = same.rules[0].actions[0].output
    assert value_of(output.parameters) == {"destination": "/x", "tags": ["t"]}


def test_ru_04_sub_keys_of_the_rule_beat_those_of_the_block(read_rules: Read) -> None:
    rules = read_rules(
        f"""
        - action: a
          parameters: {{labels: {{x: block, y: block}}, level: node}}
        - rule: r
          {MATCH}
          actions: [{{action: a, parameters: {{labels: {{x: rule}}, level: pod}}}}]
        """
    )

    assert parameters(rules) == {"labels": {"x": "rule", "y": "block"}, "level": "pod"}


def test_ru_05_lists_of_rules_that_share_a_block_are_their_own(read_rules: Read) -> None:
    rules = read_rules(
        "[{action: a, parameters: {allow_cidr: [base1]}}]",
        "[{action: a, parameters: {allow_cidr: [base2]}}]",
        f"""
        - {{rule: r1, {MATCH}, actions: [{{action: a, parameters: {{allow_cidr: [one]}}}}]}}
        - {{rule: r2, {MATCH}, actions: [{{action: a, parameters: {{allow_cidr: [two]}}}}]}}
        - {{rule: r3, {MATCH}, actions: [{{action: a}}]}}
        """,
    )

    assert [parameters(rules, index)["allow_cidr"] for index in range(3)] == [
        ["base1", "base2", "one"],
        ["base1", "base2", "two"],
        ["base1", "base2"],
    ]


def test_ru_06_continue_and_ignore_errors_are_two_things(bind_rules: Bind) -> None:
    rules = bind_rules(
        f"""
        - rule: r
          {MATCH}
          actions:
            - {{action: a, actionner: test:log, continue: false, ignore_errors: true}}
            - {{action: b, actionner: test:log, continue: true, ignore_errors: false}}
            - {{action: c, actionner: test:terminate}}
        """
    )

    flags = [(a.continue_, a.ignore_errors, a.flags) for a in rules.rules[0].actions]
    assert flags == [
        (False, True, {"continue": "false", "ignore_errors": "true"}),
        (True, False, {"continue": "true", "ignore_errors": "false"}),
        (False, False, {}),  # the actionner's own default
    ]


@pytest.mark.parametrize("number", [443, 999_999, 1_000_000, 1_234_567, 1_700_000_000_123_456_789])
def test_ru_07_integers_compare_as_they_are_written(bind_rules: Bind, number: int) -> None:
    rules = bind_rules(rule_with(f"{{output_fields: [proc.pid={number}]}}"))

    assert matching(rules, output_fields={"proc.pid": number}) == ["r"]
    assert matching(rules, output_fields={"proc.pid": number + 1}) == []


def test_ru_08_only_the_first_operator_of_a_term_counts(bind_rules: Bind) -> None:
    rules = bind_rules(rule_with('{output_fields: ["proc.cmdline=a=b!=c"]}'))

    assert matching(rules, output_fields={"proc.cmdline": "a=b!=c"}) == ["r"]
    assert matching(rules, output_fields={"proc.cmdline": "a"}) == []
    assert matching(rules) == []


@pytest.mark.parametrize("item", ['a="b"c', "a= 'b", "a=1,,b=2"])
def test_ru_09_quotes_open_and_close_a_value(faults_of: Faults, item: str) -> None:
    quoted = item.replace("'", "''")

    faults = faults_of(rule_with(f"{{output_fields: ['{quoted}']}}"))

    assert [fault.severity for fault in faults] == ["warning" if "'" in item else "error"]


@pytest.mark.parametrize("item", ["a", "a>=5", "a=1,", "a=1,b", "a!b", "", "a in (b)"])
def test_ru_08_what_is_no_term_is_refused(faults_of: Faults, item: str) -> None:
    faults = faults_of(rule_with(f'{{output_fields: ["{item}"]}}'))

    part = item.rpartition(",")[2]
    assert errors(faults) == [f"incorrect output field key '{part}'"]


def test_ru_09_values_may_hold_commas_quotes_and_operators(bind_rules: Bind) -> None:
    rules = bind_rules(
        """
        - rule: r
          match:
            output_fields:
              - >-
                a="x, y=z!", b=say "hi"!, c="say ""hi"" loud"
          actions: [{action: a, actionner: test:log}]
        """
    )

    fields = {"a": "x, y=z!", "b": 'say "hi"!', "c": 'say "hi" loud'}
    assert matching(rules, output_fields=fields) == ["r"]
    assert matching(rules, output_fields=fields | {"b": "say hi"}) == []


@pytest.mark.parametrize(
    "key",
    [
        "proc.is_exe_upper_layer",
        "k8s.pod.label[app-x]",
        "k8s.pod.label[app.kubernetes.io/name]",
        "jevt.value[/a/b,c=d]",
        "proc.aname[2]",
        "ka.req.pod.containers.image",
        "tolower(proc.name)",
    ],
)
def test_ru_10_any_field_name_of_falco_is_a_key(bind_rules: Bind, key: str) -> None:
    rules = bind_rules(rule_with(f"{{output_fields: ['{key}=1']}}"))

    assert matching(rules, output_fields={key: "1"}) == ["r"]
    assert matching(rules, output_fields={}) == []


def test_ru_10_a_key_is_required(faults_of: Faults) -> None:
    assert errors(faults_of(rule_with('{output_fields: ["=x"]}'))) == [
        "incorrect output field key '=x'"
    ]


@pytest.mark.parametrize("tag", ["NIST_800-53", "PCI_DSS_10.2.1", "T1059", "mitre_", "a/b"])
def test_ru_11_the_tags_of_falco_are_tags(bind_rules: Bind, tag: str) -> None:
    rules = bind_rules(rule_with(f"{{tags: ['{tag}']}}"))

    assert matching(rules, tags=[tag]) == ["r"]


@pytest.mark.parametrize("tag", ["!container", "", "a,,b", "a;b"])
def test_ru_11_what_can_be_no_tag_is_refused(faults_of: Faults, tag: str) -> None:
    assert errors(faults_of(rule_with(f"{{tags: ['{tag}']}}")))[0].startswith("incorrect tag '")


def test_ru_12_misspelt_keys_and_parameters_are_found(faults_of: Faults) -> None:
    faults = faults_of(
        f"""
        - action: a
          actionner: test:terminate
          parameters: {{allow: [x], force: true}}
        - rule: r
          {MATCH}
          actions: [{{action: a}}]
        - rule: s
          matches: {{rules: [x]}}
          actions: [{{action: a}}]
        """
    )

    assert [(f.severity, f.error, f.nearest) for f in faults if f.place and f.key] == [
        ("error", "unknown key 'matches' in a rule", "match"),
        ("warning", "unknown parameter 'allow'", "allow_cidr"),
        ("warning", "unknown parameter 'force'", ""),
    ]


def test_ru_13_a_repeated_tag_counts_once(bind_rules: Bind) -> None:
    rules = bind_rules(rule_with("{tags: ['a, b']}"))

    assert matching(rules, tags=["a", "a"]) == []
    assert matching(rules, tags=["b", "c", "a"]) == ["r"]


def test_ru_14_a_priority_has_a_name_and_info_is_one(faults_of: Faults, bind_rules: Bind) -> None:
    assert errors(faults_of(rule_with("{priority: '>'}"))) == ["incorrect priority '>'"]

    rules = bind_rules(rule_with("{priority: '>=info'}"))
    assert [p for p in ("Debug", "Informational", "Info", "Notice") if matching(rules, priority=p)]
    assert matching(rules, priority="Informational") == matching(rules, priority="Info") == ["r"]
    assert matching(rules, priority="Debug") == []


@pytest.mark.parametrize("name", ["a:b:c d", "kubernetes", ":label", "kubernetes:", "Test:log"])
def test_ru_15_an_actionner_has_two_names(faults_of: Faults, name: str) -> None:
    rule = f"[{{rule: r, {MATCH}, actions: [{{action: a, actionner: '{name}'}}]}}]"

    assert errors(faults_of(rule)) == ["incorrect actionner"]


@pytest.mark.parametrize(
    "text",
    [
        "[null]",
        "[{rule: r, match: {rules: [null]}, actions: [{action: a, actionner: test:log}]}]",
        "[{rule: r, match: {rules: [x]}, actions: [null]}]",
        f"[{{rule: r, {MATCH}, notifiers: [~], actions: [{{action: a, actionner: test:log}}]}}]",
        "[{rule: r, match: {tags: [a, ]}, actions: [{action: , actionner: test:log}]}]",
    ],
)
def test_ru_16_a_null_item_is_an_error(faults_of: Faults, text: str) -> None:
    assert errors(faults_of(text))


def test_ru_17_the_output_of_a_block_serves_a_rule_without_one(bind_rules: Bind) -> None:
    rules = bind_rules(
        f"""
        - action: a
          actionner: test:log
          output: {{target: test:shelf, parameters: {{destination: /x, tags: [t]}}}}
        - rule: r
          {MATCH}
          actions: [{{action: a}}]
        """
    )

    output = rules.rules[0].actions[0].output
    assert output is not None
    assert output.parameters.tags == ["t"]


def test_ru_18_all_rules_are_merged_however_few_the_actions(read_rules: Read) -> None:
    blocks = "".join(f"- {{rule: r, notifiers: [n{number}]}}\n" for number in range(20))
    rules = read_rules(f"- {{rule: r, {MATCH}, actions: [{{action: a}}]}}\n", blocks)

    assert len(rules.rules) == 1
    assert len(rules.rules[0].notifiers) == 20


def test_ru_19_useless_outputs_and_contexts_and_unknown_names(faults_of: Faults) -> None:
    faults = faults_of(
        f"""
        - rule: r
          {MATCH}
          notifiers: [bel]
          actions:
            - action: a
              actionner: test:label
              parameters: {{labels: {{suspicious: true, count: 5}}}}
              contexts: [node]
              output: {{target: test:shelf, parameters: {{destination: /x}}}}
            - action: b
              actionner: test:script
              parameters: {{script: ls}}
              additional_contexts: [nod]
        """
    )

    assert warnings(faults) == [
        "the key 'contexts' is read as 'additional_contexts'",
        "'test:label' brings nothing back: the output is never used",
        "'test:label' uses no contexts: 'node' is never fetched",
    ]
    assert [(f.error, f.value, f.nearest) for f in faults if f.severity == "error"] == [
        ("unknown context", "nod", "node"),
        ("unknown notifier", "bel", "bell"),
    ]


def test_ru_20_all_documents_are_read_and_nameless_rules_reported(
    read_rules: Read, faults_of: Faults
) -> None:
    one, two = (f"[{{rule: {name}, {MATCH}, actions: [{{action: a}}]}}]" for name in "ab")

    assert [rule.name for rule in read_rules(f"{one}\n---\n{two}\n").rules] == ["a", "b"]
    assert errors(faults_of("[{rule: , actions: [{action: a, actionner: test:log}]}]")) == [
        "all rules must have a name"
    ]


# What happens at a reload.

GOOD = "[{rule: NAME, match: {rules: [x]}, actions: [{action: a, actionner: test:log}]}]"


class Daemon:
    """What the application joins: a watch, a reloader, and the rules in use."""

    def __init__(self, files: list[Path], clients: Clients) -> None:
        self.rules = bind(load(files), CATALOG, clients)
        self.counted: list[str] = []
        self.reloader = Reloader(files, CATALOG, clients, self.swap, self.count)
        self.watch = Watch(files, self.reloader.reload, quiet_seconds=0.05)

    @property
    def names(self) -> list[str]:
        return [rule.name for rule in self.rules.rules]

    async def swap(self, rules: BoundRules) -> None:
        self.rules = rules

    def count(self, status: Literal["success", "failure"]) -> None:
        self.counted.append(status)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)


async def with_daemon(
    files: list[Path], work: Callable[[Daemon], Awaitable[None]], clients: Clients | None = None
) -> None:
    daemon = Daemon(files, clients or Clients())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(daemon.watch.run())
        await work(daemon)
        running.cancel()


async def test_ru_21_rules_that_do_not_bind_never_become_active(write: Write) -> None:
    files = write(GOOD)

    async def work(daemon: Daemon) -> None:
        before = daemon.rules
        files[0].write_text(GOOD.replace("test:log", "test:loog"))
        await daemon.until(lambda: daemon.counted == ["failure"])
        assert daemon.rules is before
        assert "unknown actionner" in daemon.reloader.fault
        files[0].write_text(GOOD.replace("NAME", "new"))
        await daemon.until(lambda: daemon.names == ["new"])
        assert daemon.reloader.fault == ""

    await with_daemon(files, work)


async def test_ru_22_a_truncating_rewrite_never_empties_the_rules(write: Write) -> None:
    files = write(GOOD)

    async def work(daemon: Daemon) -> None:
        with files[0].open("w") as file:
            await daemon.until(lambda: daemon.counted == ["failure"])  # empty for long
            assert daemon.names == ["NAME"]
            file.write(GOOD.replace("NAME", "ne"))
            file.flush()
            await asyncio.sleep(0.01)
            file.seek(0)
            file.write(GOOD.replace("NAME", "new"))
        await daemon.until(lambda: daemon.names == ["new"])

    await with_daemon(files, work)


async def test_ru_23_replacing_the_file_is_seen_again_and_again(write: Write) -> None:
    files = write(GOOD)

    async def work(daemon: Daemon) -> None:
        for name in ("one", "two", "three"):
            new = files[0].with_suffix(".swp~")
            new.write_text(GOOD.replace("NAME", name))
            new.rename(files[0])
            await daemon.until(lambda name=name: daemon.names == [name])  # type: ignore[misc] # bound now

    await with_daemon(files, work)


class Opened(Clients):
    """Notes which clients are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[frozenset[str]] = []

    async def ready(self, names: Any) -> None:
        self.asked.append(frozenset(names))


async def test_ru_24_what_new_rules_need_is_opened_before_they_act(write: Write) -> None:
    files, clients = write(GOOD), Opened()

    async def work(daemon: Daemon) -> None:
        assert not daemon.rules.uses
        files[0].write_text(
            "[{rule: new, match: {rules: [x]}, actions: [{action: a, actionner: test:label, "
            "parameters: {labels: {a: b}}}]}]"
        )
        await daemon.until(lambda: daemon.names == ["new"])
        assert clients.asked == [{"kubernetes"}]

    await with_daemon(files, work, clients)


async def test_ru_25_an_event_under_way_keeps_the_rules_that_it_matched(write: Write) -> None:
    files = write(GOOD)

    async def work(daemon: Daemon) -> None:
        snapshot = daemon.rules
        matched = snapshot.matching(Event(rule="x"))
        files[0].write_text(GOOD.replace("NAME", "new"))
        await daemon.until(lambda: daemon.names == ["new"])
        assert daemon.rules is not snapshot
        assert [rule.name for rule in matched] == ["NAME"]
        assert [rule.name for rule in snapshot.matching(Event(rule="x"))] == ["NAME"]

    await with_daemon(files, work)


def test_ru_26_an_actionner_for_other_sources_is_a_warning(faults_of: Faults) -> None:
    rule = (
        "[{rule: r, match: {source: SOURCE}, actions: "
        "[{action: a, actionner: test:label, parameters: {labels: {a: b}}}]}]"
    )

    assert faults_of(rule.replace("SOURCE", "syscall")) == []
    assert faults_of(rule.replace("SOURCE", "syscalls")) == []
    assert warnings(faults_of(rule.replace("SOURCE", "k8s_audit"))) == [
        "'test:label' is not made for events of the source 'k8s_audit'"
    ]


def test_ru_27_a_mismatch_of_type_is_an_error_in_blocks_and_rules(faults_of: Faults) -> None:
    faults = faults_of(
        f"""
        - {{action: a, actionner: test:terminate, parameters: {{allow_cidr: [x]}}}}
        - {{action: a, parameters: {{allow_cidr: {{x: y}}}}}}
        - action: b
          actionner: test:log
          output: {{target: test:shelf, parameters: {{destination: x}}}}
        - rule: r
          {MATCH}
          actions: [{{action: b, output: {{parameters: {{destination: [x]}}}}}}]
        """
    )

    found = [fault for fault in faults if fault.error == "mismatch of type for a parameter"]
    assert [(f.rule, f.action, f.output_target, f.key) for f in found] == [
        ("", "a", "", "allow_cidr"),
        ("r", "b", "test:shelf", "destination"),
    ]
    assert [(f.place.line, f.place.column) for f in found if f.place] == [(3, 40), (9, 60)]
