"""Rules → bound rules: parameters, outputs, contexts, notifiers, and what is wrong with them."""

from typing import Any

import pytest

from falco_talon.event import Event
from falco_talon.rules.model import Fault
from tests.rules.conftest import Bind, Faults
from tests.rules.plugins import Label, Node, Shelf


def rule(action: str, **more: str) -> str:
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    return f"[{{rule: r, match: {{rules: [x]}}, actions: [{{action: a, {action}}}]{keys}}}]"


def place(fault: Fault) -> tuple[int, int] | None:
    return (fault.place.line, fault.place.column) if fault.place else None


def test_everything_is_made(bind_rules: Bind) -> None:
    rules = bind_rules(
        """
        - rule: r
          description: d
          continue: false
          dry_run: true
          match: {rules: [x]}
          notifiers: [Bell, bell]
          actions:
            - action: one
              description: first
              actionner: test:label
              parameters: {labels: {a: b}}
            - action: two
              actionner: test:download
              output: {target: test:shelf, parameters: {destination: /x}}
            - action: three
              actionner: test:script
              additional_contexts: [node]
              parameters: {script: ls}
        - rule: s
          match: {rules: [y]}
          actions: [{action: four, actionner: test:log}]
        """
    )

    first, second = rules.rules
    one, two, three = first.actions
    assert (first.name, first.description) == ("r", "d")
    assert (first.continue_, first.dry_run, first.notifiers) == (False, True, ("bell",))
    assert first.flags == {"continue": "false", "dry_run": "true"}
    assert (second.continue_, second.dry_run, second.flags) == (True, False, {})
    assert isinstance(one.actionner, Label)
    assert one.actionner.parameters.labels == {"a": "b"}
    assert (one.description, one.parameters) == ("first", {"labels": {"a": "b"}})
    assert isinstance(two.output, Shelf)
    assert isinstance(three.contexts[0], Node)
    assert rules.uses == {"kubernetes"}
    assert len(rules) == 2
    assert [found.name for found in rules.matching(Event(rule="y"))] == ["s"]
    assert rules.can_match(Event(rule="x"))
    assert not rules.can_match(Event(rule="z"))
    # Names leave for logs, spans and metrics: they are plain texts there.
    assert {type(text) for text in (first.name, one.name, *first.notifiers, *first.flags)} == {str}


def parameters(bind_rules: Bind, actionner: str, given: str) -> Any:
    rules = bind_rules(rule(f"actionner: test:{actionner}, parameters: {given}"))
    return rules.rules[0].actions[0].actionner.parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", "true"),
        ("True", "True"),
        ("5", "5"),
        ("012", "012"),
        ("1.50", "1.50"),
        ("0x1f", "0x1f"),
        ("yes", "yes"),
        ("2001-01-01", "2001-01-01"),
        ("~", ""),
        ("", ""),
        ('"null"', "null"),
    ],
)
def test_scalars_for_texts_count_by_their_literal_text(
    bind_rules: Bind, text: str, value: str
) -> None:
    given = f"{{labels: {{x: {text}, other: 7}}}}"

    assert parameters(bind_rules, "label", given).labels == {"x": value, "other": "7"}


def test_conversions_that_are_sane(bind_rules: Bind) -> None:
    found = parameters(
        bind_rules,
        "terminate",
        "{Grace_Period_Seconds: 30.0, ratio: 2, allow_cidr: [5, true], NAME: 12, "
        "ignore_daemonsets: }",
    )

    assert (found.grace_period_seconds, found.ratio, found.name_) == (30, 2.0, "12")
    assert (found.allow_cidr, found.ignore_daemonsets) == (["5", "true"], False)


def test_nested_parameters_unions_and_choices(bind_rules: Bind) -> None:
    found = parameters(
        bind_rules,
        "request",
        "{retry: {times: 2.0, on: [500, 503.0]}, status: [200, 201], mode: true, "
        "body: {a: [1, yes]}}",
    )

    assert (found.retry.times, found.retry.on, found.status) == (2, [500, 503], [200, 201])
    assert (found.mode, found.body) == ("true", {"a": [1, "yes"]})
    assert parameters(bind_rules, "request", "{timeout: 10s}").timeout == 10
    assert parameters(bind_rules, "request", "{ADDRESS: 'https://y'}").url == "https://y"
    assert parameters(bind_rules, "request", "{status: 404}").status == 404


