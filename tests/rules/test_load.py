"""Files → rules: the keys, the merge, and what is said of mistakes."""

import itertools
from pathlib import Path

import pytest

from falco_talon.rules.load import load, read
from falco_talon.rules.model import RulesError
from falco_talon.rules.nodes import value_of
from tests.rules.conftest import Bind, Faults, Read, Write

EVERY_KEY = """
    - action: Block
      description: what it does
      actionner: test:terminate
      parameters: {allow_cidr: [a], grace_period_seconds: 5}
      continue: true
      ignore_errors: false
      timeout: 2m
      additional_contexts: [node]
      output:
        target: test:shelf
        parameters: {destination: /x}
    - rule: Rule
      description: what it is for
      continue: false
      dry_run: true
      match:
        rules: [x, true, 5]
        output_fields: ["a=b, c!=d"]
        tags: ["t1, t2"]
        priority: ">=Warning"
        source: syscall
      actions:
        - action: Block
        - action: Own
          actionner: test:log
      notifiers: [bell]
"""


def test_every_key(read_rules: Read) -> None:
    rule = read_rules(EVERY_KEY).rules[0]
    block, own = rule.actions

    assert (rule.name, rule.description) == ("Rule", "what it is for")
    assert (rule.continue_, rule.dry_run, rule.notifiers) == ("false", "true", ("bell",))
    match = rule.match
    assert (match.rules, match.output_fields) == (("x", "true", "5"), ("a=b, c!=d",))
    assert (match.tags, match.priority, match.source) == (("t1, t2",), ">=Warning", "syscall")
    assert (block.description, block.actionner) == ("what it does", "test:terminate")
    assert value_of(block.parameters) == {"allow_cidr": ["a"], "grace_period_seconds": 5}
    assert (block.continue_, block.ignore_errors, block.contexts) == ("true", "false", ("node",))
    assert (block.timeout, own.timeout) == ("2m", "")
    assert block.output.target == "test:shelf"
    assert (own.actionner, own.continue_, own.contexts) == ("test:log", "", ())
    assert rule.place
    assert rule.place.line == 13


def test_nothing_is_valid(read_rules: Read) -> None:
    rules = read_rules("", "# only a comment\n", "---\n", "[]")

    assert rules.valid
    assert rules.rules == ()


def test_an_item_may_be_rule_and_action(read_rules: Read) -> None:
    rules = read_rules(
        "[{rule: r, action: a, actionner: test:log, match: {rules: [x]}, actions: [{action: a}]}]"
    )

    assert rules.valid
    assert not rules.faults
    assert rules.rules[0].actions[0].actionner == "test:log"


def test_holders_of_anchors(read_rules: Read) -> None:
    rules = read_rules(
        """
        - x-match: &match {rules: [x]}
        - rule: r
          match: {<<: *match, source: syscall}
          actions: [{action: a, actionner: test:log}]
        """
    )

    assert not rules.faults
    assert rules.rules[0].match.rules == ("x",)


@pytest.mark.parametrize(
    ("block", "severity", "nearest"),
    [
        ("{Rule: r}", "error", "rule"),
        ("{rules: r}", "error", "rule"),
        ("{acton: a}", "error", "action"),
        ("{actionner: test:log}", "error", "action"),
        ("{match: {rules: [x]}}", "error", ""),
        ("{}", "error", ""),
        ("{shared: &x {a: b}}", "warning", ""),
    ],
)
def test_a_block_that_is_neither(
    faults_of: Faults, block: str, severity: str, nearest: str
) -> None:
    (fault,) = faults_of(f"[{block}]")

    assert fault.error == "the block is neither a rule nor an action, and does nothing"
    assert (fault.severity, fault.nearest) == (severity, nearest)


def test_merge_of_action_blocks(read_rules: Read) -> None:
    action = (
        read_rules(
            """
        - action: a
          description: first
          actionner: test:log
          continue: true
          timeout: 10
          additional_contexts: [one]
          parameters: {s: 1, l: [1], m: {x: 1, y: 1}, n: ~, kept: 1}
        """,
            """
        - action: a
          description: later
          continue: false
          ignore_errors: true
          timeout: 20
          additional_contexts: [two]
          parameters: {s: 2, l: [2], m: {x: 2, z: 2}, n: 2, kept: ~, new: [3]}
        - rule: r
          match: {rules: [x]}
          actions: [{action: a}]
        """,
        )
        .rules[0]
        .actions[0]
    )

    assert (action.description, action.actionner) == ("later", "test:log")
    assert (action.continue_, action.ignore_errors) == ("false", "true")
    assert action.timeout == "20"
    assert action.contexts == ("one", "two")
    assert value_of(action.parameters) == {
        "s": 2,
        "l": [1, 2],
        "m": {"x": 2, "y": 1, "z": 2},
        "n": 2,
        "kept": 1,
        "new": [3],
    }


