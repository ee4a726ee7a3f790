"""kubernetes:terminate"""

from collections.abc import Collection, Mapping

from pydantic import Field

from falco_talon.actionners.kubernetes._eviction import evict_one
from falco_talon.actionners.kubernetes._health import MinHealthyReplicas, enough_replicas
from falco_talon.actionners.kubernetes._pod import Pod, PodActionner, has_finished, is_static, owner
from falco_talon.actionners.kubernetes._protected import protection
from falco_talon.clients.kubernetes import Conflict, NotFound, Object, path
from falco_talon.errors import CheckError, Ignored, TransientError
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, PolicyRule, Result

_GET = PolicyRule(("pods",), ("get",))
_DELETE = PolicyRule(("pods",), ("delete",))
_EVICT = PolicyRule(("pods/eviction",), ("create",))
_REPLICA_SETS = PolicyRule(("replicasets",), ("get",), ("apps",))


class Terminate(PodActionner):
    """Delete the pod.

    The pod that is deleted is the one that was looked at: another that has taken its name since
    (as those of a StatefulSet do) is left alone. So are static pods, which no API can end, and
    what `guard.protected` lists. PodDisruptionBudgets hold it up only with `max_wait_period`.
    """

    name = "kubernetes:terminate"
    source = ("syscalls",)
    continue_ = False
    permissions = (_GET, _DELETE, _EVICT, _REPLICA_SETS)
    example = """
      - action: Terminate the pod
        actionner: kubernetes:terminate
        parameters:
          grace_period_seconds: 5
          ignore_daemonsets: true
          ignore_statefulsets: true
          min_healthy_replicas: 33%
    """

    class Parameters(BaseParameters):
        """How to delete, and what to spare."""

        grace_period_seconds: int | None = Field(
            None,
            ge=0,
            description="Seconds that the pod gets to end; 0 kills it at once. Default: the pod's"
            " own grace period.",
        )
        ignore_daemonsets: bool = Field(
            False, description="Spare the pods of a DaemonSet. Default: false."
        )
        ignore_statefulsets: bool = Field(
            False, description="Spare the pods of a StatefulSet. Default: false."
        )
        ignore_standalone_pods: bool = Field(
            True, description="Spare pods without an owner, which nothing recreates. Default: true."
        )
        min_healthy_replicas: MinHealthyReplicas = Field(
            "",
            description="Spare the pod of a ReplicaSet that has fewer ready replicas: a number"
            " (`2`), or a percentage of the replicas it should have (`33%`). Default: no minimum.",
        )
        max_wait_period: int | None = Field(
            None,
            ge=0,
            le=86400,
            description="Evict the pod instead, trying again for so many seconds while a"
            " PodDisruptionBudget forbids it. Default: delete it, whatever budgets say.",
        )

    parameters: Parameters

    @property
    def duration_seconds(self) -> float:
        """The wait for a budget."""
        return self.parameters.max_wait_period or 0

    def needs(self, known: Mapping[str, Collection[str]]) -> tuple[PolicyRule, ...]:
        """Return the permissions without those for what is not asked for."""
        end = _DELETE if self.parameters.max_wait_period is None else _EVICT
        return (_GET, end, *((_REPLICA_SETS,) if self.parameters.min_healthy_replicas else ()))

    async def run(self, event: Event) -> Result:
        """Delete the pod, unless it is to be spared.

        :raises Ignored: if it is, with the reason; :raises PluginError: if it cannot be deleted.
        """
        pod = Pod.of(event)
        found = await self.get(pod)
        exemption = protection(self.clients, name=pod.name, namespace=pod.namespace)
        exemption = exemption or _recreated(event, found)
        exemption = exemption or await self._exemption(pod, found)
        if exemption:
            raise Ignored(f"{pod} {exemption} and will be ignored.", pod.objects)
        await self._end(pod, found)
        return Result(f"{pod} has been terminated", pod.objects)

    async def _end(self, pod: Pod, found: Object) -> None:
        """Delete or evict the pod.

        :raises PluginError: if that is refused.
        """
        parameters, kubernetes = self.parameters, self.clients.kubernetes
        if parameters.max_wait_period is not None:
            await evict_one(
                kubernetes,
                found,
                grace_period_seconds=parameters.grace_period_seconds,
                seconds=parameters.max_wait_period,
            )
            return
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": found["metadata"]["uid"]},
        }
        if parameters.grace_period_seconds is not None:
            options["gracePeriodSeconds"] = parameters.grace_period_seconds
        try:
            await kubernetes.delete(pod.path, options)
        except NotFound:
            raise pod.missing() from None
        except Conflict as error:
            if "precondition" not in str(error).lower():
                raise TransientError(str(error)) from None
            raise CheckError(f"{pod} has been replaced in the meantime: {error}") from None

    async def _exemption(self, pod: Pod, found: Object) -> str:
        """Return why the pod is spared, or nothing."""
        kind, name = owner(found)
        if is_static(found):
            return "is a static pod, which only its node can end,"
        if kind == "DaemonSet" and self.parameters.ignore_daemonsets:
            return "belongs to a DaemonSet"
        if kind == "StatefulSet" and self.parameters.ignore_statefulsets:
            return "belongs to a StatefulSet"
        if not kind and self.parameters.ignore_standalone_pods:
            return "is a standalone pod"
        minimum = self.parameters.min_healthy_replicas
        if kind == "ReplicaSet" and minimum and not has_finished(found):
            replica_set = await self.clients.kubernetes.get(
                path("replicasets", name, namespace=pod.namespace, api="apps/v1")
            )
            if not enough_replicas(minimum, replica_set):
                return "belongs to a ReplicaSet without enough healthy replicas"
        return ""


def _recreated(event: Event, found: Object) -> str:
    """Return the reason if the event tells the uid of the pod and this is another one's."""
    metadata = found["metadata"]
    uid = event.field("k8s.pod.uid")
    # The kubelet knows a static pod by another uid than the one of its mirror in the API.
    if not uid or uid == metadata["uid"] or is_static(found):
        return ""
    return "has been recreated since the event"
