"""What the actionners that work on the pod of an event share."""

from dataclasses import dataclass
from typing import Any, Self

from falco_talon.clients.kubernetes import Conflict, NotFound, Object, path
from falco_talon.errors import CheckError, PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Actionner

_MIRROR = "kubernetes.io/config.mirror"
_SHOWN = 253


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod that an event names. Both names come from the event and may be anything."""

    name: str
    namespace: str

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return the pod that *event* names.

        :raises CheckError: if it names none, or one that cannot exist.
        """
        if not event.pod:
            raise CheckError("missing pod name")
        if not event.namespace:
            raise CheckError("missing namespace")
        pod = cls(event.pod, event.namespace)
        _ = pod.path
        return pod

    def __str__(self) -> str:
        return f"the pod '{shown(self.name)}' in the namespace '{shown(self.namespace)}'"

    @property
    def path(self) -> str:
        """Its path in the API.

        :raises CheckError: if there can be no such pod.
        """
        try:
            return path("pods", self.name, namespace=self.namespace)
        except NotFound:
            raise self.missing() from None

    @property
    def objects(self) -> dict[str, str]:
        """Its entries in ``Result.objects``."""
        return {"pod": self.name, "namespace": self.namespace}

    def missing(self) -> CheckError:
        """Return the error that says that it does not exist."""
        return CheckError(f"{self} doesn't exist")


class PodActionner(Actionner, abstract=True):
    """Works on the pod that the event names.

    ``check`` sees that the event names a pod; that the pod exists shows by the first request of
    ``run``, which most actionners need anyway. One instance serves many events at once.
    """

    uses = ("kubernetes",)
    required_output_fields = ("k8s.ns.name", "k8s.pod.name")

    async def check(self, event: Event) -> None:
        """See that the event names a pod.

        :raises CheckError: if it does not.
        """
        Pod.of(event)

    async def get(self, pod: Pod) -> Object:
        """Return the pod as the API has it.

        :raises CheckError: if it does not exist; other refusals stay what they are.
        """
        try:
            return await self.clients.kubernetes.get(pod.path)
        except NotFound:
            raise pod.missing() from None

    async def patch(self, where: str, changes: Object) -> None:
        """Change an object by a merge patch, which may come twice.

        :raises TransientError: if somebody else changed it at that very moment, too.
        """
        try:
            await self.clients.kubernetes.patch(where, changes)
        except Conflict as error:
            raise TransientError(str(error)) from None

    async def node(self, pod: Pod) -> str:
        """Return the name of the node that the pod is on.

        :raises PluginError: if it is on none yet.
        """
        name = (await self.get(pod))["spec"].get("nodeName")
        if not name:
            raise PluginError(f"{pod} is not on a node yet")
        return str(name)


def owner(pod: Object) -> tuple[str, str]:
    """Return kind and name of what *pod* belongs to; both empty for a standalone pod.

    It is the owner that controls the pod, else the first that is named.
    """
    references: list[dict[str, Any]] = pod["metadata"].get("ownerReferences") or []
    if not references:
        return "", ""
    found = next((ref for ref in references if ref.get("controller")), references[0])
    return found["kind"], found["name"]


def is_static(pod: Object) -> bool:
    """Whether *pod* is a file of its node: the API has a mirror, which the kubelet makes anew."""
    return _MIRROR in (pod["metadata"].get("annotations") or {})


def has_finished(pod: Object) -> bool:
    """Whether all containers of *pod* have ended for good: it counts for no replica."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def shown(name: str) -> str:
    """Return *name* fit for a message: no longer than a name can be, no control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:_SHOWN])