def test_merge_of_rules(read_rules: Read) -> None:
    rules = read_rules(
        """
        - {rule: r, description: d, match: {rules: [a], tags: [t]}, actions: [{action: x}]}
        - {rule: s, match: {rules: [a]}, actions: [{action: x}]}
        """,
        """
        - rule: r
          continue: false
          dry_run: true
          notifiers: [n]
          match: {rules: [b], output_fields: [f=1], tags: [u]}
          actions: [{action: y}, {action: x}]
        """,
    ).rules

    assert [rule.name for rule in rules] == ["r", "s"]
    rule = rules[0]
    assert (rule.description, rule.continue_, rule.dry_run) == ("d", "false", "true")
    assert (rule.match.rules, rule.match.tags) == (("a", "b"), ("t", "u"))
    assert rule.match.output_fields == ("f=1",)
    assert [action.name for action in rule.actions] == ["x", "y", "x"]


def test_the_rule_beats_the_block(read_rules: Read) -> None:
    action = (
        read_rules(
            """
        - action: a
          description: block
          actionner: test:log
          continue: true
          ignore_errors: true
          timeout: 90s
          additional_contexts: [block]
          output: {target: test:shelf, parameters: {destination: block, tags: [block]}}
        - rule: r
          match: {rules: [x]}
          actions:
            - action: a
              description: rule
              continue: false
              timeout: 5
              additional_contexts: [rule]
              output: {parameters: {destination: rule, tags: [rule]}}
        """
        )
        .rules[0]
        .actions[0]
    )

    assert (action.description, action.continue_, action.ignore_errors) == ("rule", "false", "true")
    assert action.timeout == "5"
    assert action.contexts == ("rule",)
    assert action.output.target == "test:shelf"
    assert value_of(action.output.parameters) == {"destination": "rule", "tags": ["block", "rule"]}


def test_all_faults_of_all_files_in_one_go(write: Write) -> None:
    files = write(
        "- rule: a\n  matches: {}\n  continue: yes\n",
        "- rule: b\n  match: {priority: Warn, tags: ['!x']}\n  actions: [{action: Nope}]\n",
        "a: [",
    )
    files.append(Path("/nowhere/rules.yaml"))

    with pytest.raises(RulesError) as caught:
        load(files)

    found = [
        (Path(f.place.file).name, f.place.line, f.place.column, f.error)
        for f in caught.value.faults
        if f.place and f.severity == "error"
    ]
    assert found == [
        ("rules1.yaml", 2, 3, "unknown key 'matches' in a rule"),
        (
            "rules3.yaml",
            2,
            1,
            f"wrong syntax for the rule file '{files[2]}': line 2: while parsing a flow node, "
            "did not find expected node content",
        ),
        ("rules.yaml", 0, 0, "open /nowhere/rules.yaml: no such file or directory"),
        ("rules1.yaml", 3, 13, "'continue' setting can be 'true' or 'false' only"),
        ("rules1.yaml", 1, 9, "no action specified"),
        ("rules2.yaml", 2, 21, "incorrect priority 'Warn'"),
        ("rules2.yaml", 2, 34, "incorrect tag '!x'"),
    ]
    assert str(caught.value).splitlines()[0] == "invalid rules"
    assert len(str(caught.value).splitlines()) == len(found) + 1


def test_a_missing_block_is_named_when_all_files_are_there(faults_of: Faults) -> None:
    (fault,) = faults_of(
        "[{action: Terminate Pod, actionner: test:log}]",
        "[{rule: r, match: {rules: [x]}, actions: [{action: Terminate pod}]}]",
    )

    assert (fault.error, fault.action, fault.rule) == ("missing actionner", "Terminate pod", "r")
    assert fault.nearest == "Terminate Pod"


