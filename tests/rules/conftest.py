"""Rule files of a test, read and bound."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from falco_talon.clients import Clients
from falco_talon.rules.binding import BoundRules, bind
from falco_talon.rules.load import read
from falco_talon.rules.model import Fault, RulesError, RuleSet
from tests.rules.plugins import CATALOG

Write = Callable[..., list[Path]]
Read = Callable[..., RuleSet]
Bind = Callable[..., BoundRules]
Faults = Callable[..., list[Fault]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write texts as files ``rules1.yaml``, ``rules2.yaml``…"""

    def write(*texts: str) -> list[Path]:
        files = [tmp_path / f"rules{number}.yaml" for number in range(1, len(texts) + 1)]
        for file, text in zip(files, texts, strict=True):
            file.write_text(dedent(text))
        return files

    return write


@pytest.fixture
def read_rules(write: Write) -> Read:
    """Read texts as rule files, whatever is wrong with them."""
    return lambda *texts: read(write(*texts))


@pytest.fixture
def bind_rules(write: Write) -> Bind:
    """Bind texts as rule files."""
    return lambda *texts, strict=False: bind(read(write(*texts)), CATALOG, Clients(), strict=strict)


@pytest.fixture
def faults_of(bind_rules: Bind) -> Faults:
    """Return every finding about texts as rule files."""

    def faults_of(*texts: str, strict: bool = False) -> list[Fault]:
        try:
            return list(bind_rules(*texts, strict=strict).warnings)
        except RulesError as error:
            return list(error.faults)

    return faults_of
