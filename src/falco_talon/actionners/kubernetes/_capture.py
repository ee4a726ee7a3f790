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
from falco_talon.errors import PluginError
from falco_talon.plugin import BaseParameters

MARGIN_SECONDS: Final = 30
"""How much longer than the capture its container lives if nobody ends it."""

_HOPELESS: Final = (
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
    max_bytes: int = Field(
        100 * 1024 * 1024,
        ge=1,
        le=1024 * 1024 * 1024,
        description="Bytes of the capture that are kept; it ends there. Default: 100 MiB.",
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
    reason = "it has not been started"
    try:
        async with (
            asyncio.timeout(seconds),
            aclosing(kubernetes.watch(collection, **query)) as changes,
        ):
            async for change in changes:
                status = status_of(change["object"]) or {}
                state = status.get("state") or {}
                if "running" in state:
                    return dict(change["object"])
                if ended := state.get("terminated"):
                    raise PluginError(f"{what} ended: {ended.get('reason')}")
                waiting = state.get("waiting") or {}
                reason = f"{waiting.get('reason', reason)} {waiting.get('message', '')}".strip()
                if waiting.get("reason") in _HOPELESS:
                    break
    except TimeoutError:
        pass
    raise PluginError(f"{what} not ready: {printable(reason)[:_SHOWN]}")


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


async def end_sleeper(kubernetes: Kubernetes, pod_path: str, container: str) -> None:
    """End a :func:`sleeper` before its time; it ends by itself otherwise."""
    try:
        await pod_exec.run(
            kubernetes, f"{pod_path}/exec", container, Command(("kill", "1")), seconds=5
        )
    except PluginError:
        return
