"""What the actionners that run something in the containers of a pod share."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

from pydantic import Field

from falco_talon.actionners.kubernetes._containers import choose_containers
from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.clients import pod_exec
from falco_talon.clients.http import printable
from falco_talon.clients.pod_exec import Command, Outcome
from falco_talon.errors import PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, PolicyRule, Result

EXEC: Final = PolicyRule(("pods/exec",), ("get", "create"))
"""A WebSocket is a GET; from 1.35 on the API asks for ``create`` as well."""

_ANSI: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SHOWN: Final = 1024


class CommandParameters(BaseParameters):
    """Where, how long and how much."""

    container: str = Field(
        "",
        description="Container. Default: the one that the event names, else each of the pod in"
        " order, until one succeeds.",
    )
    timeout_seconds: float = Field(
        30,
        gt=0,
        description="Seconds that it may take in a container; it is killed there then."
        " Default: 30.",
    )
    max_output_bytes: int = Field(
        64 * 1024,
        ge=0,
        le=16 * 1024 * 1024,
        description="Bytes of its output, and of its errors, that are kept; it goes on without."
        " Default: 64 KiB.",
    )


class CommandActionner(PodActionner, abstract=True):
    """Runs a command in a container of the pod."""

    source: ClassVar[tuple[str, ...]] = ("syscalls", "k8s_audit")
    use_context = True
    permissions = (PolicyRule(("pods",), ("get",)), EXEC)

    parameters: CommandParameters

    @property
    def duration_seconds(self) -> float:
        """What one container is given."""
        return self.parameters.timeout_seconds

    async def run_command(self, event: Event, command: Command) -> Result:
        """Run *command* in the containers to try, until one succeeds.

        :raises PluginError: if none does, with what each one said.
        """
        pod = Pod.of(event)
        containers = choose_containers(await self.get(pod), event, self.parameters.container)
        command = replace(command, limit=self.parameters.max_output_bytes)
        container, outcome = await self.first_success(
            pod, containers, command, self.parameters.timeout_seconds
        )
        objects = {**pod.objects, "container": container, "exit_code": "0"}
        return Result(_report(outcome), objects)

    async def first_success(
        self, pod: Pod, containers: Sequence[str], command: Command, seconds: float
    ) -> tuple[str, Outcome]:
        """Run *command* in each of the *containers* until one succeeds; return that, and how.

        :raises PluginError: if none does, with what each one said.
        """
        failures: list[str] = []
        for container in containers:
            try:
                outcome = await pod_exec.run(
                    self.clients.kubernetes, f"{pod.path}/exec", container, command, seconds=seconds
                )
            except PluginError as error:
                if isinstance(error, TransientError) and not failures:
                    raise  # nothing has been run yet
                failures.append(f"container '{container}': {error}")
                continue
            if outcome.exit_code == 0:
                return container, outcome
            failures.append(f"container '{container}': {_failure(outcome)}")
        raise PluginError("; ".join(failures))


def plain(output: bytes) -> str:
    """Return *output* as text, without what colours a terminal."""
    return _ANSI.sub("", output.decode(errors="replace"))


def _report(outcome: Outcome) -> str:
    text = plain(outcome.stdout)
    if errors := plain(outcome.stderr):
        text += f"\n[stderr] {errors}" if text else f"[stderr] {errors}"
    if outcome.truncated:
        text += "\n[truncated]"
    return text


def _failure(outcome: Outcome) -> str:
    text = f"exit code {outcome.exit_code}"
    for name, output in (("stderr", outcome.stderr), ("stdout", outcome.stdout)):
        if said := printable(plain(output))[:_SHOWN]:
            text += f", {name}: {said}"
    return text + (" (truncated)" if outcome.truncated else "")
