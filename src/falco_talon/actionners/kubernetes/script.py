"""kubernetes:script"""

import asyncio
import re
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._commands import CommandActionner, CommandParameters
from falco_talon.actionners.kubernetes._variables import used_variables, with_plain_names
from falco_talon.clients.pod_exec import Command
from falco_talon.errors import PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result

_SHEBANG = re.compile(r"#! *(\S+)(?: +(\S.*))?")
_SHELL = "/bin/sh"
_POSIX_SHELLS = ("sh", "ash", "bash", "dash", "ksh", "mksh", "zsh")
_LIMIT_BYTES = 1024 * 1024


class Script(CommandActionner):
    """Run a script in a container of the pod.

    The script is fed to the interpreter's stdin: nothing is written in the container. `$1`, `$?`
    and here-documents are the shell's own; the event's output fields are variables, as for
    `kubernetes:exec`. A command in it that reads its own stdin gets the rest of the script: give
    it `</dev/null`. Whatever the interpreter is, the container needs a `/bin/sh`, unless the
    interpreter is a POSIX shell itself.
    """

    name = "kubernetes:script"
    example = """
      - action: Look around
        actionner: kubernetes:script
        parameters:
          shell: /bin/sh
          script: |
            ps
            ls -l "$FD_NAME"
    """

    class Parameters(CommandParameters):
        """What to run."""

        script: str = Field(
            "", description="Text of the script; or `file`. Default: what is in `file`."
        )
        file: str = Field(
            "",
            description="Path of the script on the machine of Falco Talon, read at each run; or"
            " `script`. Default: none.",
        )
        shell: str = Field(
            "",
            description="Path of the interpreter in the container. Default: that of the script's"
            " `#!` line, else `/bin/sh`.",
        )

        @model_validator(mode="after")
        def _one_of_both(self) -> Self:
            if not self.script and not self.file:
                raise PydanticCustomError("script", "missing parameter 'script' or 'file'")
            if self.script and self.file:
                raise PydanticCustomError(
                    "script", "'script' and 'file' parameters can't be set at the same time"
                )
            if self.file and not Path(self.file).is_file():
                text = "stat {file}: no such file or directory"
                raise PydanticCustomError("file", text, {"file": self.file})
            return self

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Run it, and tell what it wrote.

        :raises PluginError: if it cannot be run, fails or takes too long.
        """
        text = self.parameters.script
        if self.parameters.file:
            text = await asyncio.to_thread(_read, Path(self.parameters.file))
        text = with_plain_names(text)
        shell = self.parameters.shell
        interpreter = (shell,) if shell else _interpreter(text)
        return await self.run_command(
            event,
            Command(
                interpreter,
                stdin=text.encode(errors="surrogateescape"),
                stdin_end=b"\nexit\n",
                variables=used_variables(event, text),
                shell=_starter(interpreter[0]),
            ),
        )


def _interpreter(text: str) -> tuple[str, ...]:
    shebang = _SHEBANG.match(text)
    if not shebang:
        return (_SHELL,)
    return (shebang[1], shebang[2].strip()) if shebang[2] else (shebang[1],)


def _starter(interpreter: str) -> str:
    """Return the shell that sets the variables and becomes the *interpreter*."""
    return interpreter if PurePosixPath(interpreter).name in _POSIX_SHELLS else _SHELL


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise PluginError(f"the script '{file}' cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT_BYTES:
        raise PluginError(f"the script '{file}' is longer than {_LIMIT_BYTES} bytes")
    return data.decode(errors="surrogateescape")
