"""kubernetes:exec and kubernetes:script, in real containers."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes.exec import Exec
from falco_talon.actionners.kubernetes.script import Script
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import Running, about

HOSTILE = [
    "x;touch /tmp/pwned",
    "$(touch /tmp/pwned)",
    "`touch /tmp/pwned`",
    "' ; touch /tmp/pwned ; '",
    '" ; touch /tmp/pwned ; "',
    "a\ntouch /tmp/pwned\n",
    "-rf /tmp/nothing",
    "${IFS}$PATH\\",
    "\x1b]0;title\x07\u202e\N{SNOWMAN}",
]


async def execute(clients: Clients, event: Event, command: str, **parameters: Any) -> Result:
    """Run a command, as the engine does."""
    plugin = Exec(Exec.Parameters.model_validate({"command": command, **parameters}), clients)
    await plugin.check(event)
    return await plugin.run(event)


async def run_script(clients: Clients, event: Event, text: str, **parameters: Any) -> Result:
    """Run a script, as the engine does."""
    plugin = Script(Script.Parameters.model_validate({"script": text, **parameters}), clients)
    await plugin.check(event)
    return await plugin.run(event)


BOTH = pytest.mark.parametrize("run", [execute, run_script], ids=["exec", "script"])


@BOTH
async def test_output(run: Any, clients: Clients, running: Running) -> None:
    """The result is what it wrote, and tells the container and the exit code."""
    event = running.about()
    assert await run(clients, event, "echo out; echo err >&2; printf '\\033[31mred'") == Result(
        "out\nred\n[stderr] err\n",
        {"pod": "web", "namespace": running.namespace, "container": "web", "exit_code": "0"},
    )


@BOTH
@pytest.mark.parametrize("value", HOSTILE)
async def test_ac_08_values_are_data(
    run: Any, value: str, clients: Clients, running: Running
) -> None:
    """Whatever an event holds is a value in the container, quoted or not, and never runs."""
    event = running.about(**{"fd.name": value})
    result = await run(clients, event, "printf '%s|' \"$FD_NAME\" | od -An -tx1 | tr -d ' \\n'")
    assert bytes.fromhex(result.text).decode() == f"{value}|"
    await run(clients, event, "echo $FD_NAME ${FD_NAME} >/dev/null")
    assert running.sh("ls /tmp/pwned 2>&1; true").startswith("ls: ")


@BOTH
async def test_ac_07_the_daemon_does_not_show(
    run: Any, clients: Clients, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container has its own variables and those of this event: none of ours, none of
    an earlier event, and none that a shell or loader heeds.
    """
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    await run(clients, running.about(**{"fd.name": "earlier"}), "true $FD_NAME")
    fields = {"path": "/evil", "bash.env": "/evil", "ld.preload": "/evil", "ifs": "x", "env": "/e"}
    command = 'echo "$OWN|$AWS_SECRET_ACCESS_KEY|$FD_NAME|$BASH_ENV|$LD_PRELOAD|$ENV|$PATH"'
    result = await run(clients, running.about(**fields), command)
    own, *others, path = result.text.strip().split("|")
    assert own == "of web"
    assert others == [""] * 5
    assert "/evil" not in path


@BOTH
async def test_variables(run: Any, clients: Clients, running: Running) -> None:
    """Every kind of value is there under the reference's name; null and absent are unset."""
    fields = {
        "proc.aname[2]": "sh",
        "evt.time": 1700000000123456789,
        "fd.lport": 80.5,
        "proc.is_exe": True,
        "fd.nothing": None,
        "fd.list": ["a"],
    }
    event = Event(
        priority="Error", rule="R", hostname="h", source="syscall", tags=["a", "b"],
        output_fields={**(running.about().output_fields or {}), **fields},
        context={"falco-talon.rule": "My rule", "node.hostname": "n1"},
    )  # fmt: skip
    names = (
        "$PROC_ANAME_2|$EVT_TIME|$FD_LPORT|$PROC_IS_EXE|${FD_NOTHING-unset}|${FD_LIST-unset}|"
        "${FALCO-TALON_RULE}|$NODE_HOSTNAME|$PRIORITY|$RULE|$HOSTNAME|$SOURCE|$TAGS|${ABSENT-unset}"
    )
    result = await run(clients, event, f'echo "{names}"')
    assert result.text.strip() == (
        "sh|1700000000123456789|80.5|true|unset|unset|My rule|n1|Error|R|h|syscall|a,b|unset"
    )


