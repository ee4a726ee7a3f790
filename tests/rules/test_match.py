"""Matching, against a plain model of the language that is slow and easy to read."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falco_talon.event import Event
from falco_talon.rules.match import Matcher, as_text
from falco_talon.rules.model import Match, Rule
from falco_talon.rules.nodes import NOTHING, Scalar

PRIORITIES = [
    "debug",
    "informational",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
]


# The model: what docs/rules.md says, word by word.


def model_term(key: str, operator: str, value: str, fields: dict[str, Any]) -> bool:
    if key not in fields:
        return operator == "!="
    return (as_text(fields[key]) == value) == (operator == "=")


def model_priority(wanted: str, given: str) -> bool:
    comparator = wanted.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    name = wanted.removeprefix(comparator).lower()
    level = (PRIORITIES.index("informational" if name == "info" else name)) + 1
    given = "informational" if given.lower() == "info" else given.lower()
    actual = PRIORITIES.index(given) + 1 if given in PRIORITIES else 0
    return {
        "": actual == level,
        "=": actual == level,
        "<": actual < level,
        "<=": actual <= level,
        ">": actual > level,
        ">=": actual >= level,
    }[comparator]


class Wanted:
    """A rule of the model, and the same as the matcher takes it."""

    def __init__(self, **parts: Any) -> None:
        self.names: list[str] = parts["names"]
        self.items: list[list[tuple[str, str, str]]] = parts["items"]
        self.tags: list[list[str]] = parts["tags"]
        self.priority: str = parts["priority"]
        self.source: str = parts["source"]

    def __repr__(self) -> str:
        return f"Wanted({vars(self)})"

    def holds(self, event: Event) -> bool:
        fields, tags = event.output_fields or {}, event.tags or []
        return (
            (not self.names or event.rule in self.names)
            and (
                not self.items
                or any(all(model_term(*term, fields) for term in item) for item in self.items)
            )
            and (not self.tags or any(all(tag in tags for tag in item) for item in self.tags))
            and (not self.priority or model_priority(self.priority, event.priority))
            and (not self.source or event.source == self.source)
        )

    def rule(self) -> Rule:
        items = (
            ", ".join(f"{key}{operator}{quote(value)}" for key, operator, value in item)
            for item in self.items
        )
        return Rule(
            Scalar("r"),
            match=Match(
                rules=tuple(Scalar(name) for name in self.names),
                output_fields=tuple(Scalar(item) for item in items),
                tags=tuple(Scalar(", ".join(item)) for item in self.tags),
                priority=Scalar(self.priority) if self.priority else NOTHING,
                source=Scalar(self.source) if self.source else NOTHING,
            ),
        )


def quote(value: str) -> str:
    if value and not set(value) & set('", ='):
        return value
    return '"' + value.replace('"', '""') + '"'


names = st.sampled_from(["A", "B", "C", ""])
keys = st.sampled_from(["a", "proc.name", "k8s.pod.label[app-x]", "jevt.value[/x,y=z]"])
texts = st.sampled_from(
    ["", "1", "1000000", "1e+06", "1.5", "true", "<nil>", "x, y=z!", 'say "hi"']
)
values = texts | st.sampled_from([None, True, False, 1, 1_000_000, 1e6, 1.5, 0.00001, ["1", 2]])
tags = st.sampled_from(["t1", "NIST_800-53", "mitre_"])

wanted = st.builds(
    Wanted,
    names=st.lists(names.filter(bool), max_size=2),
    items=st.lists(
        st.lists(st.tuples(keys, st.sampled_from(["=", "!="]), texts), min_size=1, max_size=3),
        max_size=2,
    ),
    tags=st.lists(st.lists(tags, min_size=1, max_size=2), max_size=2),
    priority=st.just("")
    | st.builds(
        str.__add__,
        st.sampled_from(["", "=", "<", "<=", ">", ">="]),
        st.sampled_from([*PRIORITIES, "Warning", "INFO"]),
    ),
    source=st.sampled_from(["", "syscall", "k8s_audit"]),
)
events = st.builds(
    Event,
    rule=names,
    priority=st.sampled_from(["", "odd", "Info", *(name.title() for name in PRIORITIES)]),
    source=st.sampled_from(["syscall", "k8s_audit", "other"]),
    output_fields=st.none() | st.dictionaries(keys, values, max_size=3),
    tags=st.none() | st.lists(tags | st.sampled_from([5, None]), max_size=3),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(wanted, max_size=5), events)
def test_matches_what_the_model_matches(rules: list[Wanted], event: Event) -> None:
    matcher = Matcher([rule.rule() for rule in rules])

    expected = [index for index, rule in enumerate(rules) if rule.holds(event)]

    assert matcher.matching(event) == expected
    assert matcher.any(event) == bool(expected)


@given(wanted, events)
def test_a_criterion_more_never_matches_more(rule: Wanted, event: Event) -> None:
    without = Wanted(**vars(rule) | {"items": [], "tags": []})

    if Matcher([rule.rule()]).any(event):
        assert Matcher([without.rule()]).any(event)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("x", "x", id="text"),
        pytest.param(None, "<nil>", id="null"),
        pytest.param(True, "true", id="boolean"),
        pytest.param(12345, "12345", id="integer"),
        pytest.param(1234567, "1234567", id="large integer"),
        pytest.param(2**70, str(2**70), id="integer beyond 64 bits"),
        pytest.param(1.50, "1.5", id="fraction"),
        pytest.param(2.0, "2", id="whole float"),
        pytest.param(-0.25, "-0.25", id="negative"),
        pytest.param(999999.5, "999999.5", id="just below the exponent"),
        pytest.param(1e6, "1e+06", id="exponent"),
        pytest.param(1234567.5, "1.2345675e+06", id="exponent with digits"),
        pytest.param(1.25e20, "1.25e+20", id="exponent, long"),
        pytest.param(1e22, "1e+22", id="exponent as repr has it"),
        pytest.param(1e100, "1e+100", id="three digits of exponent"),
        pytest.param(0.0001, "0.0001", id="smallest plain"),
        pytest.param(0.00001, "1e-05", id="small"),
        pytest.param(0.0, "0", id="zero"),
        pytest.param(["a", 1, None], "[a 1 <nil>]", id="list"),
        pytest.param({"b": 1, "a": [True]}, "map[a:[true] b:1]", id="object"),
        pytest.param([], "[]", id="empty list"),
        pytest.param({}, "map[]", id="empty object"),
    ],
)
def test_text_form(value: Any, text: str) -> None:
    assert as_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_float_is_that_float(number: float) -> None:
    text = as_text(number)

    assert math.copysign(1, float(text)) == math.copysign(1, number)
    assert float(text) == number
    assert len(text.replace("-", "").partition("e")[0]) <= 24


def test_rules_keep_their_order_with_and_without_names() -> None:
    rules = [
        Rule(Scalar("any")),
        Rule(Scalar("x"), match=Match(rules=(Scalar("x"), Scalar("x")))),
        Rule(Scalar("any")),
        Rule(Scalar("y"), match=Match(rules=(Scalar("y"),))),
        Rule(Scalar("x or y"), match=Match(rules=(Scalar("y"), Scalar("x")))),
    ]

    assert Matcher(rules).matching(Event(rule="x")) == [0, 1, 2, 4]
    assert Matcher(rules).matching(Event(rule="z")) == [0, 2]
    assert not Matcher([]).any(Event(rule="x"))
