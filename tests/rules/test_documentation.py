"""docs/rules.md: its examples are run, its tables are complete."""

import re
from pathlib import Path

import pytest

from falco_talon.catalog import Catalog
from falco_talon.cli.findings import as_lines
from falco_talon.clients import Clients
from falco_talon.event import Event
from falco_talon.rules import keys
from falco_talon.rules.binding import BoundRules, bind
from falco_talon.rules.load import read
from falco_talon.rules.model import RulesError
from tests.rules.test_schema import valid

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "rules.md").read_text()
EXAMPLES = [
    text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.S) if re.search(r"^- ", text, re.M)
]
MISTAKES = next(text for text in EXAMPLES if text.startswith("# mistakes.yaml"))
CATALOG = Catalog.load()


def bound(text: str, folder: Path) -> BoundRules:
    file = folder / "rules.yaml"
    file.write_text(text)
    return bind(read([file]), CATALOG, Clients(), strict=True)


@pytest.mark.parametrize("text", [text for text in EXAMPLES if text != MISTAKES])
def test_examples_are_right(text: str, tmp_path: Path) -> None:
    assert len(bound(text, tmp_path)) >= 1
    assert valid(CATALOG, text)


def test_the_mistakes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mistakes.yaml").write_text(MISTAKES)
    with pytest.raises(RulesError) as caught:
        bind(read([Path("mistakes.yaml")]), CATALOG, Clients())

    shown = re.search(r"```console\n\$ talon rules check -r mistakes.yaml\n(.*?)```", TEXT, re.S)
    lines = as_lines(caught.value.faults, "text", valid=False)
    assert shown
    assert [line.partition(" ")[2] for line in lines] == shown[1].splitlines()
    assert not valid(CATALOG, MISTAKES)


def test_what_the_examples_of_matching_say(tmp_path: Path) -> None:
    """The comments beside the terms, and the sentences around them."""
    text = next(text for text in EXAMPLES if "Exact command lines" in text)
    rules = bound(text, tmp_path)

    for field, value, holds in (
        ("proc.cmdline", "env A=b C=d", True),
        ("proc.cmdline", "env A", False),
        ("proc.cmdline", "tar -cf x.tar a, b", True),
        ("k8s.pod.label[app.kubernetes.io/name]", "shop", True),
    ):
        event = Event(output_fields={field: value, "proc.aname[2]": "systemd"})
        assert rules.can_match(event) is holds
    assert rules.can_match(Event())  # != holds without the field


@pytest.mark.parametrize("key", [*keys.RULE, *keys.ACTION, *keys.MATCH, *keys.OUTPUT])
def test_every_key_is_described(key: str) -> None:
    assert f"`{key}`" in TEXT


def test_every_defect_of_the_reference_is_listed() -> None:
    differences = (DOCS / "differences.md").read_text()

    for number in range(1, 28):
        assert f"| RU-{number} |" in differences
