"""How the disruptive actionners ask what is protected: terminate, networkpolicy, delete, cordon
and drain.
"""

from falco_talon.clients import Clients
from falco_talon.errors import Ignored


def protection(
    clients: Clients, *, resource: str = "pods", name: str = "", namespace: str = ""
) -> str:
    """Return why an object is protected (see :class:`~falco_talon.protected.Protected`), or
    nothing. *resource* is the plural.
    """
    own = clients.kubernetes.own_namespace
    return clients.protected.reason(own, resource=resource, name=name, namespace=namespace)


def spare_protected_node(clients: Clients, node: str) -> None:
    """See that *node* is not protected.

    :raises Ignored: if it is.
    """
    if reason := protection(clients, resource="nodes", name=node):
        raise Ignored(f"the node '{node}' {reason} and will be ignored.", {"node": node})
