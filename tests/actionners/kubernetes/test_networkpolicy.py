"""kubernetes:networkpolicy. What a policy says is checked; the test network enforces none."""

from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes._selectors import selects
from falco_talon.actionners.kubernetes.networkpolicy import NetworkPolicy
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, Ignored, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import CreatePod, about
from tests.cluster.cluster import Cluster, Resource

MANAGED_BY = {"app.kubernetes.io/managed-by": "falco-talon"}


async def isolate(clients: Clients, event: Event, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = NetworkPolicy(NetworkPolicy.Parameters.model_validate(parameters), clients)
    await plugin.check(event)
    return await plugin.run(event)


def policies(cluster: Cluster, namespace: str) -> dict[str, Resource]:
    """Return the policies of the namespace by name."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    found = cluster.request("GET", path)["items"]
    return {each["metadata"]["name"]: each for each in found}


def put(cluster: Cluster, namespace: str, name: str, spec: Any, **metadata: Any) -> None:
    """Create a policy of somebody else."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    cluster.request("POST", path, {"metadata": {"name": name, **metadata}, "spec": spec})


async def test_ac_03_ac_15_ac_21_created_and_updated(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """AC-3, AC-15, AC-21: nothing is allowed but what the parameters say, by the right labels;
    the second time the policy is brought up to date in its place.
    """
    create_pod(labels={"app": "web", "pod-template-hash": "x"})
    result = await isolate(clients, event)
    name = "falco-talon-pod-web"
    assert result == Result(
        f"the networkpolicy '{name}' in the namespace '{namespace}' has been created",
        {"pod": "web", "namespace": namespace, "networkpolicy": name},
    )
    made = policies(cluster, namespace)[name]
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}
    assert made["spec"] == spec
    assert made["metadata"]["labels"] == MANAGED_BY
    result = await isolate(
        clients, event, allow_cidr=["10.0.0.1/8", "fd00::/8"], allow_namespaces=["a", "b"]
    )
    assert result.text.endswith("has been updated")
    changed = policies(cluster, namespace)[name]
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    label = "kubernetes.io/metadata.name"
    assert changed["spec"] == {
        **spec,
        "egress": [
            {
                "to": [
                    {"ipBlock": {"cidr": "10.0.0.0/8"}},
                    {"ipBlock": {"cidr": "fd00::/8"}},
                    {"namespaceSelector": {"matchLabels": {label: "a"}}},
                    {"namespaceSelector": {"matchLabels": {label: "b"}}},
                ]
            }
        ],
    }


async def test_ac_19_somebody_elses_policy(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """AC-19: a policy that is not ours is not touched, whatever it is called."""
    create_pod(labels={"app": "web"})
    put(cluster, namespace, "falco-talon-pod-web", {"podSelector": {}})
    before = policies(cluster, namespace)
    with pytest.raises(PluginError, match="'falco-talon-pod-web' is not one of Falco Talon's"):
        await isolate(clients, event)
    assert policies(cluster, namespace) == before


WORKLOADS: dict[str, tuple[str, dict[str, Any], str]] = {
    "Deployment": ("deployments", {"replicas": 1}, "falco-talon-deployment-app"),
    "StatefulSet": ("statefulsets", {"serviceName": "a"}, "falco-talon-statefulset-app"),
    "DaemonSet": ("daemonsets", {}, "falco-talon-daemonset-app"),
}


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_ac_19_ac_20_workloads(
    kind: str, clients: Clients, node_cluster: Cluster, namespace: str
) -> None:
    """AC-19, AC-20: the policy selects what the workload selects, and has its lasting name."""
    resource, options, name = WORKLOADS[kind]
    labels = {"app": "web", "tier": "front"}
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}],
    }
    spec = {"schedulerName": "nobody", "containers": [{"name": "web", "image": "busybox"}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    node_cluster.request(
        "POST",
        f"/apis/apps/v1/namespaces/{namespace}/{resource}",
        {
            "metadata": {"name": "app"},
            "spec": {"selector": selector, "template": template, **options},
        },
    )
    pods = node_cluster.wait_for(
        lambda: node_cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"],
        what="a pod",
    )
    result = await isolate(clients, about(namespace, pods[0]["metadata"]["name"]))
    assert result.objects["networkpolicy"] == name
    assert policies(node_cluster, namespace)[name]["spec"]["podSelector"] == selector


@pytest.mark.parametrize("kind", ["Job", "Database", "ReplicaSet"])
async def test_ac_20_other_owners(
    kind: str, clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """AC-20: a Job, a custom kind, or an owner that is gone: the labels of the pod select."""
    uid = "00000000-0000-4000-8000-000000000001"
    owner = {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a", "uid": uid}}
    labels = {"job": "a", "controller-uid": "x", "pod-template-hash": "y"}
    create_pod(owner=owner, labels=labels)
    result = await isolate(clients, about(namespace, "web"))
    name = f"falco-talon-{kind.lower()}-a"
    assert result.objects["networkpolicy"] == name
    spec = policies(cluster, namespace)[name]["spec"]
    assert spec["podSelector"] == {"matchLabels": {"job": "a"}}


async def test_ac_16_labels_with_dots(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """AC-16: a key with dots and a slash selects as it stands."""
    labels = {"app.kubernetes.io/name": "web", "example.com/a.b": "c"}
    create_pod(labels=labels)
    await isolate(clients, event)
    (policy,) = policies(cluster, namespace).values()
    assert policy["spec"]["podSelector"] == {"matchLabels": labels}


async def test_ac_17_nothing_grows(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """AC-17: the same event again changes nothing; fewer networks are fewer."""
    create_pod(labels={"app": "web"})
    both = ["10.0.0.0/8", "192.168.0.0/16"]
    for networks in (both, both, both[:1]):
        await isolate(clients, event, allow_cidr=networks)
        (policy,) = policies(cluster, namespace).values()
        peers = policy["spec"]["egress"][0]["to"]
        assert [peer["ipBlock"]["cidr"] for peer in peers] == networks
    (policy,) = policies(cluster, namespace).values()
    assert policy["metadata"]["generation"] == 2


async def test_ac_18_networks(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """AC-18: addresses of both families, each with a prefix of its own length."""
    create_pod(labels={"app": "web"})
    await isolate(clients, event, allow_cidr=["2001:db8::1/128", "192.0.2.1/32"])
    (policy,) = policies(cluster, namespace).values()
    peers = policy["spec"]["egress"][0]["to"]
    assert [peer["ipBlock"]["cidr"] for peer in peers] == ["2001:db8::1/128", "192.0.2.1/32"]


async def test_pod_on_the_network_of_its_node(
    clients: Clients, namespace: str, create_pod: CreatePod, event: Event
) -> None:
    """No policy holds for such a pod: the result says so."""
    create_pod(labels={"app": "web"}, hostNetwork=True)
    result = await isolate(clients, event)
    assert result.text.endswith("created, but the pod is on the network of its node, where"
                                " policies do not count")  # fmt: skip


async def test_long_names(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """Names that are too long are cut, and two pods do not share a policy for that."""
    for letter in "ab":
        name = "x" * 252 + letter
        create_pod(name, labels={"app": letter},
                   containers=[{"name": "web", "image": "busybox"}])  # fmt: skip
        await isolate(clients, about(namespace, name))
    assert len(policies(cluster, namespace)) == 2


@pytest.mark.parametrize("labels", [{}, {"pod-template-hash": "x"}], ids=["none", "unstable"])
async def test_ac_20_no_labels(
    labels: dict[str, str],
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
) -> None:
    """AC-20: a selector is never empty: it would mean the whole namespace."""
    create_pod(labels=labels)
    text = f"can't find the owner and/or labels for the pod 'web' in namespace '{namespace}'"
    with pytest.raises(CheckError, match=text):
        await isolate(clients, about(namespace, "web"))
    assert policies(cluster, namespace) == {}


@pytest.mark.parametrize(
    ("spec", "note", "allowed"),
    [
        pytest.param(
            {"podSelector": {}, "policyTypes": ["Egress"]},
            ", without the allow list: the egress is restricted already by 'other'",
            False,
            id="isolates",
        ),
        pytest.param(
            {"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"ports": [{"port": 53}]}]},
            ", without the allow list: the egress is restricted already by 'other'"
            ", but egress is still allowed by 'other'",
            False,
            id="allows something",
        ),
        pytest.param({"podSelector": {}, "policyTypes": ["Ingress"]}, "", True, id="ingress only"),
        pytest.param(
            {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Egress"]},
            "",
            True,
            id="other pods",
        ),
    ],
)
async def test_other_policies(
    spec: Any,
    note: str,
    allowed: bool,
    clients: Clients,
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
) -> None:
    """Policies add up: ours never allows what is forbidden, and what still is allowed is told."""
    create_pod(labels={"app": "web"})
    put(cluster, namespace, "other", spec)
    result = await isolate(clients, about(namespace, "web"), allow_cidr=["10.0.0.0/8"])
    assert result.text.endswith(f"has been created{note}")
    assert ("egress" in policies(cluster, namespace)["falco-talon-pod-web"]["spec"]) is allowed


async def test_protected(clients: Clients, cluster: Cluster) -> None:
    """The pods that the cluster lives on are not cut off."""
    with pytest.raises(Ignored, match="is in the protected namespace 'kube-system'"):
        await isolate(clients, about("kube-system", "coredns"))


@pytest.mark.parametrize("cidr", ["10.0.0.1", "10.0.0.0/33", "x", "", "10.0.0.0/8; id"])
def test_wrong_parameters(cidr: str) -> None:
    """What is no network stops the load of the rules."""
    with pytest.raises(ValidationError, match=f"wrong CIDR '{cidr}'"):
        NetworkPolicy.Parameters.model_validate({"allow_cidr": [cidr]})


@pytest.mark.parametrize(
    ("operator", "values", "with_label", "without"),
    [
        ("In", ["b"], True, False),
        ("NotIn", ["b"], False, True),
        ("NotIn", ["c"], True, True),
        ("Exists", None, True, False),
        ("DoesNotExist", None, False, True),
    ],
)
def test_selectors(operator: str, values: Any, with_label: bool, without: bool) -> None:
    """Selectors mean what the API says they do."""
    selector = {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}
    assert selects(selector, {"a": "b"}) is with_label
    assert selects(selector, {}) is without
