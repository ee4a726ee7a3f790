"""What the captures share: a container of our own, its readiness, and what it hands over."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal

from pydantic import Field

from falco_talon.clients import pod_exec
from falco_talon.clients.http import printable
from falco_talon.clients.kubernetes import Kubernetes, Object
from falco_talon.clients.pod_exec import Command, Outcome
from falco_talon.errors import PluginError, TransientError
from falco_talon.plugin import BaseParameters

_NOT_STARTED: Final = "it has not been started"
_PAUSE_SECONDS: Final = 0.5
# Process 1 is somebody else's where the processes of the pod or of the node are shared: what is in
# the container is known by its mounts.
_END: Final = """
own=$(readlink /proc/$$/ns/mnt) && [ -n "$own" ] || exit
for each in /proc/[0-9]*; do
  pid=${each#/proc/}
  if [ "$pid" != $$ ] && [ "$(readlink "$each/ns/mnt")" = "$own" ]; then kill "$pid"; fi
done
"""
_HOPELESS: Final = (
    "deleted",
    "ended",
    "ErrImagePull",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
_SHOWN: Final = 1024


class CaptureParameters(BaseParameters):
    """How the container of a capture is started, and how much it may bring back."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "Always",
        description="When the node pulls the image: `Always`, `IfNotPresent` or `Never`."
        " Default: `Always`.",
    )
    ready_timeout_seconds: float = Field(
        60, gt=0, le=600, description="Seconds until the container must run. Default: 60."
    )
    margin_seconds: int = Field(
        30,
        ge=4,
        le=3600,
        description="Seconds after the time of the capture when its container ends by itself,"
        " should Falco Talon not be there to end it. Default: 30.",
    )
    security_context: dict[str, Any] = Field(
        default_factory=dict,
        description="Security context of the container, as in the specification of a pod, in place"
        " of the one described above. Default: that one.",
    )
    max_bytes: int = Field(
        100 * 1024 * 1024,
        ge=1,
        le=1024 * 1024 * 1024,
        description="Bytes of the capture that are kept; the rest is left out. Default: 100 MiB.",
    )


def sleeper(seconds: int) -> list[str]:
    """Return the command of a container that ends by itself, and at once by SIGTERM."""
    return ["/bin/sh", "-c", f"trap 'kill $!; exit 0' TERM; sleep {seconds} & wait"]


async def wait_until_runs(
    kubernetes: Kubernetes,
    collection: str,
    query: Mapping[str, str],
    status_of: Callable[[Object], Mapping[str, Any] | None],
    *,
    seconds: float,
    what: str,
) -> Object:
    """Watch the pods of *query* until the container runs whose status *status_of* finds.

    :returns: its pod. :raises PluginError: if it ends, cannot start, or is not ready in time.
    """
    reason = _NOT_STARTED
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    # Version 0: the first changes are how things are, or were a moment ago. That is
                    # had at once, and what is new by name cannot have run before.
                    changes = kubernetes.watch(collection, **query, resourceVersion="0")
                    async with aclosing(changes):
                        async for change in changes:
                            reason = _reason(change, status_of)
                            if not reason:
                                return dict(change["object"])
                            if reason.startswith(_HOPELESS):
                                raise PluginError(f"{what} not ready: {reason}")
                except TransientError as error:  # what has been created is there still
                    reason = str(error)
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        raise PluginError(f"{what} not ready: {reason}") from None


def _reason(change: Object, status_of: Callable[[Object], Mapping[str, Any] | None]) -> str:
    """Return why the container does not run; nothing if it does."""
    if change["type"] == "DELETED":
        return "deleted"
    state = (status_of(change["object"]) or {}).get("state") or {}
    if "running" in state:
        return ""
    if ended := state.get("terminated"):
        return f"ended: {ended.get('reason')} {printable(str(ended.get('message') or ''))}".strip()
    waiting = state.get("waiting") or {}
    reason = f"{waiting.get('reason') or _NOT_STARTED} {waiting.get('message') or ''}"
    return printable(reason)[:_SHOWN]


async def capture(
    kubernetes: Kubernetes, pod_path: str, container: str, command: Command, seconds: float
) -> Outcome:
    """Run the capture.

    :raises PluginError: with what it said, if it fails.
    """
    outcome = await pod_exec.run(
        kubernetes, f"{pod_path}/exec", container, command, seconds=seconds
    )
    # How `timeout` says that it was needed: 124 (coreutils) or 128 + the signal (busybox).
    if outcome.exit_code not in (0, 124, 130, 143) and not outcome.truncated:
        said = printable(outcome.stderr.decode(errors="replace"))[:_SHOWN]
        raise PluginError(f"the capture failed with exit code {outcome.exit_code}: {said}")
    return outcome


def flaws(outcome: Outcome) -> str:
    """Return what is missing of a capture, to follow the sentence that it has been made."""
    if outcome.truncated:
        return f" (truncated to {len(outcome.stdout)} bytes)"
    return " (its end was lost on the way)" if outcome.lost else ""


async def end_sleeper(kubernetes: Kubernetes, pod_path: str, container: str) -> None:
    """End a :func:`sleeper` before its time; it ends by itself otherwise."""
    try:
        await pod_exec.run(
            kubernetes,
            f"{pod_path}/exec",
            container,
            Command(("/bin/sh", "-c", _END)),
            seconds=5,
        )
    except PluginError:
        return