async def test_only_used_names_are_set(clients: Clients, running: Running) -> None:
    """A variable that the text does not name is not in the environment."""
    event = running.about(**{"fd.name": "x", "proc.name": "y"})
    result = await execute(clients, event, "env; : $FD_NAME")
    assert "FD_NAME=x" in result.text
    assert "PROC_NAME" not in result.text


@BOTH
@pytest.mark.parametrize(
    ("value", "text"),
    [("x" * 1_000_000, "longer than 65536 bytes"), ("a\0b", "holds a NUL")],
    ids=["1 MB", "NUL"],
)
async def test_impossible_values(
    run: Any, value: str, text: str, clients: Clients, running: Running
) -> None:
    """What no environment can hold is refused, not cut: half a file name is another file."""
    with pytest.raises(CheckError, match=text):
        await run(clients, running.about(**{"fd.name": value}), "cat $FD_NAME")
    await run(clients, running.about(**{"fd.name": value}), "true")


async def test_long_values(clients: Clients, running: Running) -> None:
    """60 KiB arrive whole."""
    event = running.about(**{"fd.name": "é" * 30_000})
    assert (await execute(clients, event, 'printf %s "$FD_NAME" | wc -c')).text.strip() == "60000"


@BOTH
async def test_ac_13_failure(run: Any, clients: Clients, running: Running) -> None:
    """A failure tells the exit code, stdout and stderr of each container."""
    command = 'echo "$OWN"; echo oops >&2; exit 3'
    with pytest.raises(PluginError) as raised:
        await run(clients, running.about(), command)
    assert str(raised.value) == (
        "container 'web': exit code 3, stderr: oops, stdout: of web; "
        "container 'other': exit code 3, stderr: oops, stdout: of other"
    )


@BOTH
async def test_ac_10_until_one_succeeds(run: Any, clients: Clients, running: Running) -> None:
    """Each container is tried in order until one succeeds, and the result names it."""
    result = await run(clients, running.about(), '[ "$OWN" = "of other" ] && echo yes')
    assert (result.text, result.objects["container"]) == ("yes\n", "other")


@BOTH
async def test_ac_10_container(run: Any, clients: Clients, running: Running) -> None:
    """The parameter's container, else the event's by id or name, is the only one tried."""
    pod = running.cluster.pod(running.namespace)
    ids = {each["name"]: each["containerID"] for each in pod["status"]["containerStatuses"]}
    short = ids["other"].partition("://")[2][:12]
    for fields, parameters in (
        ({}, {"container": "other"}),
        ({"container.id": short, "container.name": "web"}, {}),
        ({"container.name": "other"}, {}),
        ({"container.name": "k8s_other_web_ns_uid_0"}, {}),
        ({"container.id": "host", "container.name": "other"}, {}),
    ):
        result = await run(clients, running.about(**fields), "echo $OWN", **parameters)
        assert result.text == "of other\n"
        with pytest.raises(PluginError, match="^container 'other': exit code 1$"):
            await run(clients, running.about(**fields), "exit 1", **parameters)
    with pytest.raises(CheckError, match="no container 'absent': there are web, other"):
        await run(clients, running.about(), "true", container="absent")


@BOTH
async def test_ac_12_timeout(run: Any, clients: Clients, running: Running) -> None:
    """What takes too long is ended, children and all, in the container itself."""
    started = time.monotonic()
    with pytest.raises(PluginError, match=r"did not end within 1 s and has been killed: begun"):
        await run(
            clients, running.about(), "echo begun; sleep 4711 & sleep 4711; echo late",
            container="web", timeout_seconds=1,
        )  # fmt: skip
    assert time.monotonic() - started < 5
    assert "4711" not in running.sh("ps -o args")


