"""kubernetes:drain"""

from collections.abc import Collection, Mapping

from pydantic import AliasChoices, Field

from falco_talon.actionners.kubernetes._eviction import Eviction, Outcome, evict
from falco_talon.actionners.kubernetes._health import MinHealthyReplicas, spare_replicas
from falco_talon.actionners.kubernetes._pod import Pod, PodActionner, has_finished, is_static, owner
from falco_talon.actionners.kubernetes._protected import protection, spare_protected_node
from falco_talon.clients.kubernetes import Object, path
from falco_talon.errors import PluginError
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, PolicyRule, Result, Tell

_EVICT_AND_CORDON = (
    PolicyRule(("pods/eviction",), ("create",)),
    PolicyRule(("nodes",), ("patch",)),
)
_REPLICA_SETS = (PolicyRule(("replicasets",), ("get",), ("apps",)),)


class Drain(PodActionner):
    """Cordon the node of the pod and evict the pods on it.

    Left alone are static pods, what `guard.protected` lists (kube-system, for example, and the
    namespace that Falco Talon runs in) and, unless asked for, the pods of a DaemonSet. The pod of
    the event goes first, then those of the lowest priority. PodDisruptionBudgets are respected:
    an eviction that one forbids is tried again until `max_wait_period` is over.
    """

    name = "kubernetes:drain"
    source = ("syscalls", "k8s_audit")
    permissions = (
        PolicyRule(("pods",), ("get", "list", "watch")),
        *_EVICT_AND_CORDON,
        *_REPLICA_SETS,
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

    def needs(self, known: Mapping[str, Collection[str]]) -> tuple[PolicyRule, ...]:
        """Return the permissions without those for a wait or a minimum that is not asked for."""
        verbs = ("get", "list", "watch") if self.parameters.max_wait_period else ("get", "list")
        replica_sets = _REPLICA_SETS if self.parameters.min_healthy_replicas else ()
        return (PolicyRule(("pods",), verbs), *_EVICT_AND_CORDON, *replica_sets)

    async def run(self, event: Event) -> Result:
        """Do as :meth:`work` does, in silence."""
        return await self.work(event, lambda text: None)

    async def work(self, event: Event, tell: Tell) -> Result:
        """Cordon the node, evict the pods, and wait for them if so wished.

        :raises Ignored: if the node is protected; :raises PluginError: with the counts, if pods
            stay that should go.
        """
        kubernetes, parameters = self.clients.kubernetes, self.parameters
        pod = Pod.of(event)
        node = await self.node(pod)
        spare_protected_node(self.clients, node)
        await self.patch(path("nodes", node), {"spec": {"unschedulable": True}})
        found = await kubernetes.get(path("pods"), fieldSelector=f"spec.nodeName={node}")
        pods = [each for each in found["items"] if not self._spared(each)]
        chosen, errors = await self._beyond_minimum(pods)
        spared = len(found["items"]) - len(chosen) - len(errors)
        for text in errors:
            tell(text)
        tell(f"the node '{node}' is cordoned: {len(chosen)} pods to evict, {spared} ignored pods")
        eviction = Eviction(
            node,
            parameters.grace_period_seconds,
            parameters.max_wait_period,
            frozenset(parameters.wait_period_excluded_namespaces),
            parameters.max_parallel_evictions,
        )
        version = found["metadata"]["resourceVersion"]
        chosen.sort(key=lambda each: _order(each, pod))
        outcome = await evict(kubernetes, chosen, eviction, version, tell)
        return self._result(node, spared, errors, outcome)

    def _result(self, node: str, spared: int, errors: list[str], outcome: Outcome) -> Result:
        """Return the counts.

        :raises PluginError: with them, if pods stay that should go.
        """
        evicted, staying, others = len(outcome.evicted), len(outcome.staying), len(errors)
        refused = f"{len(outcome.refused)} eviction errors"
        faults = [*outcome.refused, *errors, *outcome.staying]
        if not faults:
            text = f"{evicted} pods evicted, {spared} ignored pods"
            return Result(f"the node '{node}' has been drained: {text}", {"node": node})
        if self.parameters.ignore_errors:
            text = f"{spared} ignored pods, {refused}, {others + staying} other errors"
            return Result(
                f"the node '{node}' has been drained, errors are ignored: {text},"
                f" {evicted} pods evicted",
                {"node": node},
            )
        raise PluginError(
            f"the node '{node}' has not been fully drained: {spared} pods ignored, {refused},"
            f" {staying} were not evicted during max_wait_period, {others} other errors,"
            f" {evicted} pods evicted; {faults[0]}"
        )

    def _spared(self, pod: Object) -> bool:
        metadata = pod["metadata"]
        kind, _ = owner(pod)
        return bool(
            is_static(pod)
            or protection(self.clients, name=metadata["name"], namespace=metadata["namespace"])
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
            if kind != "ReplicaSet" or has_finished(pod):
                chosen.append(pod)
                continue
            namespace = pod["metadata"]["namespace"]
            try:
                if (namespace, name) not in spare:
                    place = path("replicasets", name, namespace=namespace, api="apps/v1")
                    found = await self.clients.kubernetes.get(place)
                    spare[namespace, name] = spare_replicas(minimum, found)
            except PluginError as error:
                errors.append(
                    f"error getting replica set for pod '{pod['metadata']['name']}': {error}"
                )
                continue
            if spare[namespace, name] > 0:
                spare[namespace, name] -= 1
                chosen.append(pod)
        return chosen, errors


def _order(found: Object, first: Pod) -> tuple[bool, int, str, str]:
    """Return what pods are sorted by: *first*, then by priority, low ones first."""
    metadata = found["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    others = (name, namespace) != (first.name, first.namespace)
    return others, int(found["spec"].get("priority") or 0), namespace, name
