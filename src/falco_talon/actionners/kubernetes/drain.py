"""kubernetes:drain"""

from pydantic import AliasChoices, Field

from falco_talon.actionners.kubernetes._eviction import Eviction, evict
from falco_talon.actionners.kubernetes._health import MinHealthyReplicas, spare_replicas
from falco_talon.actionners.kubernetes._pod import MIRROR, Pod, PodActionner, owner
from falco_talon.actionners.kubernetes._protected import protection
from falco_talon.clients.kubernetes import Object, path
from falco_talon.errors import PluginError
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, PolicyRule, Result

_FINISHED = ("Succeeded", "Failed")


class Drain(PodActionner):
    """Cordon the node of the pod and evict the pods on it.

    Left alone are static pods, those in the protected namespaces and in the one that Falco Talon
    runs in, and, unless asked for, those of a DaemonSet. PodDisruptionBudgets are respected: an
    eviction that one forbids is tried again until `max_wait_period` is over.
    """

    name = "kubernetes:drain"
    source = ("syscalls", "k8s_audit")
    permissions = (
        PolicyRule(("pods",), ("get", "list", "watch")),
        PolicyRule(("pods/eviction",), ("create",)),
        PolicyRule(("nodes",), ("patch",)),
        PolicyRule(("replicasets",), ("get",), ("apps",)),
    )
    example = """
      - action: Drain the node
        actionner: kubernetes:drain
        parameters:
          min_healthy_replicas: 33%
          ignore_statefulsets: true
          max_wait_period: 45
    """

    class Parameters(BaseParameters):
        """What to spare, and how long to wait."""

        min_healthy_replicas: MinHealthyReplicas = Field(
            "",
            description="Spare the pods of a ReplicaSet that has fewer ready replicas, less those"
            " evicted: a number (`2`), or a percentage of the replicas it should have (`33%`)."
            " Default: no minimum.",
        )
        ignore_errors: bool = Field(
            False,
            validation_alias=AliasChoices("ignore_errors", "ignore_error"),
            description="Succeed even if pods stay. Default: false.",
        )
        ignore_daemonsets: bool = Field(
            True,
            description="Spare the pods of a DaemonSet, which come back at once. Default: true.",
        )
        ignore_statefulsets: bool = Field(
            False, description="Spare the pods of a StatefulSet. Default: false."
        )
        grace_period_seconds: int | None = Field(
            None,
            ge=0,
            description="Seconds that each pod gets to end; 0 kills it at once. Default: the pod's"
            " own grace period.",
        )
        max_wait_period: int = Field(
            0,
            ge=0,
            le=86400,
            description="Seconds to wait until the pods are gone and for budgets to allow"
            " evictions; 0 does not wait. Default: 0.",
        )
        wait_period_excluded_namespaces: list[str] = Field(
            [], description="Namespaces whose pods are not waited for. Default: none."
        )
        max_parallel_evictions: int = Field(
            16, ge=1, le=256, description="Evictions under way at once. Default: 16."
        )

    parameters: Parameters

    @property
    def duration_seconds(self) -> float:
        """The wait for the pods."""
        return self.parameters.max_wait_period

    async def run(self, event: Event) -> Result:
        """Cordon the node, evict the pods, and wait for them if so wished.

        :raises PluginError: with the counts, if pods stay that should go.
        """
        kubernetes, parameters = self.clients.kubernetes, self.parameters
        node = await self.node(Pod.of(event))
        await kubernetes.patch(path("nodes", node), {"spec": {"unschedulable": True}})
        found = await kubernetes.get(path("pods"), fieldSelector=f"spec.nodeName={node}")
        pods = [pod for pod in found["items"] if not self._spared(pod)]
        chosen, errors = await self._beyond_minimum(pods)
        eviction = Eviction(
            node,
            parameters.grace_period_seconds,
            parameters.max_wait_period,
            frozenset(parameters.wait_period_excluded_namespaces),
            parameters.max_parallel_evictions,
        )
        version = found["metadata"]["resourceVersion"]
        refused, waiting = await evict(kubernetes, chosen, eviction, version)
        spared = len(found["items"]) - len(chosen) - len(errors)
        counts = f"{len(refused)} eviction errors"
        if not (refused or waiting or errors):
            text = f"{len(chosen)} pods evicted, {spared} ignored pods"
            return Result(f"the node '{node}' has been drained: {text}", {"node": node})
        if parameters.ignore_errors:
            text = f"{spared} ignored pods, {counts}, {len(errors) + len(waiting)} other errors"
            return Result(
                f"the node '{node}' has been drained, errors are ignored: {text}", {"node": node}
            )
        raise PluginError(
            f"the node '{node}' has not been fully drained: {spared} pods ignored, {counts},"
            f" {len(waiting)} were not evicted during max_wait_period, {len(errors)} other errors;"
            f" {(refused + errors + waiting)[0]}"
        )

    def _spared(self, pod: Object) -> bool:
        metadata = pod["metadata"]
        kind, _ = owner(pod)
        return bool(
            MIRROR in (metadata.get("annotations") or {})
            or protection(self.clients.kubernetes.own_namespace, namespace=metadata["namespace"])
            or (kind == "DaemonSet" and self.parameters.ignore_daemonsets)
            or (kind == "StatefulSet" and self.parameters.ignore_statefulsets)
        )

    async def _beyond_minimum(self, pods: list[Object]) -> tuple[list[Object], list[str]]:
        """Return the pods that their ReplicaSets can spare, and what could not be found out."""
        minimum = self.parameters.min_healthy_replicas
        if not minimum:
            return pods, []
        chosen: list[Object] = []
        errors: list[str] = []
        spare: dict[tuple[str, str], int] = {}
        for pod in pods:
            kind, name = owner(pod)
            if kind != "ReplicaSet" or pod["status"].get("phase") in _FINISHED:
                chosen.append(pod)
                continue
            namespace = pod["metadata"]["namespace"]
            try:
                if (namespace, name) not in spare:
                    place = path("replicasets", name, namespace=namespace, api="apps/v1")
                    found = await self.clients.kubernetes.get(place)
                    spare[namespace, name] = spare_replicas(minimum, found)
            except PluginError as error:
                errors.append(f"pod '{pod['metadata']['name']}': {error}")
                continue
            if spare[namespace, name] > 0:
                spare[namespace, name] -= 1
                chosen.append(pod)
        return chosen, errors
