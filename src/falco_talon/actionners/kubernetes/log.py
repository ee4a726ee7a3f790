"""kubernetes:log"""

import re
from dataclasses import replace
from io import BytesIO
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._containers import choose_containers
from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.errors import PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, BaseParameters, PolicyRule, Result

_DURATION = re.compile(r"(\d{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DEFAULT_LINES = 20


def _seconds(value: object) -> object:
    if isinstance(value, str) and value:
        found = _DURATION.fullmatch(value.strip())
        if not found:
            raise PydanticCustomError(
                "since", "'{value}' is no duration: 90, 90s, 10m, 2h or 1d", {"value": value}
            )
        return int(found[1]) * _SECONDS[found[2]]
    return value or None


class Log(PodActionner):
    """Fetch the logs of the pod.

    They are the logs of the container that the event names, else of each container, then under a
    line `==> container <==`. A container without logs is left out; the result names one whose logs
    cannot be had, and fails only if all are. Without an output the logs are the text of the log
    line.
    """

    name = "kubernetes:log"
    source = ("syscalls", "k8s_audit")
    artifact = "maybe"
    permissions = (PolicyRule(("pods", "pods/log"), ("get",)),)
    example = """
      - action: Keep the logs
        actionner: kubernetes:log
        parameters:
          tail_lines: 200
          since: 10m
        output:
          target: local:file
          parameters:
            destination: /var/lib/falco-talon
    """

    class Parameters(BaseParameters):
        """Which logs, and how much of them."""

        tail_lines: int = Field(
            _DEFAULT_LINES, ge=0, description="Lines from the end; 0 means 20. Default: 20."
        )
        container: str = Field(
            "",
            description="Container. Default: the one that the event names, else each of the pod.",
        )
        since: Annotated[int | None, BeforeValidator(_seconds)] = Field(
            None,
            ge=1,
            description="Only what is not older: `90s`, `10m`, `2h`, `1d`, or a number of seconds."
            " Default: no limit.",
        )
        previous: bool = Field(
            False, description="The logs of the run before the last restart. Default: false."
        )
        max_bytes: int = Field(
            10 * 1024 * 1024,
            ge=1,
            le=256 * 1024 * 1024,
            description="Bytes that are kept of each container's. Default: 10 MiB.",
        )

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Fetch them.

        :raises PluginError: if no container's logs can be had.
        """
        pod = Pod.of(event)
        containers = choose_containers(await self.get(pod), event, self.parameters.container)
        logs: dict[str, bytes] = {}
        cut = False
        failures: list[str] = []
        for container in containers:
            try:
                logs[container], truncated = await self._fetch(pod, container)
            except TransientError:
                raise
            except PluginError as error:
                failures.append(f"container '{container}': {error}")
            else:
                cut |= truncated
        if not logs:
            raise PluginError("; ".join(failures))
        for container in [name for name, log in logs.items() if not log]:
            del logs[container]
        result = self._result(pod, logs, cut=cut)
        return replace(result, text="; ".join([result.text, *failures]))

    async def _fetch(self, pod: Pod, container: str) -> tuple[bytes, bool]:
        parameters = self.parameters
        query = {"container": container, "tailLines": str(parameters.tail_lines or _DEFAULT_LINES)}
        if parameters.since:
            query["sinceSeconds"] = str(parameters.since)
        if parameters.previous:
            query["previous"] = "true"
        return await self.clients.kubernetes.read(f"{pod.path}/log", parameters.max_bytes, **query)

    def _result(self, pod: Pod, logs: dict[str, bytes], *, cut: bool) -> Result:
        objects = {**pod.objects, "container": ",".join(logs)}
        if not logs:
            return Result(f"the logs for {pod} are empty", pod.objects)
        text = f"the logs for {pod} has been downloaded"
        if cut:
            text += f" (truncated to {self.parameters.max_bytes} bytes)"
        if len(logs) == 1:
            ((container, data),) = logs.items()
            return Result(text, objects, Artifact(f"{container}.log", data, objects))
        joined = BytesIO()
        for container in tuple(logs):  # each goes as it is copied
            joined.write(b"==> %s <==\n" % container.encode())
            joined.write(logs.pop(container))
        return Result(text, objects, Artifact("log", joined.getvalue(), objects))