def test_no_file_and_folders(tmp_path: Path) -> None:
    assert [fault.error for fault in read([]).faults] == ["no rule file is provided"]
    assert [fault.error for fault in read([tmp_path]).faults] == [
        f"open {tmp_path}: is a directory"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: b", "the rules must be a list of blocks, found a map"),
        ("text", "the rules must be a list of blocks, found a string"),
        ("- text", "a block must be a map with 'rule' or 'action', found a string"),
        ("[{rule: [r]}]", "'rule' must be a text, found a list"),
        ("[{rule: r, match: [x]}]", "'match' must be a map, found a list"),
        ("[{rule: r, match: {rules: x}}]", "'rules' must be a list, found a string"),
        (
            "[{rule: r, match: {tags: [[x]]}}]",
            "'tags' must be a list of texts, found an item that is a list",
        ),
        ("[{rule: r, actions: {action: a}}]", "'actions' must be a list, found a map"),
        ("[{rule: r, actions: [x]}]", "an action must be a map, found a string"),
        ("[{action: a, parameters: [x]}]", "'parameters' must be a map, found a list"),
        ("[{action: a, output: x}]", "'output' must be a map, found a string"),
    ],
)
def test_wrong_types(faults_of: Faults, text: str, problem: str) -> None:
    errors = [fault.error for fault in faults_of(text)]

    assert any(error.startswith("wrong syntax for the rule file ") for error in errors)
    assert any(error.endswith(f": {problem}") for error in errors)


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("{rule: r, dry_run: yes}", "'dry_run' setting can be 'true' or 'false' only"),
        ("{rule: r, actions: [{action: a, continue: True}]}", "'continue' setting can be"),
        ("{rule: r, actions: [{action: a, ignore_errors: 1}]}", "'ignore_errors' setting can be"),
        ("{rule: r, actions: [{actionner: test:log}]}", "action without a name"),
        ("{rule: r, actions: [{action: a, output: {target: x:y}}]}", "missing 'parameters' for"),
        ("{rule: r, match: {Rules: [x]}}", "unknown key 'Rules' in a match"),
        ("{rule: r, actions: [{action: a, params: {}}]}", "unknown key 'params' in an action"),
        (
            "{rule: r, actions: [{action: a, output: {param: x}}]}",
            "unknown key 'param' in an output",
        ),
        ("{action: a, match: {}}", "unknown key 'match' in an action"),
        ("{action: }", "action without a name"),
    ],
)
def test_mistakes_in_a_rule(faults_of: Faults, rule: str, error: str) -> None:
    assert any(fault.error.startswith(error) for fault in faults_of(f"[{rule}]"))


@pytest.mark.parametrize(
    ("item", "warning"),
    [
        ("a= b", "the value of 'a' starts or ends with a space"),
        ("a=b , c=d", "the value of 'a' starts or ends with a space"),
        ("a= =b", "the value of 'a' starts or ends with a space"),
        ("a==b", "the value of 'a' starts with '=': one '=' compares"),
    ],
)
def test_values_that_hardly_mean_what_they_say(faults_of: Faults, item: str, warning: str) -> None:
    actions = "actions: [{action: a, actionner: test:log}]"
    (fault,) = faults_of(f"[{{rule: r, match: {{output_fields: ['{item}']}}, {actions}}}]")

    assert (fault.severity, fault.error) == ("warning", warning)


def test_a_rule_without_criterion_is_a_warning(faults_of: Faults) -> None:
    text = "[{rule: r, match: MATCH, actions: [{action: a, actionner: test:log}]}]"

    for match in ("", "{}", "{rules: [], priority: }"):
        (fault,) = faults_of(text.replace("MATCH", match))
        assert fault.severity == "warning"
        assert fault.error == "the rule has no match criterion: it matches every event"
        (fault,) = faults_of(text.replace("MATCH", match), strict=True)
        assert fault.severity == "error"


def test_the_order_of_files_is_the_order_of_rules(write: Write) -> None:
    text = "[{rule: NAME, match: {rules: [x]}, actions: [{action: a, actionner: test:log}]}]"
    files = write(*(text.replace("NAME", name) for name in "abc"))

    for order in itertools.permutations(range(3)):
        names = [rule.name for rule in load([files[index] for index in order]).rules]
        assert names == ["abc"[index] for index in order]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("'30s'", 30), ("2m", 120), ("24h", 86400), ("~", None)],
)
def test_the_timeout_of_an_action(bind_rules: Bind, text: str, seconds: float | None) -> None:
    rules = bind_rules(
        f"""
        - rule: r
          match: {{rules: [x]}}
          actions: [{{action: a, actionner: test:log, timeout: {text}}}]
        """
    )

    assert rules.rules[0].actions[0].timeout_seconds == seconds


@pytest.mark.parametrize("text", ["0", "0.0s", "-1", "86401", "25h", "1d", "soon", "true", "012"])
def test_a_timeout_that_is_none(faults_of: Faults, text: str) -> None:
    (fault,) = faults_of(
        f"""
        - rule: r
          match: {{rules: [x]}}
          actions:
            - {{action: a, actionner: test:log, timeout: {text}}}
        """
    )

    assert fault.error == "'timeout' must be a duration above 0, of 86400 seconds at most"
    assert (fault.value, fault.key) == (text, "timeout")
    assert fault.place
    assert (fault.place.line, fault.place.column) == (5, 49)


def test_a_misspelt_timeout(faults_of: Faults) -> None:
    faults = faults_of("[{action: a, actionner: test:log, timout: 5}]")

    assert [(f.error, f.nearest) for f in faults] == [
        ("unknown key 'timout' in an action", "timeout")
    ]
