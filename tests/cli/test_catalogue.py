"""``talon actionners|outputs|notifiers list``"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field, SecretStr
from typer.testing import CliRunner

from falco_talon.catalog import Catalog
from falco_talon.cli import app
from falco_talon.cli.entries import actionner_entry, notifier_entry, output_entry
from falco_talon.plugin import Actionner, BaseParameters, Notifier, Output, PolicyRule
from tests.cli.conftest import Talon


class Shout(Actionner):
    """Shout.

    Very loud.
    """

    name = "voice:shout"
    source = ("syscalls", "k8s_audit")
    required_output_fields = ("k8s.pod.name",)
    continue_ = False
    artifact = "maybe"
    permissions = (PolicyRule(("pods",), ("get",)), PolicyRule(("x",), ("list",), ("example.com",)))
    cloud_permissions = ("s3:PutObject",)
    example = """
      - action: Shout
        actionner: voice:shout
    """

    class Parameters(BaseParameters):
        """How loud."""

        words: dict[str, str] = Field(description="Words.")
        times: int
        targets: list[str]
        volume: float = 1.5
        folder: Path = Path("/tmp")
        token: SecretStr = SecretStr("hush")
        from_: str = Field("me", alias="from")
        ways: tuple[str, ...] = ("a",)


class Whisper(Actionner):
    """Whisper."""

    name = "voice:whisper"


class Store(Output):
    """Store."""

    name = "box:store"


class Tell(Notifier):
    """Tell."""

    name = "tell"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0
    return done.stdout


def entries(text: str) -> dict[str, Any]:
    """Parse what a list command prints."""
    parts = re.split(r"^--- (.+) ---\n\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], map(yaml.safe_load, parts[1::2]), strict=True))


class TestEntries:
    def test_actionner(self) -> None:
        entry = actionner_entry(Shout)

        assert list(entry.items()) == [
            (
                "parameters",
                {
                    "folder": "/tmp",
                    "from": "me",
                    "targets (required)": [],
                    "times (required)": 0,
                    "token": "**********",
                    "volume": 1.5,
                    "ways": ["a"],
                    "words (required)": {},
                },
            ),
            ("name", "shout"),
            ("category", "voice"),
            ("description", "Shout.\n\nVery loud."),
            ("source", "syscalls, k8s_audit"),
            (
                "permissions",
                [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                    {"apiGroups": ["example.com"], "resources": ["x"], "verbs": ["list"]},
                ],
            ),
            ("cloud_permissions", ["s3:PutObject"]),
            ("example", "- action: Shout\n  actionner: voice:shout\n"),
            ("required_output_fields", ["k8s.pod.name"]),
            ("continue", False),
            ("use_context", False),
            ("allow_output", True),
            ("require_output", False),
        ]

    def test_what_is_empty(self) -> None:
        assert list(actionner_entry(Whisper)) == [
            "parameters",
            "name",
            "category",
            "description",
            "source",
            "required_output_fields",
            "continue",
            "use_context",
            "allow_output",
            "require_output",
        ]
        assert actionner_entry(Whisper)["parameters"] == {}
        assert output_entry(Store) == {
            "name": "store",
            "category": "box",
            "description": "Store.",
            "parameters": {},
        }
        assert notifier_entry(Tell) == {"name": "tell", "description": "Tell."}


@pytest.mark.parametrize("kind", ["actionners", "outputs", "notifiers"])
class TestLists:
    def test_all_in_their_order(self, kind: str) -> None:
        plugins = getattr(Catalog.load(), kind)

        assert list(entries(run(kind, "list"))) == list(plugins)

    def test_json_says_the_same(self, kind: str) -> None:
        listed = json.loads(run(kind, "list", "--format", "json"))

        assert {entry.pop("full_name"): entry for entry in listed} == entries(run(kind, "list"))

    def test_only_those_asked_for(self, kind: str) -> None:
        name = next(iter(getattr(Catalog.load(), kind)))

        assert list(entries(run(kind, "list", name))) == [name]

    def test_an_unknown_name(self, talon: Talon, kind: str) -> None:
        name = next(iter(getattr(Catalog.load(), kind)))
        done = talon(kind, "list", name + "x")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"error: there is no {kind[:-1]} '{name}x', did you mean '{name}'?\n"
        )


def test_layout() -> None:
    assert run("outputs", "list", "local:file").startswith(
        "--- local:file ---\n\nname: file\ncategory: local\ndescription: "
    )
    text = run("actionners", "list", "kubernetes:label")
    assert "\nparameters:\n    labels (required): {}\n    level: pod\n" in text
    assert "\npermissions:\n    - {apiGroups: [''], resources: [" in text
    assert "\nrequired_output_fields:\n    - k8s.ns.name\n" in text
    assert text.endswith("require_output: false\n\n")
