"""kubernetes:networkpolicy"""

import hashlib
from ipaddress import ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.actionners.kubernetes._protected import protection
from falco_talon.actionners.kubernetes._selectors import selects
from falco_talon.actionners.kubernetes._workload import WORKLOADS, Workload, find_workload
from falco_talon.clients.kubernetes import Conflict, Object, path
from falco_talon.errors import Ignored, PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, PolicyRule, Result

_API: Final = "networking.k8s.io/v1"
_MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "falco-talon"}
_NAME_CHARACTERS: Final = 253


def _check_cidr(value: str) -> str:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        network = None
    if network is None or "/" not in value:
        raise PydanticCustomError("cidr", "wrong CIDR '{value}'", {"value": value})
    return str(network)


class NetworkPolicy(PodActionner):
    """Block the egress of all pods of the pod's workload, but for what is allowed.

    The policy is named `falco-talon-<kind>-<name>` after the workload, a Deployment rather than
    its ReplicaSet, and has the label `app.kubernetes.io/managed-by: falco-talon`. Policies add up:
    if another one restricts the egress of the pod already, the allow list is left out, since it
    would allow more than before; and the result names those that still allow something.
    What `guard.protected` lists is left alone. To undo it all:
    `kubectl delete networkpolicies -A -l app.kubernetes.io/managed-by=falco-talon`.
    """

    name = "kubernetes:networkpolicy"
    source = ("syscalls",)
    permissions = (
        PolicyRule(("pods",), ("get",)),
        PolicyRule(("networkpolicies",), ("list", "create", "update"), ("networking.k8s.io",)),
        *WORKLOADS,
    )
    example = """
      - action: Isolate the workload
        actionner: kubernetes:networkpolicy
        parameters:
          allow_cidr: [10.96.0.0/12]
          allow_namespaces: [monitoring]
    """

    class Parameters(BaseParameters):
        """What stays allowed."""

        allow_cidr: list[Annotated[str, AfterValidator(_check_cidr)]] = Field(
            [], description="Networks that stay reachable. Default: none."
        )
        allow_namespaces: list[str] = Field(
            [], description="Namespaces whose pods stay reachable. Default: none."
        )

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Create the policy of the workload, or bring it up to date.

        :raises Ignored: if the pod is protected; :raises PluginError: if that is not possible.
        """
        kubernetes, pod = self.clients.kubernetes, Pod.of(event)
        if reason := protection(self.clients, name=pod.name, namespace=pod.namespace):
            raise Ignored(f"{pod} {reason} and will be ignored.", pod.objects)
        found = await self.get(pod)
        workload = await find_workload(kubernetes, pod, found)
        name = _name(workload)
        collection = path("networkpolicies", namespace=pod.namespace, api=_API)
        policies = {
            each["metadata"]["name"]: each for each in (await kubernetes.get(collection))["items"]
        }
        ours = policies.pop(name, None)
        others = [each for each in policies.values() if _restricts(each, found)]
        wanted = self._policy(name, workload, widening=not others)
        done = await self._store(collection, ours, wanted)
        text = f"the networkpolicy '{name}' in the namespace '{pod.namespace}' has been {done}"
        return Result(text + self._notes(found, others), {**pod.objects, "networkpolicy": name})

    async def _store(self, collection: str, ours: Object | None, wanted: Object) -> str:
        """Create *wanted*, or put it in the place of *ours*; return which."""
        kubernetes, name = self.clients.kubernetes, wanted["metadata"]["name"]
        try:
            if ours is None:
                await kubernetes.post(collection, wanted)
                return "created"
            metadata = ours["metadata"]
            labels = metadata.get("labels") or {}
            if not labels.items() >= _MANAGED_BY.items():
                raise PluginError(f"the networkpolicy '{name}' is not one of Falco Talon's")
            if ours["spec"] != wanted["spec"]:
                where = path("networkpolicies", name, namespace=metadata["namespace"], api=_API)
                await kubernetes.put(where, {**ours, "spec": wanted["spec"]})
        except Conflict as error:  # somebody was faster: look again
            raise TransientError(str(error)) from None
        return "updated"

    def _policy(self, name: str, workload: Workload, *, widening: bool) -> Object:
        parameters = self.parameters
        peers: list[dict[str, Any]] = [{"ipBlock": {"cidr": c}} for c in parameters.allow_cidr]
        peers += [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
            for namespace in parameters.allow_namespaces
        ]
        spec: dict[str, Any] = {"podSelector": workload.selector, "policyTypes": ["Egress"]}
        if peers and widening:
            spec["egress"] = [{"to": peers}]
        return {
            "apiVersion": _API,
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "labels": dict(_MANAGED_BY)},
            "spec": spec,
        }

    def _notes(self, pod: Object, others: list[Object]) -> str:
        """Return what the pod and the other policies that restrict it mean for the outcome."""
        notes = ""
        if pod["spec"].get("hostNetwork"):
            notes += ", but the pod is on the network of its node, where policies do not count"
        parameters = self.parameters
        if others and (parameters.allow_cidr or parameters.allow_namespaces):
            names = _names(others)
            notes += f", without the allow list: the egress is restricted already by {names}"
        if allowing := [each for each in others if each["spec"].get("egress")]:
            notes += f", but egress is still allowed by {_names(allowing)}"
        return notes


def _name(workload: Workload) -> str:
    name = f"falco-talon-{workload.kind.lower()}-{workload.name}"
    if len(name) <= _NAME_CHARACTERS:
        return name
    # What is cut off must not make two workloads share a policy.
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _NAME_CHARACTERS - 9].rstrip('-.')}-{digest}"


def _restricts(policy: Object, pod: Object) -> bool:
    """Whether *policy* selects *pod* and says something about its egress."""
    spec = policy["spec"]
    types = spec.get("policyTypes") or (["Egress"] if spec.get("egress") else [])
    labels = pod["metadata"].get("labels") or {}
    return "Egress" in types and selects(spec.get("podSelector") or {}, labels)


def _names(policies: list[Object]) -> str:
    return ", ".join(f"'{each['metadata']['name']}'" for each in policies)
