"""``talon rules check|print|schema``, the pre-commit hook, the GitHub action."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Talon

ROOT = Path(__file__).parents[2]

GOOD = """
- rule: Shell
  match:
    rules: [Terminal shell in container]
  actions:
    - action: Label
      actionner: kubernetes:label
      parameters:
        labels: {suspicious: true}
"""
BAD = """
- rule: Shell
  matches:
    rules: [Terminal shell in container]
  actions:
    - action: Label
      actionner: kubernetes:lable
"""
DOUBTFUL = GOOD.replace("        labels", "        lvl: pod\n        labels")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return written(tmp_path / "good.yaml", GOOD)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return written(tmp_path / "bad.yaml", BAD)


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    return written(tmp_path / "doubtful.yaml", DOUBTFUL)


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def lines_of(output: str) -> list[str]:
    """Return the log lines without their time."""
    return [line.partition(" ")[2] for line in output.splitlines()]


def test_valid(talon: Talon, good: Path) -> None:
    done = talon("rules", "check", "-r", good)

    assert (done.returncode, done.stderr) == (0, "")
    assert lines_of(done.stdout) == ['INF rules result="rules file valid"']


def test_invalid_with_every_fault(talon: Talon, good: Path, bad: Path, doubtful: Path) -> None:
    done = talon("rules", "check", "-r", bad, "-r", good, "-r", doubtful, "-r", "/nowhere.yaml")

    assert (done.returncode, done.stderr) == (1, "")
    assert lines_of(done.stdout) == [
        "ERR rules error=\"unknown key 'matches' in a rule\" "
        'allowed="rule, description, continue, dry_run, match, actions, notifiers" '
        f"key=matches nearest=match place={bad}:3:3 rule=Shell",
        'ERR rules error="open /nowhere.yaml: no such file or directory" place=/nowhere.yaml',
        f'ERR rules error="unknown actionner" action=Label actionner=kubernetes:lable '
        f'allowed="{", ".join(actionners())}" found=kubernetes:lable nearest=kubernetes:label '
        f"place={bad}:7:18 rule=Shell",
        'WRN rules action=Label actionner=kubernetes:label allowed="labels, level" key=lvl '
        f"nearest=level place={doubtful}:9:9 rule=Shell warning=\"unknown parameter 'lvl'\"",
        'FTL rules error="invalid rules"',
    ]


def actionners() -> list[str]:
    from falco_talon.actionners import ACTIONNERS

    return [actionner.name for actionner in ACTIONNERS]


def test_strict(talon: Talon, doubtful: Path) -> None:
    assert talon("rules", "check", "-r", doubtful).returncode == 0
    assert talon("rules", "check", "-r", doubtful, "--strict").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [("check", "--format", "xml"), ("check", "--wrong"), ("chek",), ("print", "--strict"), ()],
    ids=str,
)
def test_wrong_usage(talon: Talon, arguments: tuple[str, ...]) -> None:
    assert talon("rules", *arguments).returncode == 2


def test_json(talon: Talon, bad: Path, good: Path) -> None:
    done = talon("rules", "check", "-r", bad, "--format", "json")
    answer = json.loads(done.stdout)

    assert done.returncode == 1
    assert {key: answer[key] for key in ("valid", "rules", "errors", "warnings")} == {
        "valid": False,
        "rules": 1,
        "errors": 2,
        "warnings": 1,
    }
    assert answer["findings"][0] == {
        "severity": "error",
        "error": "unknown key 'matches' in a rule",
        "file": str(bad),
        "line": 3,
        "column": 3,
        "rule": "Shell",
        "action": None,
        "actionner": None,
        "output_target": None,
        "key": "matches",
        "found": None,
        "allowed": [
            "rule",
            "description",
            "continue",
            "dry_run",
            "match",
            "actions",
            "notifiers",
        ],
        "nearest": "match",
    }
    valid = json.loads(talon("rules", "check", "-r", good, "--format", "json").stdout)
    assert valid == {"valid": True, "rules": 1, "errors": 0, "warnings": 0, "findings": []}


def test_github(talon: Talon, tmp_path: Path) -> None:
    """One workflow command a finding; nothing in the rules can end or forge one."""
    text = "- rule: '100% mine: a'\n  match: {tags: [\"a\\n::error::b\"]}\n"
    file = written(tmp_path / "odd, name.yaml", text)

    done = talon("rules", "check", "-r", file, "--format", "github")

    place, rule = str(file).replace(",", "%2C"), "100%25 mine%3A a"
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [
        f"::error file={place},line=1,col=9,title=Falco Talon rules%3A {rule}::no action specified",
        f"::error file={place},line=2,col=18,title=Falco Talon rules%3A {rule}::"
        "incorrect tag 'a%0A::error::b', allowed: letters, digits and _ . : / @ + -",
    ]
    assert lines_of(done.stdout.splitlines()[2]) == ['FTL rules error="invalid rules"']


def test_json_log_lines(talon: Talon, bad: Path, tmp_path: Path) -> None:
    config = written(tmp_path / "config.yaml", f"log_format: json\nrules_files: ['{bad}']\n")

    done = talon("rules", "check", "-c", config)

    *findings, verdict = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert findings[0]["error"] == "unknown key 'matches' in a rule"
    assert findings[0]["place"] == f"{bad}:3:3"
    assert (verdict["level"], verdict["error"]) == ("fatal", "invalid rules")


def test_unknown_default_notifier(talon: Talon, good: Path, tmp_path: Path) -> None:
    config = written(tmp_path / "config.yaml", "default_notifiers: [Webhook, webhok]\n")

    done = talon("rules", "check", "-c", config, "-r", good)

    assert done.returncode == 1
    assert 'error="unknown notifier"' in done.stdout
    assert "found=webhok" in done.stdout
    assert "nearest=webhook" in done.stdout
    assert done.stdout.count("ERR") == 1


def test_print(talon: Talon, good: Path, tmp_path: Path) -> None:
    first = talon("rules", "print", "-r", good)
    again = talon("rules", "print", "-r", written(tmp_path / "printed.yaml", first.stdout))

    assert first.returncode == 0
    assert again.stdout == first.stdout
    assert yaml.safe_load(first.stdout)[0]["rule"] == "Shell"
    plain = json.loads(talon("rules", "print", "-r", good, "--format", "json").stdout)
    assert plain == yaml.safe_load(first.stdout)


def test_print_of_invalid_rules(talon: Talon, bad: Path) -> None:
    done = talon("rules", "print", "-r", bad)

    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown key 'matches'" in done.stderr


def test_schema(talon: Talon) -> None:
    """The committed schema is what the program prints."""
    done = talon("rules", "schema")

    assert done.returncode == 0
    committed = (ROOT / "rules" / "rules.schema.json").read_text()
    assert done.stdout == committed, "run: talon rules schema > rules/rules.schema.json"


def with_talon() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_pre_commit_hook(tmp_path: Path) -> None:
    """The hook as a repository of rules has it, but with the program that is installed here."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "python"
    hook |= {"language": "system", "args": ["-r", "rules.yaml"]}
    environ = with_talon() | {"PRE_COMMIT_HOME": str(tmp_path / "cache")}
    repository = tmp_path / "repository"

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=repository, env=environ, capture_output=True, text=True, check=False
        )

    repository.mkdir()
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    written(repository / ".pre-commit-config.yaml", yaml.safe_dump(config))
    run("git", "init", "-q")
    pre_commit = (sys.executable, "-m", "pre_commit", "run", "--all-files")

    written(repository / "rules.yaml", GOOD)
    run("git", "add", ".")
    passed = run(*pre_commit)
    assert passed.returncode == 0, passed.stdout + passed.stderr

    written(repository / "rules.yaml", BAD)
    failed = run(*pre_commit)
    assert failed.returncode == 1
    assert "place=rules.yaml:3:3" in failed.stdout


