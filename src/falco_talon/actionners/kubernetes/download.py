"""kubernetes:download"""

import secrets

from pydantic import Field

from falco_talon.actionners.kubernetes._commands import CommandActionner, CommandParameters
from falco_talon.actionners.kubernetes._containers import choose_containers
from falco_talon.actionners.kubernetes._pod import Pod
from falco_talon.actionners.kubernetes._variables import expand
from falco_talon.clients.pod_exec import Command
from falco_talon.errors import CheckError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, Result

_FOLDER = b"folder\n"
_SEND = 'if [ -d "$1" ]; then echo folder >&2; exec tar -cf - -C "$1" .; fi; exec cat -- "$1"'


class Download(CommandActionner):
    """Fetch a file, or a folder as a tar archive, from a container of the pod.

    `$FD_NAME`, `${FD_NAME}` and the other variables of `kubernetes:exec` can stand in the path;
    their values are part of a file name, whatever they hold. The container needs a shell and `cat`
    (`tar` for a folder).
    """

    name = "kubernetes:download"
    source = ("syscalls",)
    artifact = "always"
    example = """
      - action: Keep the file
        actionner: kubernetes:download
        parameters:
          file: ${FD_NAME}
        output:
          target: local:file
          parameters:
            destination: /var/lib/falco-talon
    """

    class Parameters(CommandParameters):
        """What to fetch."""

        file: str = Field(min_length=1, description="Path of the file or folder.")
        timeout_seconds: float = Field(
            50,
            gt=0,
            description="Seconds that it may take in a container. Default: 50.",
        )
        max_output_bytes: int = Field(
            100 * 1024 * 1024,
            ge=1,
            le=1024 * 1024 * 1024,
            description="Bytes that are fetched; the rest is left out. Default: 100 MiB.",
        )

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Fetch it.

        :raises PluginError: if no container has it, or it takes too long.
        """
        parameters = self.parameters
        file = expand(event, parameters.file)
        if not file or "\0" in file or len(file.encode(errors="replace")) > 4096:
            raise CheckError("no file can have such a name")
        pod = Pod.of(event)
        containers = choose_containers(await self.get(pod), event, parameters.container)
        # To cat a file called - is its stdin.
        operand = file if file.startswith("/") else f"./{file}"
        command = Command(
            ("/bin/sh", "-c", _SEND, "sh", operand),
            limit=parameters.max_output_bytes,
            end_at_limit=True,
            seal=secrets.token_hex(8),
        )
        container, outcome = await self.first_success(
            pod, containers, command, parameters.timeout_seconds
        )
        if outcome.lost:
            raise TransientError(f"the end of the file '{file}' was lost on the way")
        objects = {**pod.objects, "container": container, "file": file}
        name = f"{file.rstrip('/')}.tar" if outcome.stderr.startswith(_FOLDER) else file
        text = f"the file '{file}' has been downloaded"
        if outcome.truncated:
            text += f" (truncated to {len(outcome.stdout)} bytes)"
        return Result(text, objects, Artifact(name, outcome.stdout, objects))