@BOTH
async def test_cancelled(run: Any, clients: Clients, running: Running) -> None:
    """When the action's own time is up, its command ends in the container too."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await run(clients, running.about(), "sleep 4712", container="web")
    assert "4712" not in running.sh("ps -o args")


@BOTH
async def test_output_is_capped(run: Any, clients: Clients, running: Running) -> None:
    """Of endless output the beginning is kept; the command goes on to its end."""
    command = "yes | head -c 3000000; echo done >/tmp/ended; yes no | head -c 3000000 >&2"
    result = await run(clients, running.about(), command, max_output_bytes=10)
    assert result.text == "y\ny\ny\ny\ny\n\n[stderr] no\nno\nno\nn\n[truncated]"
    assert running.sh("cat /tmp/ended; rm /tmp/ended") == "done\n"


async def test_missing_shell(clients: Clients, running: Running) -> None:
    """A command that cannot start says why."""
    with pytest.raises(PluginError, match=r"container 'web': the command did not start: .*no such"):
        await execute(clients, running.about(), "true", shell="/bin/absent", container="web")


async def test_missing_pod(clients: Clients, running: Running) -> None:
    """A pod that is not there is told apart from a command that fails."""
    with pytest.raises(CheckError, match="the pod 'absent' .* doesn't exist"):
        await execute(clients, about(running.namespace, "absent"), "true")


async def test_ac_09_script_is_as_written(clients: Clients, running: Running) -> None:
    """`$1`, `$?`, `$$`, `$i` and here-documents are the shell's, not expanded away."""
    text = """
        set -- one
        false; echo "$? $1 $# ${ABSENT:-none}"
        for i in 1 2; do echo "i=$i"; done
        [ "$$" -gt 1 ] && echo pid
        cat <<'END'
        $FD_NAME stays
END
        cat <<END
        $FD_NAME
END
    """
    result = await run_script(clients, running.about(**{"fd.name": "/x"}), text)
    assert [line.strip() for line in result.text.splitlines()] == [
        "1 one 1 none", "i=1", "i=2", "pid", "$FD_NAME stays", "/x",
    ]  # fmt: skip


async def test_ac_11_script_leaves_nothing(clients: Clients, running: Running) -> None:
    """No file is written for the script, and it needs no `tee`."""
    before = running.sh("ls -a / /tmp")
    await run_script(clients, running.about(), "echo hello")
    assert running.sh("ls -a / /tmp") == before


async def test_large_script(clients: Clients, running: Running) -> None:
    """A script of 500 KB arrives whole, also while it writes much."""
    text = "echo 0123456789012345678901234567890123456789\n" * 10_000 + "echo end\n"
    result = await run_script(clients, running.about(), text, max_output_bytes=1_000_000)
    assert len(result.text.splitlines()) == 10_001
    assert result.text.endswith("end\n")


@pytest.mark.parametrize(
    ("first_line", "parameters", "expected"),
    [
        pytest.param("", {}, "sh\n", id="default"),
        pytest.param("#!/bin/ash\n", {}, "ash\n", id="shebang"),
        pytest.param("#! /usr/bin/env ash\n", {}, "ash\n", id="shebang with argument"),
        pytest.param("#!/bin/absent\n", {"shell": "/bin/ash"}, "ash\n", id="parameter"),
    ],
)
async def test_interpreter(
    first_line: str, parameters: Any, expected: str, clients: Clients, running: Running
) -> None:
    """The parameter names the interpreter, else the first line, else it is /bin/sh."""
    text = first_line + "tr '\\0' '\\n' </proc/$$/cmdline | tail -n 1 | sed 's,.*/,,'\n"
    assert (await run_script(clients, running.about(), text, **parameters)).text == expected


async def test_interpreter_that_is_no_shell(clients: Clients, running: Running) -> None:
    """Any interpreter that reads a program from stdin will do, whatever it is called."""
    running.sh(
        "printf '#!/bin/sh\\necho \"of $OWN, $FD_NAME\"; exec cat' >/tmp/fish; chmod +x /tmp/fish"
    )
    event = running.about(**{"fd.name": "/x"})
    result = await run_script(clients, event, "#!/tmp/fish\nprint($FD_NAME)\n")
    assert result.text == "of of web, /x\n#!/tmp/fish\nprint($FD_NAME)\n"


async def test_script_file(clients: Clients, running: Running, tmp_path: Path) -> None:
    """A script in a file is read at each run."""
    file = tmp_path / "script"
    file.write_text("echo one")
    plugin = Script(Script.Parameters(file=str(file)), clients)
    assert (await plugin.run(running.about())).text == "one\n"
    file.write_bytes(b"echo two \xff")
    assert (await plugin.run(running.about())).text.startswith("two ")
    file.write_text("#" * 1_048_577)
    with pytest.raises(PluginError, match="longer than 1048576 bytes"):
        await plugin.run(running.about())
    file.unlink()
    with pytest.raises(PluginError, match="cannot be read: No such file"):
        await plugin.run(running.about())


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "missing parameter 'script' or 'file'"),
        ({"script": "a", "file": "b"}, "can't be set at the same time"),
        ({"file": "/absent"}, "stat /absent: no such file or directory"),
        ({"script": "a", "timeout_seconds": 0}, "greater than 0"),
        ({"script": "a", "max_output_bytes": -1}, "greater than or equal to 0"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], text: str) -> None:
    """Values that mean nothing stop the load of the rules."""
    with pytest.raises(ValidationError, match=text):
        Script.Parameters.model_validate(parameters)
