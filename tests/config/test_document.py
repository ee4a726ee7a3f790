"""One plain tree from a file of any format."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falco_talon.config.document import read_document
from falco_talon.errors import ConfigError
from tests.config.conftest import Write


def fault(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("name", ["c.yaml", "c.yml", "c.json", "c.toml", "C.YAML"])
def test_an_empty_file_is_an_empty_tree(write: Write, name: str) -> None:
    assert read_document(write(name, "")).values == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "a: {B: 1, c: [true, 1.5, null, x]}\nd: null\n"),
        ("c.json", '{"a": {"B": 1, "c": [true, 1.5, null, "x"]}, "d": null}'),
        ("c.toml", "[a]\nB = 1\nc = [true, 1.5, 'x']\n"),
    ],
)
def test_scalars_are_text_and_nulls_left_out(write: Write, name: str, text: str) -> None:
    values = read_document(write(name, text)).values

    assert values == {"a": {"b": "1", "c": ["true", "1.5", "x"]}}


def test_yaml_text_is_kept_as_it_stands(write: Write) -> None:
    text = "a: 012\nb: 1_000\nc: yes\nd: 2001-01-01\ne: 12:30\nf: 1e3\ng: 'null'\nh: !!str 5\n"

    assert read_document(write("c.yaml", text)).values == {
        "a": "012",
        "b": "1_000",
        "c": "yes",
        "d": "2001-01-01",
        "e": "12:30",
        "f": "1e3",
        "g": "null",
        "h": "5",
    }


def test_keys_are_lower_case_down_to_those_of_the_user(write: Write) -> None:
    text = "Notifiers: {Webhook: {Custom_Headers: {X-Id: 1, x-id: 2}}}\n"

    assert read_document(write("c.yaml", text)).values == {
        "notifiers": {"webhook": {"custom_headers": {"X-Id": "1", "x-id": "2"}}}
    }


def test_anchors_and_merge_keys(write: Write) -> None:
    text = (
        "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\n"
        "one: {<<: *x, a: 9}\nboth: {<<: [*x, *y], d: 5}\nsame: *x\n"
    )
    values = read_document(write("c.yaml", text)).values

    assert values["one"] == {"a": "9", "b": "2"}
    assert values["both"] == {"a": "1", "b": "2", "c": "4", "d": "5"}
    assert values["same"] == {"a": "1", "b": "2"}


def test_lines(write: Write) -> None:
    document = read_document(write("c.yaml", "# comment\na: 1\nb:\n  c:\n  d: [1]\n"))

    assert document.lines == {("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "d"): 5}


def test_a_byte_order_mark_is_no_content(write: Write) -> None:
    assert read_document(write("c.json", "\ufeff{}")).values == {}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.yaml", "a: 1\nb: 2\nA: 3\n", ":3: a: stands here a second time"),
        ("c.yaml", "a:\n  b: 1\n  b: 1\n", ":3: a.b: stands here a second time"),
        ("c.json", '{"a": 1, "A": 1}', ": a: stands here a second time"),
        ("c.json", '{"a": 1, "a": 1}', ": a: stands here a second time"),
        ("c.toml", "a = 1\nA = 1\n", ": a: stands here a second time"),
        ("c.toml", "a = 1\na = 1\n", ":2: not well-formed TOML"),
        ("c.yaml", "- a\n", ": a mapping of keys to values is expected at the top"),
        ("c.yaml", "just text\n", ": a mapping of keys to values is expected at the top"),
        ("c.json", "[1]", ": a mapping of keys to values is expected at the top"),
        ("c.yaml", "a: 1\n---\nb: 1\n", ":2: not well-formed: but found another document"),
        ("c.yaml", "a: [1\n", ":2: not well-formed: did not find expected ',' or ']'"),
        ("c.yaml", "a:\n\t- b\n", ":2: not well-formed"),
        ("c.yaml", "a: \x00\n", ": not well-formed"),
        ("c.yaml", "a: !!python/name:os.system x\n", ":1: a: a YAML tag"),
        ("c.yaml", "a: !mine x\n", ":1: a: a YAML tag"),
        ("c.yaml", "? [a]\n: 1\n", ":1: a key is one word, not a collection"),
        ("c.yaml", "a: &a [*a]\n", ": nested too deeply"),
        ("c.yaml", "a: " + "[" * 5000, "not well-formed"),
        ("c.json", '{"a": ' + "[" * 100_000, ": nested too deeply"),
        ("c.json", "{", ":1: not well-formed: Expecting property name"),
        ("c.toml", "a = \n", ":1: not well-formed TOML"),
        ("c.ini", "", ": unknown type of file '.ini', allowed: .yaml, .yml, .json, .toml"),
        ("config", "", ": unknown type of file '', allowed: .yaml, .yml, .json, .toml"),
    ],
)
def test_what_is_wrong(write: Write, name: str, text: str, expected: str) -> None:
    assert expected in fault(write(name, text))


def test_every_duplicate_is_named(write: Write) -> None:
    lines = fault(write("c.yaml", "a: 1\na: 1\nb: 1\nb: 1\n")).splitlines()

    assert len(lines) == 2


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")

    assert fault(tmp_path / "absent.yaml") == ": cannot be read: No such file or directory"
    assert fault(tmp_path / "folder.yaml") == ": cannot be read: Is a directory"
    assert fault(tmp_path / "latin.yaml") == ": cannot be read: it is not UTF-8 text"


_PIECES = [*"aB:-[]{},'\"?|#=1%", "&x", "*x", "<<", "!t", "!!int", "null", "---"]
_BLANKS = [" ", "\n", "\n  ", "\t"]


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
@given(
    pieces=st.lists(st.sampled_from(_PIECES + _BLANKS), max_size=30) | st.lists(st.text(max_size=9))
)
def test_any_text_is_a_tree_or_a_clear_error(
    suffix: str, pieces: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes("".join(pieces).encode(errors="replace"))
    try:
        assert isinstance(read_document(path).values, dict)
    except ConfigError as error:
        assert all(line.startswith(str(path)) for line in str(error).split("\n"))
