"""What no actionner deletes, evicts or cuts off, whatever an event names."""

from typing import Final

PROTECTED_NAMESPACES: Final = ("kube-system", "kube-public", "kube-node-lease")
"""What lives in these is protected, and they are themselves; so is the namespace we run in."""

KEPT_NAMESPACES: Final = ("default",)
"""These are protected themselves; what lives in them is not."""

PROTECTED_RESOURCES: Final = ("clusterroles",)
"""Every object of these is protected."""


def protection(
    own_namespace: str, *, namespace: str = "", resource: str = "pods", name: str = ""
) -> str:
    """Return why an object is protected, or nothing. *resource* is the plural."""
    namespaces = {*PROTECTED_NAMESPACES, own_namespace} - {""}
    if resource in PROTECTED_RESOURCES:
        return f"is one of the {resource}, which are protected,"
    if resource == "namespaces":
        return "is protected" if name in {*namespaces, *KEPT_NAMESPACES} else ""
    return f"is in the protected namespace '{namespace}'" if namespace in namespaces else ""