@pytest.mark.parametrize(
    ("actionner", "given", "error", "key", "found"),
    [
        (
            "terminate",
            '{grace_period_seconds: "5"}',
            "wrong parameter",
            "grace_period_seconds",
            "5",
        ),
        (
            "terminate",
            "{grace_period_seconds: 1.5}",
            "wrong parameter",
            "grace_period_seconds",
            "1.5",
        ),
        ("terminate", "{grace_period_seconds: true}", "wrong", "grace_period_seconds", "true"),
        ("terminate", "{ignore_daemonsets: yes}", "wrong", "ignore_daemonsets", "yes"),
        ("terminate", "{ignore_daemonsets: 1}", "wrong", "ignore_daemonsets", "1"),
        ("terminate", "{allow_cidr: x}", "wrong parameter 'allow_cidr'", "allow_cidr", "x"),
        ("terminate", "{allow_cidr: [[x]]}", "wrong", "allow_cidr.0", "a list"),
        ("terminate", "{allow_cidr: [x, null]}", "wrong", "allow_cidr.1", "null"),
        ("label", "{}", "missing parameter 'labels'", "labels", ""),
        ("label", "{labels: }", "missing parameter 'labels'", "labels", ""),
        ("label", "{labels: {}}", "wrong parameter 'labels'", "labels", "a map"),
        ("label", "{labels: {a: [b]}}", "wrong parameter 'labels.a'", "labels.a", "a list"),
        ("label", "{labels: {a: b}, level: Pod}", "wrong parameter 'level'", "level", "Pod"),
        (
            "label",
            "{labels: {a: b}, Labels: {a: b}}",
            "the parameter 'Labels' is given twice",
            "",
            "",
        ),
        ("script", "{}", "missing parameter 'script' or 'file'", "", ""),
        (
            "request",
            "{address: 'http://x'}",
            "wrong parameter 'address': the URL is not https",
            "address",
            "http://x",
        ),
        ("request", "{retry: {times: x}}", "wrong parameter 'retry.times'", "retry.times", "x"),
    ],
)
def test_wrong_parameters(
    faults_of: Faults, actionner: str, given: str, error: str, key: str, found: str
) -> None:
    text = rule(f"actionner: test:{actionner}, parameters: {given}")

    fault = faults_of(text)[0]

    assert fault.error.startswith(error)
    assert fault.severity == "error"
    assert (fault.rule, fault.action, fault.actionner) == ("r", "a", f"test:{actionner}")
    if key:
        assert (fault.key, fault.value) == (key, found)
    assert fault.place


def test_places_of_parameters_survive_the_merge(faults_of: Faults) -> None:
    faults = faults_of(
        """
        - action: a
          actionner: test:label
          parameters: {labels: {x: "1"}, levl: pod}
        """,
        """
        - action: a
          parameters:
            level: pods
        - rule: r
          match: {rules: [x]}
          actions:
            - action: a
              parameters:
                labels: {y: [bad]}
        - rule: s
          match: {rules: [x]}
          actions: [{action: a}]
        """,
    )

    assert [(f.key, f.place and f.place.file[-6], place(f), f.nearest) for f in faults] == [
        ("levl", "1", (4, 34), "level"),
        ("labels.y", "2", (10, 21), ""),
        ("level", "2", (4, 12), "pod"),
    ]  # those of the block are said once, however many rules use it


def test_a_secret_is_in_no_finding(faults_of: Faults) -> None:
    faults = faults_of(rule("actionner: test:script, parameters: {token: [hunter2], script: s}"))
    faults += faults_of(rule("actionner: test:script, parameters: {tokn: hunter2, script: s}"))
    faults += faults_of(rule("actionner: test:request, parameters: {password: hunter2}"))

    assert [fault.error for fault in faults] == [
        "wrong parameter 'token'",
        "unknown parameter 'tokn'",
        "wrong parameter 'password': '…' is too short",
    ]
    assert "hunter2" not in str([(str(fault), fault.fields()) for fault in faults])


def test_an_unknown_parameter_is_an_error_when_strict(faults_of: Faults) -> None:
    text = rule("actionner: test:terminate, parameters: {grace_period: 5}")

    (loose,), (strict,) = faults_of(text), faults_of(text, strict=True)

    assert (loose.severity, strict.severity) == ("warning", "error")
    assert loose.nearest == "grace_period_seconds"
    assert "allow_cidr" in loose.allowed


@pytest.mark.parametrize(
    ("action", "error", "target"),
    [
        ("actionner: test:lable", "unknown actionner", ""),
        ("actionner: test:download", "an output is required", ""),
        (
            "actionner: test:log, output: {target: test:shelv, parameters: {a: b}}",
            "unknown target",
            "",
        ),
        (
            "actionner: test:log, output: {target: test:shelf, parameters: {tags: [a]}}",
            "missing parameter 'destination'",
            "test:shelf",
        ),
        (
            "actionner: test:log, output: {target: test:shelf, parameters: {destination: nowhere}}",
            "there is no such destination",
            "test:shelf",
        ),
    ],
)
def test_plugins_that_cannot_be_made(
    faults_of: Faults, action: str, error: str, target: str
) -> None:
    (fault,) = faults_of(rule(action))

    assert (fault.error, fault.output_target) == (error, target)
    assert (fault.rule, fault.action) == ("r", "a")
    assert fault.place


def test_an_output_without_target_is_ignored_with_a_warning(
    faults_of: Faults, bind_rules: Bind
) -> None:
    text = rule("actionner: test:log, output: {parameters: {destination: /x}}")

    (fault,) = faults_of(text)

    assert (fault.severity, fault.error) == (
        "warning",
        "the output has no 'target' and is ignored",
    )
    assert bind_rules(text).rules[0].actions[0].output is None


def test_names_of_plugins_are_not_guessed_wildly(faults_of: Faults) -> None:
    near, far = faults_of(
        """
        - rule: r
          match: {rules: [x]}
          actions: [{action: a, actionner: test:lable}, {action: b, actionner: test:exec}]
        """
    )

    assert (near.nearest, far.nearest) == ("test:label", "")
    assert far.allowed[:2] == ("test:label", "test:terminate")
