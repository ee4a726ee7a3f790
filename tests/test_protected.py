"""The list of what no action harms."""

import pytest

from falco_talon.clients import open_clients
from falco_talon.config import Config
from falco_talon.protected import PROTECTED, Protected


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"resource": "pods", "name": "a", "namespace": "kube-system"}, "in the protected name"),
        ({"resource": "pods", "name": "a", "namespace": "kube-public"}, "in the protected name"),
        ({"resource": "leases", "name": "a", "namespace": "kube-node-lease"}, "in the protected"),
        ({"resource": "pods", "name": "a", "namespace": "talon"}, "in the protected namespace"),
        ({"resource": "namespaces", "name": "kube-system"}, "is protected"),
        ({"resource": "namespaces", "name": "talon"}, "is protected"),
        ({"resource": "namespaces", "name": "default"}, "is protected"),
        ({"resource": "clusterroles", "name": "view"}, "one of the clusterroles, which are prot"),
        ({"resource": "pods", "name": "a", "namespace": "default"}, ""),
        ({"resource": "namespaces", "name": "shop"}, ""),
        ({"resource": "nodes", "name": "kube-system"}, ""),
        ({"resource": "roles", "name": "a", "namespace": "shop"}, ""),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_ac_25_the_default(target: dict[str, str], reason: str) -> None:
    """What the cluster lives on and our own namespace; `default` itself, but not what is in it."""
    found = Protected().reason("talon", **target)
    assert (reason in found) if reason else (found == "")


def test_changed() -> None:
    """Another list replaces the default; outside of a cluster there is no own namespace."""
    nothing = Protected(())
    assert not nothing.reason("talon", resource="clusterroles", name="admin")
    assert not nothing.reason("talon", resource="pods", name="a", namespace="talon")
    some = Protected(("shop", "pods/db-0", "secrets/*"))
    assert some.reason("", resource="pods", name="a", namespace="shop")
    assert some.reason("", resource="pods", name="db-0", namespace="any") == "is protected"
    assert some.reason("", resource="secrets", name="a", namespace="any")
    assert not some.reason("", resource="pods", name="db-1", namespace="kube-system")
    assert not Protected().reason("", resource="pods", name="a", namespace="")


@pytest.mark.parametrize("entry", ["", "A", "a b", "../x", "a/b/c", "*", "@", "a\n"])
def test_no_entry(entry: str) -> None:
    """An entry that means nothing is refused, not ignored."""
    with pytest.raises(ValueError, match="neither a namespace"):
        Protected((*PROTECTED, entry))


def test_the_configuration_reaches_the_plugins() -> None:
    """What `guard.protected` says is what the clients of the plugins carry."""
    config = Config.model_validate({"guard": {"protected": ["shop"]}})
    protected = open_clients(config).protected
    assert protected.reason("", resource="pods", name="a", namespace="shop")
    assert not protected.reason("", resource="pods", name="a", namespace="kube-system")
    assert open_clients(Config()).protected.reason("", resource="namespaces", name="default")
