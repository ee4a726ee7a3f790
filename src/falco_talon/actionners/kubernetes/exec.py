"""kubernetes:exec"""

from pydantic import Field

from falco_talon.actionners.kubernetes._commands import CommandActionner, CommandParameters
from falco_talon.actionners.kubernetes._variables import used_variables, with_plain_names
from falco_talon.clients.pod_exec import Command
from falco_talon.event import Event
from falco_talon.plugin import Result


class Exec(CommandActionner):
    """Run a command in a container of the pod.

    The shell gets the output fields of the event as variables: `fd.name` as `$FD_NAME`,
    `proc.aname[2]` as `$PROC_ANAME_2`, beside `$PRIORITY`, `$HOSTNAME`, `$RULE`, `$SOURCE`,
    `$TAGS` and the contexts (`${FALCO-TALON_RULE}`). Those that the command names are set, beside
    the container's own; a field that is null or absent leaves its variable unset. The values come
    from an attacker: quote them (`"$FD_NAME"`), and whatever they hold is never run. Values of more
    than 64 KiB, and those with a NUL, are refused. An event cannot set what shells and loaders
    heed (`PATH`, `IFS`, `ENV`, `BASH_ENV`, `LD_PRELOAD`…).
    """

    name = "kubernetes:exec"
    example = """
      - action: Look at the file
        actionner: kubernetes:exec
        parameters:
          shell: /bin/sh
          command: 'ls -l "$FD_NAME"'
          timeout_seconds: 10
    """

    class Parameters(CommandParameters):
        """What to run."""

        command: str = Field(min_length=1, description="Command, for the shell.")
        shell: str = Field(
            "/bin/sh",
            min_length=1,
            description="Path of a POSIX shell in the container. Default: `/bin/sh`.",
        )

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Run it, and tell what it wrote.

        :raises PluginError: if it cannot be run, fails or takes too long.
        """
        parameters = self.parameters
        text = with_plain_names(parameters.command)
        return await self.run_command(
            event,
            Command(
                (parameters.shell, "-c", text),
                variables=used_variables(event, text),
                shell=parameters.shell,
            ),
        )
