"""k8snode"""

from typing import Final

from falco_talon.clients.kubernetes import NotFound, path
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Context, PolicyRule

_LABELS: Final = {
    "node.hostname": "kubernetes.io/hostname",
    "node.instancetype": "node.kubernetes.io/instance-type",
    "node.role": "kubernetes.io/role",
    "node.topology.region": "topology.kubernetes.io/region",
    "node.topology.zone": "topology.kubernetes.io/zone",
}
_ROLE: Final = "node-role.kubernetes.io/"


class K8sNode(Context):
    """Facts about the node of the pod: `node.hostname`, `node.instancetype`, `node.role`,
    `node.topology.region`, `node.topology.zone` and `node.spec.providerid`, as far as known.
    """

    name = "k8snode"
    uses = ("kubernetes",)
    permissions = (PolicyRule(("pods", "nodes"), ("get",)),)

    async def fetch(self, event: Event) -> dict[str, str]:
        """Return them.

        :raises PluginError: if pod or node cannot be had.
        """
        if not event.pod:
            raise CheckError("missing pod name")
        if not event.namespace:
            raise CheckError("missing namespace")
        kubernetes = self.clients.kubernetes
        try:
            pod = await kubernetes.get(path("pods", event.pod, namespace=event.namespace))
            name = pod["spec"].get("nodeName")
            if not name:
                raise PluginError("the pod is not on a node yet")
            node = await kubernetes.get(path("nodes", name))
        except NotFound as error:
            raise CheckError(str(error)) from None
        labels = node["metadata"].get("labels") or {}
        found = {key: str(labels.get(label) or "") for key, label in _LABELS.items()}
        roles = sorted(label.removeprefix(_ROLE) for label in labels if label.startswith(_ROLE))
        found["node.role"] = found["node.role"] or ",".join(roles)
        provider = str(node["spec"].get("providerID") or "")
        # The second key is how the reference's documentation writes it.
        found |= {"node.spec.providerid": provider, "node.spec.providedid": provider}
        return {key: value for key, value in found.items() if value}