@pytest.mark.parametrize(
    ("files", "strict", "code", "annotations"),
    [
        (["good.yaml"], "false", 0, []),
        (["doubtful.yaml"], "false", 0, ["::warning file=doubtful.yaml,line=9,col=9,"]),
        (["doubtful.yaml"], "true", 1, ["::error file=doubtful.yaml,line=9,col=9,"]),
        (["good.yaml", "", "bad.yaml"], "false", 1, ["::error file=bad.yaml,line=3,col=3,"]),
    ],
)
def test_github_action(
    tmp_path: Path,
    good: Path,
    bad: Path,
    doubtful: Path,
    files: list[str],
    strict: str,
    code: int,
    annotations: list[str],
) -> None:
    """The steps of the action do what GitHub would run."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    python, install, check = action["runs"]["steps"]
    inputs = {"rules": "\n".join(files), "strict": strict}
    environ = {
        name: inputs[value.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, value in check["env"].items()
    }

    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", check["run"]],
        cwd=tmp_path,
        env=with_talon() | environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert python["uses"].startswith("actions/setup-python@")
    assert '"$GITHUB_ACTION_PATH"' in install["run"]
    assert set(inputs) <= set(action["inputs"])
    assert done.returncode == code, done.stdout + done.stderr
    for start in annotations:
        assert any(line.startswith(start) for line in done.stdout.splitlines())
    assert done.stdout.count("::error") >= code
    assert dedent(done.stderr) == ""
