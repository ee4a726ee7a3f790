"""Scalars become what the type of a parameter wants."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.rules.binding import bind
from falco_talon.rules.conversion import as_wanted
from falco_talon.rules.load import read
from falco_talon.rules.parse import parse
from tests.rules.conftest import Write


class Level(Enum):
    """A choice of texts."""

    ON = "true"
    OFF = "false"


class Inner(BaseModel):
    """A nested model."""

    name: str = ""
    number: int = Field(0, alias="count")


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "012", "012"),
        (str, "1.50", "1.50"),
        (str, "True", "True"),
        (str, "~", ""),
        (str, "x", "x"),
        (SecretStr, "012", "012"),
        (Path, "7", "7"),
        (Level, "true", "true"),
        (str | None, "5", "5"),
        (str | None, "~", None),
        (Annotated[str, BeforeValidator(str)], "1_0", "1_0"),
        (int, "012", 10),
        (int, "3.0", 3),
        (int, "3.5", 3.5),
        (int, '"3"', "3"),
        (int | str, "012", 10),
        (int | str, "true", "true"),
        (float | str, "5", 5),
        (bool, "true", True),
        (bool, "yes", "yes"),
        (bool, "1", 1),
        (bool | str, "true", True),
        (Literal["1", "2"], "1", "1"),
        (Literal[1, "2"], "1", 1),
        (Literal[1, "true"], "true", "true"),
        (Any, "012", 10),
        (list[str], "[1.0, x, ~]", ["1.0", "x", None]),
        (list[int] | str, "[1.0, 2]", [1, 2]),
        (tuple[str, ...], "[5]", ["5"]),
        (dict[str, str], "{1: 2, e: , f: 1.0}", {"1": "2", "e": "", "f": "1.0"}),
        (dict[str, list[str]] | None, "{a: [5]}", {"a": ["5"]}),
        (dict[str, Any], "{a: [5, 012]}", {"a": [5, 10]}),
        (Inner, "{name: 5, count: 2.0, other: 012}", {"name": "5", "count": 2, "other": 10}),
        (list[Inner] | None, "[{name: 012}]", [{"name": "012"}]),
        (str, "[5]", [5]),
        (list[str], "{a: 5}", {"a": 5}),
    ],
)
def test_as_wanted(annotation: Any, text: str, value: Any) -> None:
    (root,) = parse(f"- {text}\n".encode(), "f")

    assert isinstance(root, list)
    found = as_wanted(annotation, root[0])
    assert (found, type(found)) == (value, type(value))


def test_labels_of_the_shipped_actionner_are_literal(write: Write) -> None:
    """The published documentation writes them without quotes."""
    text = """
    - rule: r
      match: {rules: [x]}
      actions:
        - action: a
          actionner: kubernetes:label
          parameters:
            labels: {suspicious: true, number: 012, version: 1.50, gone: }
    """
    rules = bind(read(write(text)), Catalog.load(), Clients())

    assert rules.rules[0].actions[0].actionner.parameters.labels == {
        "suspicious": "true",
        "number": "012",
        "version": "1.50",
        "gone": "",
    }
