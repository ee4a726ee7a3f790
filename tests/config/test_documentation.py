"""The example file and the documentation say what the model says."""

from pathlib import Path

from pydantic import ByteSize, SecretStr

from falco_talon.config import Config
from falco_talon.config.document import read_document
from falco_talon.config.fields import Key, keys

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"
PAGE = ROOT / "docs" / "configuration.md"


def test_the_example_holds_the_defaults() -> None:
    assert Config.load(EXAMPLE, environ={}) == Config.load(None, environ={})


def test_every_key_stands_in_the_example() -> None:
    written = read_document(EXAMPLE).lines

    assert [key.dotted for key in keys(Config) if key.path not in written] == []


def test_the_page_has_the_table_of_the_model() -> None:
    """When this fails, put the printed table into the page."""
    table = "\n".join(row(key) for key in keys(Config))

    assert table in PAGE.read_text(encoding="utf-8"), f"\n{table}"


def row(key: Key) -> str:
    return f"| `{key.dotted}` | {key.allowed} | {default(key)} | {key.field.description} |"


def default(key: Key) -> str:
    match key.field.default:
        case SecretStr() | None | "" | ():
            return ""
        case bool(value):
            return f"`{value}`".lower()
        case ByteSize() as size:
            return f"`{size.human_readable(separator='')}`"
        case tuple(items):
            return ", ".join(f"`{item}`" for item in items)
        case value:
            return f"`{value}`"
