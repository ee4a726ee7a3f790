"""Which containers of a pod an actionner works in."""

from collections.abc import Iterator
from typing import Any

from falco_talon.clients.kubernetes import Object
from falco_talon.errors import CheckError
from falco_talon.event import Event

_SHORT_ID = 12


def choose_containers(pod: Object, event: Event, wanted: str = "") -> list[str]:
    """Return the names of the containers to try, in order.

    It is the *wanted* one, else the one that the event names (``container.id``,
    ``container.name``), else all that are no init container.

    :raises CheckError: if there is no such container.
    """
    names = [each["name"] for each in _specs(pod)]
    if wanted:
        if wanted not in names:
            raise CheckError(f"there is no container '{wanted}': there are {', '.join(names)}")
        return [wanted]
    if found := _of_event(pod, event, names):
        return [found]
    own = [each["name"] for each in pod["spec"].get("containers") or []]
    if not own:
        raise CheckError("no container found")
    return own


def container_ids(pod: Object) -> Iterator[tuple[str, str]]:
    """Yield name and id of each container that runs or ran, the id without ``runtime://``."""
    status: dict[str, Any] = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind) or []:
            _, separator, identity = str(each.get("containerID") or "").partition("://")
            if separator and identity:
                yield each["name"], identity


def _of_event(pod: Object, event: Event, names: list[str]) -> str:
    identity = event.field("container.id")
    if len(identity) >= _SHORT_ID:
        for name, known in container_ids(pod):
            if known.startswith(identity) or identity.startswith(known):
                return name
    name = event.field("k8s.container.name", "container.name")
    if name in names:
        return name
    # Docker's names: k8s_<container>_<pod>_…
    parts = name.split("_")
    return parts[1] if parts[0] == "k8s" and len(parts) > 1 and parts[1] in names else ""


def _specs(pod: Object) -> Iterator[dict[str, Any]]:
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        yield from pod["spec"].get(kind) or []
