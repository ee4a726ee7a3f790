"""What all commands have in common: exit codes, help, errors, options before the command."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from falco_talon.cli import app
from falco_talon.cli.options import ConfigFile, RulesFiles, read_config, remember
from falco_talon.errors import ConfigError
from tests.cli.conftest import Talon

COMMANDS = [
    ("server",),
    ("actionners", "list"),
    ("outputs", "list"),
    ("notifiers", "list"),
    ("events", "dead", "list"),
    ("events", "dead", "show"),
    ("events", "dead", "replay"),
    ("events", "dead", "drop"),
    ("demo",),
    ("version",),
    ("completion",),
]


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["nope"],
            ["version", "--nope"],
            ["version", "extra"],
            ["version", "--format", "xml"],
            ["actionners"],
            ["actionners", "nope"],
            ["server", "-c"],
            ["completion"],
            ["completion", "tcsh"],
            [],
        ],
        ids=" ".join,
    )
    def test_wrong_usage_exits_with_2(self, talon: Talon, arguments: list[str]) -> None:
        done = talon(*arguments)

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(("Usage: ", "Error: "))
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help_has_examples(self, command: tuple[str, ...], flag: str) -> None:
        done = CliRunner().invoke(app, [*command, flag])

        assert done.exit_code == 0
        assert f"\n  Examples:\n    {'source <(' if command == ('completion',) else ''}talon" in (
            done.stdout
        )

    def test_the_commands_are_those_tested_here(self) -> None:
        from_app = {name for name in typer.main.get_command(app).commands}  # type: ignore[attr-defined]

        assert from_app - {"rules"} == {command[0] for command in COMMANDS}

    def test_help_and_version_are_light(self) -> None:
        program = (
            "import sys; sys.argv = ['talon', '--help']\n"
            "from falco_talon.cli import main\n"
            "try: main()\n"
            "finally:\n"
            "    heavy = {'pydantic', 'structlog', 'aiohttp', 'nats', 'opentelemetry', 'yaml',\n"
            "             'kubernetes_asyncio', 'jinja2', 'asyncio', 'rich'} & set(sys.modules)\n"
            "    print(heavy, file=sys.stderr)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

        assert done.stderr == b"set()\n"


class TestErrors:
    def test_one_plain_line_and_exit_code_1(self, talon: Talon, tmp_path: Path) -> None:
        done = talon("server", "-c", tmp_path / "absent.yaml")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"error: {tmp_path}/absent.yaml: cannot be read: No such file or directory\n"
        )

    def test_a_line_for_each_fault(self, talon: Talon, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("listen_prot: 1\nlog_format: xml\n")
        done = talon("server", "-c", path, FALCO_TALON_LISTEN_PORT="x")

        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "error: environment variable FALCO_TALON_LISTEN_PORT: listen_port: found 'x', "
            "allowed: a whole number from 0 to 65535",
            f"error: {path}:1: listen_prot: unknown key, did you mean 'listen_port'?",
            f"error: {path}:2: log_format: found 'xml', allowed: one of json, text, color",
        ]

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        command = f"{sys.executable} -m falco_talon actionners list | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)

        assert done.stderr == b""


class TestOptionsAnywhere:
    @pytest.fixture
    def given(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def command(self, given: dict[str, Any]) -> typer.Typer:
        """Like the real one: a group with a command that reads the configuration."""
        app = typer.Typer(callback=remember)
        group = typer.Typer(callback=remember)

        @group.command("do")
        def do(context: typer.Context, config: ConfigFile = None, rules: RulesFiles = None) -> None:
            given["config"] = read_config(context, config, rules)

        app.add_typer(group, name="group")
        return app

    @pytest.mark.parametrize(
        "arguments",
        [
            ["-c", "FILE", "group", "do"],
            ["group", "-c", "FILE", "do"],
            ["group", "do", "-c", "FILE"],
            ["--config", "absent.yaml", "group", "do", "--config", "FILE"],
        ],
        ids=" ".join,
    )
    def test_config(
        self, command: typer.Typer, given: dict[str, Any], arguments: list[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("listen_port: 7\n")
        arguments = [str(path) if word == "FILE" else word for word in arguments]

        assert CliRunner().invoke(command, arguments).exit_code == 0
        assert given["config"].listen_port == 7

    def test_rules_add_up(self, command: typer.Typer, given: dict[str, Any]) -> None:
        arguments = ["-r", "a", "-r", "b,c", "group", "-r", "d", "do", "--rules", "e"]

        assert CliRunner().invoke(command, arguments).exit_code == 0
        assert given["config"].rules_files == tuple(map(Path, ["a", "b,c", "d", "e"]))

    def test_settings_of_notifiers_have_variables(
        self, command: typer.Typer, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FALCO_TALON_NOTIFIERS_WEBHOOK_URL", "http://example.com")
        CliRunner().invoke(command, ["group", "do"])

        assert dict(given["config"].notifiers["webhook"]) == {"url": "http://example.com"}

    def test_an_error_goes_through(self, command: typer.Typer) -> None:
        done = CliRunner().invoke(command, ["group", "do", "-c", "absent.yaml"])

        assert isinstance(done.exception, ConfigError)

    @pytest.mark.parametrize(
        "command",
        [c for c in COMMANDS if c[0] not in {"server", "events", "demo", "completion"}],
    )
    def test_accepted_where_they_are_not_needed(self, command: tuple[str, ...]) -> None:
        for arguments in (["-c", "x", *command], [*command, "-c", "x", "-r", "y"]):
            assert CliRunner().invoke(app, arguments).exit_code == 0


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
    def test_the_script_asks_the_program(self, talon: Talon, shell: str) -> None:
        done = talon("completion", shell)

        assert (done.returncode, done.stderr) == (0, "")
        assert "_TALON_COMPLETE" in done.stdout

    def test_the_program_answers(self, talon: Talon) -> None:
        program = "import sys; sys.argv = ['talon']; from falco_talon.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"_TALON_COMPLETE": "complete_bash", "COMP_WORDS": "talon not", "COMP_CWORD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.stdout.split() == ["notifiers"]
