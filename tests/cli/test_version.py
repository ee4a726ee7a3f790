"""``talon version``"""

import json
import platform
from importlib.metadata import version

from tests.cli.conftest import Talon

KEYS = [
    "GitVersion",
    "GitCommit",
    "GitTreeState",
    "BuildDate",
    "PythonVersion",
    "Compiler",
    "Platform",
]


def test_text(talon: Talon) -> None:
    """Seven lines, the values in one column, then an empty line."""
    done = talon("version")
    *lines, last = done.stdout.split("\n")[:-1]

    assert (done.returncode, last) == (0, "")
    assert [line.split(":")[0] for line in lines] == KEYS
    assert {line[:15].strip().endswith(":") for line in lines} == {True}
    assert lines[0] == f"GitVersion:    v{version('falco-talon')}"
    assert lines[4] == f"PythonVersion: {platform.python_version()}"


def test_json(talon: Talon) -> None:
    facts = json.loads(talon("version", "--format", "json").stdout)

    assert list(facts) == KEYS
    assert facts["GitCommit"] == "unknown"
    assert facts["Platform"].startswith("linux/")
