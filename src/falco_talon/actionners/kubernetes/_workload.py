"""The workload that a pod belongs to, and how its pods are selected."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from falco_talon.actionners.kubernetes._pod import Pod, owner
from falco_talon.clients.kubernetes import Kubernetes, NotFound, Object, path
from falco_talon.errors import CheckError
from falco_talon.plugin import PolicyRule

WORKLOADS: Final = (
    PolicyRule(("daemonsets", "deployments", "replicasets", "statefulsets"), ("get",), ("apps",)),
    PolicyRule(("jobs",), ("get",), ("batch",)),
)
"""What it takes to find the workload of a pod."""

_RESOURCES: Final = {
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "ReplicaSet": "replicasets",
    "StatefulSet": "statefulsets",
}
# They differ between the revisions or the pods of one workload.
_NOT_STABLE: Final = (
    "pod-template-hash",
    "pod-template-generation",
    "controller-revision-hash",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
)
_OF_ONE_RUN: Final = (*_NOT_STABLE, "job-name", "batch.kubernetes.io/job-name")


@dataclass(frozen=True, slots=True)
class Workload:
    """What a pod belongs to; for a standalone pod that is itself."""

    kind: str
    name: str
    selector: dict[str, Any]
    """``matchLabels`` and maybe ``matchExpressions``; never empty."""


async def find_workload(kubernetes: Kubernetes, pod: Pod, found: Object) -> Workload:
    """Return the workload of *pod*, which the API has as *found*.

    A ReplicaSet leads to its Deployment, a Job to its CronJob if the pods of that have labels of
    their own. For a Job, a custom kind or a workload that is gone the selector is the labels of
    the pod.

    :raises CheckError: if there is nothing that selects its pods and no others.
    """
    kind, name = owner(found)
    selector: dict[str, Any] = {}
    while kind in _RESOURCES:
        where = path(_RESOURCES[kind], name, namespace=pod.namespace, api="apps/v1")
        try:
            workload = await kubernetes.get(where)
        except NotFound:
            break
        selector = workload["spec"].get("selector") or {}
        above, above_name = owner(workload)
        if above not in _RESOURCES:
            break
        kind, name = above, above_name
    labels = found["metadata"].get("labels") or {}
    if kind == "Job" and (every_run := _without(labels, _OF_ONE_RUN)):
        kind, name = await _cron_job(kubernetes, pod, name) or (kind, name)
        labels = every_run if kind == "CronJob" else labels
    selector = _stable(selector) or _stable({"matchLabels": labels})
    if not selector:
        raise CheckError(
            f"can't find the owner and/or labels for the pod '{pod.name}'"
            f" in namespace '{pod.namespace}'"
        )
    return Workload(kind or "Pod", name or pod.name, selector)


def _stable(selector: dict[str, Any]) -> dict[str, Any]:
    """Return *selector* without what does not hold for each pod of the workload."""
    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    kept = {
        "matchLabels": _without(labels, _NOT_STABLE),
        "matchExpressions": [each for each in expressions if each["key"] not in _NOT_STABLE],
    }
    return {key: value for key, value in kept.items() if value}


def _without(labels: dict[str, str], keys: Collection[str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key not in keys}


async def _cron_job(kubernetes: Kubernetes, pod: Pod, job: str) -> tuple[str, str] | None:
    """Return kind and name of the CronJob that a Job belongs to, if it does."""
    try:
        found = await kubernetes.get(path("jobs", job, namespace=pod.namespace, api="batch/v1"))
    except NotFound:
        return None
    above = owner(found)
    return above if above[0] == "CronJob" else None
