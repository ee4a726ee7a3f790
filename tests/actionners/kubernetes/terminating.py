"""Running kubernetes:terminate, and seeing what came of it."""

from typing import Any

from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.clients import Clients
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.cluster.cluster import Cluster, Resource
from tests.cluster.errors import ClusterError

READY = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True"}],
}


async def run(clients: Clients, event: Event, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Terminate(Terminate.Parameters.model_validate(parameters), clients)
    await plugin.check(event)
    return await plugin.run(event)


def is_gone(cluster: Cluster, namespace: str, pod: str = "web", uid: str = "") -> bool:
    """Whether the pod has ended or is about to, or is another one than that of this *uid*."""
    try:
        metadata = cluster.pod(namespace, pod)["metadata"]
        return "deletionTimestamp" in metadata or bool(uid and uid != metadata["uid"])
    except ClusterError as error:
        assert error.status == 404
        return True


def owner(kind: str) -> Resource:
    """Return an owner of this kind, of a group that no controller and no collector knows."""
    uid = "00000000-0000-4000-8000-000000000001"
    return {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a", "uid": uid}}


def budget(cluster: Cluster, namespace: str) -> str:
    """Forbid the eviction of the pods labelled `app: kept`, and return the path of the budget."""
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "kept"}}}
    cluster.request("POST", path, {"metadata": {"name": "budget"}, "spec": spec})
    cluster.wait_for(
        lambda: (
            cluster.request("GET", f"{path}/budget").get("status", {}).get("observedGeneration")
        ),
        what="the budget to be counted",
    )
    return f"{path}/budget"
