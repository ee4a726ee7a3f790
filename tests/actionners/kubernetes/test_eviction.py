"""Evictions on a real node, with a real budget and a real Deployment behind the pods.

The node is not cordoned: others' pods run there as well.
"""

import asyncio

import pytest

from falco_talon.actionners.kubernetes._departures import Departures
from falco_talon.actionners.kubernetes._eviction import Eviction, evict
from falco_talon.clients import Clients
from tests.actionners.conftest import CreatePod
from tests.cluster.cluster import Cluster, Resource
from tests.faults import Fault, FaultyApi, faulty_api

__all__ = ["faulty_api"]

LABELS = {"app": "web"}
# Each ends at once when it is asked to.
COMMAND = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]
NOT_AWAITED = Eviction("nowhere", 0, 0, frozenset(), 1)


@pytest.fixture
def pods(node_cluster: Cluster, namespace: str) -> list[Resource]:
    """The two running pods of a Deployment, one of which must always be there."""
    cluster = node_cluster
    budget = {"minAvailable": 1, "selector": {"matchLabels": LABELS}}
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    cluster.request("POST", path, {"metadata": {"name": "web"}, "spec": budget})
    container = {"name": "web", "image": "busybox:latest", "command": COMMAND}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": template}
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.request("POST", deployments, {"metadata": {"name": "web"}, "spec": spec})
    cluster.wait_for(
        lambda: cluster.request("GET", f"{path}/web").get("status", {}).get("currentHealthy") == 2,
        what="two healthy pods",
    )
    found: list[Resource] = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return found


async def test_budget(
    pods: list[Resource], clients: Clients, node_cluster: Cluster, namespace: str
) -> None:
    """One goes at once, the other when its successor is ready; both have left in the end."""
    told: list[str] = []
    (node,) = {pod["spec"]["nodeName"] for pod in pods}
    eviction = Eviction(node, None, 60, frozenset(), 16)
    found = node_cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")
    version = found["metadata"]["resourceVersion"]

    outcome = await evict(clients.kubernetes, pods, eviction, version, told.append)

    assert outcome.evicted == {pod["metadata"]["uid"] for pod in pods}
    assert (outcome.refused, outcome.staying) == ([], [])
    now = node_cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    assert not outcome.evicted & {pod["metadata"]["uid"] for pod in now}
    ready = [
        pod
        for pod in now
        if any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in pod["status"].get("conditions") or []
        )
    ]
    assert ready, "the budget has been kept"


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made anew"])
async def test_gone_before_its_turn(
    again: bool, clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """A pod that went by itself is gone as wished; one that took its name is left alone."""
    pod = create_pod()
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/web")
    if again:
        create_pod()

    outcome = await evict(clients.kubernetes, [pod], NOT_AWAITED, "0", print)

    assert outcome.evicted == {pod["metadata"]["uid"]}
    if again:
        assert "deletionTimestamp" not in cluster.pod(namespace)["metadata"]


@pytest.mark.parametrize(
    "status", [404, 500], ids=["gone since", "nobody knows, so it is tried again"]
)
async def test_conflict(
    status: int,
    faulty_api: tuple[FaultyApi, Clients],
    cluster: Cluster,
    namespace: str,
    create_pod: CreatePod,
) -> None:
    """A conflict may mean another pod or a moment's trouble: the pod is looked at."""
    api, clients = faulty_api
    pod = create_pod()
    api.faults = [Fault("POST", "/eviction", 409), Fault("GET", "/pods/web", status)]
    outcome = await evict(clients.kubernetes, [pod], NOT_AWAITED, "0", print)
    assert outcome.evicted == {pod["metadata"]["uid"]}
    evictions = [path for method, path in api.seen if method == "POST"]
    assert len(evictions) == (1 if status == 404 else 2)


async def test_watch_and_list_are_lost(
    faulty_api: tuple[FaultyApi, Clients], cluster: Cluster, namespace: str
) -> None:
    """The way a pod left is seen when the API server is well again."""
    api, clients = faulty_api
    pod = cluster.create_pod(namespace, node=namespace, terminationGracePeriodSeconds=60)
    uid = pod["metadata"]["uid"]
    api.faults = [Fault("GET", "watch=true", 500, 2), Fault("GET", "fieldSelector", 500, 1)]
    departures = Departures(clients.kubernetes, namespace, {uid})
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(departures.follow("0"))
        body = {"gracePeriodSeconds": 0}
        cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/web", body)
        await departures.wait_for({uid}, 20)
        following.cancel()
    assert departures.gone == {uid}
