"""kubernetes:tcpdump"""

import re
import secrets
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._capture import (
    CaptureParameters,
    capture,
    end_sleeper,
    flaws,
    sleeper,
    wait_until_runs,
)
from falco_talon.actionners.kubernetes._commands import EXEC
from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.clients.kubernetes import NotFound, Object, path
from falco_talon.clients.pod_exec import Command
from falco_talon.event import Event
from falco_talon.plugin import Artifact, PolicyRule, Result

_FILE: Final = "tcpdump.pcap"
_PATCH: Final = "application/strategic-merge-patch+json"
# SETUID and SETGID are for tcpdump, which goes on as the user tcpdump; KILL is for ending it then,
# since root may not signal another user's process without.
_CAPABILITIES: Final = ("NET_RAW", "NET_ADMIN", "SETUID", "SETGID", "KILL")
_FILTER: Final = re.compile(r"[A-Za-z0-9_(!][A-Za-z0-9_ .:/()\[\]&|!<>=+*%-]{0,1023}")


def _check_filter(text: str) -> str:
    if text and (not _FILTER.fullmatch(text) or text.count("(") != text.count(")")):
        raise PydanticCustomError("filter", "'{text}' is no capture filter", {"text": text})
    return text


class Tcpdump(PodActionner):
    """Capture the network traffic of the pod.

    An ephemeral container of the pod runs tcpdump. It is not privileged: it has the capabilities
    NET_RAW and NET_ADMIN, SETUID and SETGID by which tcpdump gives up being root, and KILL by which
    it is ended then. It ends with the capture; should Falco Talon die meanwhile, it ends by itself.
    Kubernetes keeps its entry in the pod.
    """

    name = "kubernetes:tcpdump"
    source = ("syscalls",)
    continue_ = False
    artifact = "always"
    permissions = (
        PolicyRule(("pods",), ("watch",)),
        PolicyRule(("pods/ephemeralcontainers",), ("patch",)),
        EXEC,
    )
    example = """
      - action: Capture packets
        actionner: kubernetes:tcpdump
        parameters:
          duration: 10
          snaplen: 1024
          filter: tcp port 443
        output:
          target: local:file
          parameters:
            destination: /var/lib/falco-talon
    """

    class Parameters(CaptureParameters):
        """What to capture."""

        duration: int = Field(
            5, ge=0, le=3600, description="Seconds of the capture; 0 means 5. Default: 5."
        )
        snaplen: int = Field(
            4096,
            ge=0,
            le=262144,
            description="Bytes of each packet; 0 for whole packets. Default: 4096.",
        )
        filter: Annotated[str, AfterValidator(_check_filter)] = Field(
            "", description="Filter expression of tcpdump. Default: every packet."
        )
        count: int = Field(
            0, ge=0, description="Packets after which the capture ends. Default: no limit."
        )
        image: str = Field(
            "issif/tcpdump:latest",
            min_length=1,
            description="Image, with tcpdump, a shell, sleep, timeout and readlink."
            " Default: `issif/tcpdump:latest`.",
        )

    parameters: Parameters

    @property
    def duration_seconds(self) -> float:
        """The capture and the start of its container."""
        return self._seconds + self.parameters.ready_timeout_seconds

    @property
    def _seconds(self) -> int:
        return self.parameters.duration or 5

    async def run(self, event: Event) -> Result:
        """Start the container, capture, and end it.

        :raises PluginError: if the container does not start or the capture fails.
        """
        kubernetes, pod = self.clients.kubernetes, Pod.of(event)
        name = f"falco-talon-tcpdump-{secrets.token_hex(3)[:5]}"
        patch = {"spec": {"ephemeralContainers": [self._container(name)]}}
        try:
            await kubernetes.patch(f"{pod.path}/ephemeralcontainers", patch, content_type=_PATCH)
        except NotFound:
            raise pod.missing() from None
        await wait_until_runs(
            kubernetes,
            path("pods", namespace=pod.namespace),
            {"fieldSelector": f"metadata.name={pod.name}"},
            lambda found: _status(found, name),
            seconds=self.parameters.ready_timeout_seconds,
            what=f"ephemeral container for the tcpdump in {pod}",
        )
        try:
            command = Command(
                self._tcpdump(),
                limit=self.parameters.max_bytes,
                end_at_limit=True,
                seal=secrets.token_hex(8),
            )
            outcome = await capture(
                kubernetes,
                pod.path,
                name,
                command,
                self._seconds + self.parameters.margin_seconds / 2,
            )
        finally:
            await end_sleeper(kubernetes, pod.path, name)
        text = f"a tcpdump '{_FILE}' has been created{flaws(outcome)}"
        return Result(text, pod.objects, Artifact(_FILE, outcome.stdout, pod.objects))

    def _tcpdump(self) -> list[str]:
        parameters = self.parameters
        # -U: each packet is written at once, and nothing is lost at the end.
        words = ["timeout", "-s", "INT", str(self._seconds), "tcpdump", "-n", "-U", "-i", "any"]
        words += ["-s", str(parameters.snaplen), "-w", "-"]
        if parameters.count:
            words += ["-c", str(parameters.count)]
        return [*words, "--", parameters.filter] if parameters.filter else words

    def _container(self, name: str) -> Object:
        security = {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(_CAPABILITIES)},
        }
        return {
            "name": name,
            "image": self.parameters.image,
            "imagePullPolicy": self.parameters.image_pull_policy,
            "command": sleeper(self._seconds + self.parameters.margin_seconds),
            "terminationMessagePolicy": "File",
            "securityContext": self.parameters.security_context or security,
        }


def _status(pod: Object, name: str) -> dict[str, Any] | None:
    statuses = pod["status"].get("ephemeralContainerStatuses") or []
    return next((each for each in statuses if each["name"] == name), None)
