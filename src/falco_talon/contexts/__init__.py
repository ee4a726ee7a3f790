"""The built-in contexts, in the order they are listed."""

from falco_talon.contexts.k8snode import K8sNode
from falco_talon.plugin import Context

CONTEXTS: tuple[type[Context], ...] = (K8sNode,)
