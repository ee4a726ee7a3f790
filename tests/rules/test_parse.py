"""YAML as the reference reads it, with the place of everything."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from falco_talon.rules.nodes import ListNode, MapNode, Scalar, kind_of, value_of
from falco_talon.rules.parse import WrongSyntaxError, parse


def first(text: str) -> Any:
    return value_of(parse(text.encode(), "f")[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "y", "n", "12:30", "2001-01-01")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("null", "Null", "NULL", "~", "")),
        ("tRUE", "tRUE"),
        ("012", 10),
        ("-012", -10),
        ("08", 8.0),
        ("0o17", 15),
        ("0b101", 5),
        ("0x1f", 31),
        ("1_000", 1000),
        ("+5", 5),
        ("0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("99999999999999999999", 99999999999999999999),
        (".inf", float("inf")),
        ("-.Inf", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("0x", "0x"),
        ("_1", "_1"),
        ("-", [None]),
        ('"5"', "5"),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ('!!int "5"', 5),
        ('!!bool "true"', True),
        ("!!binary aGk=", "hi"),
        ("!odd 5", "5"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_of_free_values(text: str, value: Any) -> None:
    assert first(f"a: {text}" if text != "-" else "a:\n-") == {"a": value}
    if not isinstance(value, list):
        assert type(first(f"a: {text}")["a"]) is type(value)


def test_nan() -> None:
    assert str(first("a: .nan")["a"]) == "nan"


def test_anchors_aliases_and_merges() -> None:
    text = """
        base: &base {a: 1, b: 2}
        more: &more {b: 3, c: 4}
        one: {<<: *base, b: own}
        two: {<<: [*base, *more], d: 5}
        quoted: {"<<": text}
        again: &base x
        last: *base
    """

    found = first(text)

    assert found["one"] == {"a": 1, "b": "own"}
    assert found["two"] == {"a": 1, "b": 2, "c": 4, "d": 5}
    assert found["quoted"] == {"<<": "text"}
    assert found["last"] == "x"


def test_documents() -> None:
    assert parse(b"", "f") == []
    assert parse(b"# nothing\n", "f") == []
    assert [value_of(root) for root in parse(b"---\n---\n[1]\n---\n{a: b}\n...\n", "f")] == [
        None,
        [1],
        {"a": "b"},
    ]
    assert first("\ufeff[é]") == ["é"]
    assert value_of(parse("[é]".encode("utf-16"), "f")[0]) == ["é"]


def test_places() -> None:
    root = parse(b"# comment\n- rule: r\n  tags: [a,\n    bc]\n", "rules.yaml")[0]

    assert isinstance(root, ListNode)
    item = root[0]
    assert isinstance(item, MapNode)
    assert (item.file, item.line, item.column) == ("rules.yaml", 2, 3)
    key = next(key for key in item if key == "tags")
    tags = item[key]
    assert (key.line, key.column) == (3, 3)
    assert isinstance(tags, ListNode)
    assert (tags.line, tags.column) == (3, 9)
    assert isinstance(tags[1], Scalar)
    assert (tags[1].line, tags[1].column) == (4, 5)


@pytest.mark.parametrize(
    ("text", "problem", "line", "column"),
    [
        ("a: b: c", "mapping values are not allowed", 1, 5),
        ("- a\n- [b", "expected ',' or ']'", 3, 1),
        ("x: 1\nx: 2", "the key 'x' stands here a second time", 2, 1),
        ("{<<: {a: 1}, <<: {b: 1}}", "the key '<<' stands here a second time", 1, 14),
        ("[1]: 2", "a key must be a word", 1, 1),
        ("a: *b", "unknown anchor 'b'", 1, 4),
        ("a: &a [*a]", "unknown anchor 'a'", 1, 8),
        ("<<: text", "'<<' takes a map", 1, 5),
        ("a: !!binary '*'", "no base64", 1, 4),
        ("a: \x01", "control characters are not allowed", 1, 4),
        ("[" * 200, "nested more than 100 levels deep", 1, 102),
    ],
)
def test_what_is_not_well_formed(text: str, problem: str, line: int, column: int) -> None:
    with pytest.raises(WrongSyntaxError, match=problem.replace("[", r"\[")) as caught:
        parse(text.encode(), "f")

    assert (caught.value.line, caught.value.column) == (line, column)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(WrongSyntaxError, match="invalid"):
        parse(b"a: b\nc: \xff\xfe\xfd", "f")


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    with pytest.raises(WrongSyntaxError, match="too many repetitions"):
        parse("\n".join(lines).encode(), "f")


def test_kinds() -> None:
    root = parse(b"[[], {}, ~, true, 5, x]", "f")[0]

    assert isinstance(root, ListNode)
    assert [kind_of(node) for node in root] == [
        "a list",
        "a map",
        "null",
        "a boolean",
        "a number",
        "a string",
    ]


# The library knows YAML 1.1 only and writes `1e3` or `0X1` without quotes: to us they are numbers.
like_a_number = re.compile(r"[-+]?[._]*[0-9][0-9a-fA-FxXoO._+-]*")
texts = st.text().filter(lambda text: not like_a_number.fullmatch(text))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_reads_what_a_yaml_library_writes(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=False)

    assert value_of(parse(text.encode(), "f")[0]) == value


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        roots = parse(data, "f")
    except WrongSyntaxError as error:
        assert error.line >= 1
    else:
        assert isinstance(roots, list)
