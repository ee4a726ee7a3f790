"""Printed rules: loadable, stable, in the reference's order."""

import json
from pathlib import Path
from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st

from falco_talon.rules.load import load
from falco_talon.rules.model import Action, Match, OutputRef, Rule
from falco_talon.rules.nodes import ListNode, MapNode, Node, Scalar, value_of
from falco_talon.rules.parse import parse
from falco_talon.rules.printing import to_plain, to_yaml
from tests.rules.conftest import Read, Write
from tests.rules.test_load import EVERY_KEY


def test_layout(read_rules: Read) -> None:
    assert to_yaml(read_rules(EVERY_KEY).rules) == dedent(
        """\
        ---
        - rule: Rule
          description: what it is for
          continue: "false"
          dry_run: "true"
          notifiers:
            - bell
          actions:
            - parameters:
                allow_cidr:
                    - a
                grace_period_seconds: 5
              output:
                parameters:
                    destination: /x
                target: test:shelf
              action: Block
              description: what it does
              actionner: test:terminate
              continue: "true"
              ignore_errors: "false"
              timeout: 2m
              additional_contexts:
                - node
            - action: Own
              actionner: test:log
          match:
            output_fields:
                - a=b, c!=d
            priority: ">=Warning"
            source: syscall
            rules:
                - x
                - "true"
                - "5"
            tags:
                - t1, t2
        """
    )


def test_no_rules_and_no_criteria(read_rules: Read) -> None:
    assert to_yaml(()) == "---\n[]\n"
    assert to_yaml(read_rules("[{rule: r, actions: [{action: a}]}]").rules).endswith("match: {}\n")


def test_json_has_the_same_keys_and_the_values(read_rules: Read) -> None:
    rules = read_rules(EVERY_KEY).rules

    plain = json.loads(json.dumps(to_plain(rules)))

    assert plain == value_of(parse(to_yaml(rules).encode(), "f")[0])
    assert list(plain[0]) == [
        "rule",
        "description",
        "continue",
        "dry_run",
        "notifiers",
        "actions",
        "match",
    ]


def test_scripts_stay_readable(read_rules: Read) -> None:
    text = """
    - rule: r
      actions:
        - action: a
          actionner: test:script
          parameters:
            script: |
              set -e

              echo "${NAME}"
    """
    printed = to_yaml(read_rules(text).rules)

    assert 'script: |\n            set -e\n\n            echo "${NAME}"\n      action' in printed


ODD = "yes n 012 1_0 12:30 2001-01-01 ~ 1e3 << ' \" \\ [a] {a} *a &a !a %a @a `a ?"
texts = st.text(max_size=12) | st.sampled_from(
    [
        *ODD.split(" "),
        *("", "a: b", "a #b", "- a", "a\nb", "a\nb\n", "a\n\n\nb\n\n", " a\nb", "a \nb", "\ta\nb"),
        *("a\n", "\n", "é☃\U0001f600", "\x85", "\u2028a", "\ufeff"),
    ]
)
scalars = st.builds(Scalar, texts)
numbers = st.sampled_from(["012", "1e3", "0x1f", "true", "null", "~", "", ".5", "-7"])
free = scalars | numbers.map(lambda text: Scalar(text, plain=True))


def as_list(items: list[Node]) -> ListNode:
    node = ListNode()
    node.extend(items)
    return node


def as_map(items: dict[Scalar, Node]) -> MapNode:
    node = MapNode()
    node.update(items)
    return node


nodes = st.recursive(
    free,
    lambda inner: (
        st.lists(inner, max_size=3).map(as_list)
        | st.dictionaries(scalars, inner, max_size=3).map(as_map)
    ),
    max_leaves=8,
)
maps = st.dictionaries(scalars, nodes, max_size=4).map(as_map)
lists = st.lists(scalars.filter(bool), max_size=2).map(tuple)
rules = st.builds(
    Rule,
    name=scalars.filter(bool),
    description=scalars,
    continue_=st.sampled_from([Scalar(""), Scalar("true")]),
    match=st.builds(Match, rules=lists, output_fields=lists, tags=lists, priority=scalars),
    actions=st.lists(
        st.builds(
            Action,
            name=scalars.filter(bool),
            parameters=maps,
            contexts=lists,
            output=st.builds(OutputRef, scalars, maps),
        ),
        max_size=2,
    ).map(tuple),
    notifiers=lists,
)


@given(st.lists(rules, max_size=2))
def test_what_is_printed_reads_as_the_same(given_rules: list[Rule]) -> None:
    printed = to_yaml(given_rules)

    (root,) = parse(printed.encode(), "f")
    assert value_of(root) == to_plain(given_rules)


def test_printing_what_was_printed_changes_nothing(write: Write, tmp_path: Path) -> None:
    files = write(EVERY_KEY.replace("grace_period_seconds: 5", "labels: {b: 012, a: true, n: ~}"))

    first = to_yaml(load(files).rules)
    (tmp_path / "printed.yaml").write_text(first)
    second = to_yaml(load([tmp_path / "printed.yaml"]).rules)

    assert first == second
    assert "b: 012\n" in first
