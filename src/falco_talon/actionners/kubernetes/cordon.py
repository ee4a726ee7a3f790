"""kubernetes:cordon"""

from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.actionners.kubernetes._protected import spare_protected_node
from falco_talon.clients.kubernetes import path
from falco_talon.event import Event
from falco_talon.plugin import PolicyRule, Result


class Cordon(PodActionner):
    """Cordon the node of the pod: nothing new is scheduled on it.

    A node that `guard.protected` lists is left alone.
    """

    name = "kubernetes:cordon"
    source = ("syscalls", "k8s_audit")
    permissions = (PolicyRule(("pods",), ("get",)), PolicyRule(("nodes",), ("patch",)))
    example = """
      - action: Cordon the node
        actionner: kubernetes:cordon
    """

    async def run(self, event: Event) -> Result:
        """Cordon it, whether it is already or not.

        :raises PluginError: if that is refused.
        """
        node = await self.node(Pod.of(event))
        spare_protected_node(self.clients, node)
        await self.patch(path("nodes", node), {"spec": {"unschedulable": True}})
        return Result(f"the node '{node}' has been cordoned", {"node": node})
