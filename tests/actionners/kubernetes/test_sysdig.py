"""kubernetes:sysdig: a real job on the real node, with a stand-in for sysdig itself.

A kernel that lets the real one load its probe cannot be had everywhere.
"""

import asyncio
import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes._containers import container_ids
from falco_talon.actionners.kubernetes._pod import Pod
from falco_talon.actionners.kubernetes.sysdig import Sysdig
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import PolicyRule, Result
from tests.actionners.conftest import CreatePod, Running, about
from tests.cluster.cluster import Cluster, Resource
from tests.proxy import proxied


@pytest.fixture(scope="module")
def home(node_cluster: Cluster) -> Iterator[str]:
    """The namespace that the jobs are in."""
    name = node_cluster.create_namespace()
    yield name
    node_cluster.delete_namespace(name)


async def sysdig(clients: Clients, event: Event, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Sysdig(Sysdig.Parameters.model_validate(parameters), clients)
    await plugin.check(event)
    return await plugin.run(event)


def jobs(cluster: Cluster, namespace: str) -> list[Resource]:
    """Return the jobs of the namespace."""
    found: list[Resource] = cluster.request("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs")[
        "items"
    ]
    return found


def left(cluster: Cluster, namespace: str) -> list[str]:
    """Return the names of jobs and pods that are left, and not on their way out."""
    pods = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [
        each["metadata"]["name"]
        for each in [*jobs(cluster, namespace), *pods]
        if "deletionTimestamp" not in each["metadata"]
    ]


def gone(cluster: Cluster, namespace: str) -> None:
    """Wait until no job and no pod is left in the namespace."""
    cluster.wait_for(lambda: not left(cluster, namespace), timeout=20, what="the end of the job")


async def meanwhile(cluster: Cluster, namespace: str) -> tuple[Resource, Running]:
    """Return the job and its pod, once sysdig runs in it."""
    while True:
        await asyncio.sleep(0.2)
        pods = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        for each in pods:
            pod = Running(cluster, namespace, each["metadata"]["name"])
            if "sysdig -" in await asyncio.to_thread(ps, pod):
                return jobs(cluster, namespace)[0], pod


def ps(pod: Running) -> str:
    """Return the command lines in the job's container."""
    return pod.sh("ps -o args", "falco-talon-sysdig")


@pytest.mark.parametrize("scope", ["pod", "node"])
async def test_ac_24_job(scope: str, clients: Clients, running: Running, home: str) -> None:
    """The job is in our own namespace, on the pod's node; it is gone after the capture, and only
    the capture of the pod names containers.
    """
    cluster = running.cluster
    async with asyncio.TaskGroup() as tasks:
        seen = tasks.create_task(meanwhile(cluster, home))
        result = await sysdig(
            clients, running.about(), namespace=home, duration=3, buffer_size=512, scope=scope
        )
    job, pod = seen.result()
    name = job["metadata"]["name"]
    objects = {"pod": "web", "namespace": running.namespace, "job": name}
    assert result.text == "a sysdig capture 'sysdig.scap.gz' has been created"
    assert result.objects == objects
    assert result.artifact
    assert (result.artifact.name, result.artifact.objects) == ("sysdig.scap.gz", objects)
    assert gzip.decompress(result.artifact.data) == b"stand-in for a capture of 3 seconds\n"
    gone(cluster, home)

    web = cluster.pod(running.namespace)
    spec = job["spec"]["template"]["spec"]
    assert spec["nodeName"] == web["spec"]["nodeName"]
    assert (spec["automountServiceAccountToken"], spec["restartPolicy"]) == (False, "Never")
    assert spec["containers"][0]["volumeMounts"][0]["readOnly"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] == 60
    assert job["spec"]["activeDeadlineSeconds"] == 60 + 3 + 30
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "falco-talon"
    assert pod.name.startswith(f"{name}-")
    assert name.startswith("falco-talon-sysdig-")


async def test_arguments(clients: Clients, running: Running, home: str) -> None:
    """What sysdig is given is what the parameters say, container ids by their first characters."""
    async with asyncio.TaskGroup() as tasks:
        seen = tasks.create_task(meanwhile(running.cluster, home))
        run = sysdig(clients, running.about(), namespace=home, duration=3, cri_socket="/run/a b")
        capture = tasks.create_task(run)
        _, pod = await seen
        lines = await asyncio.to_thread(ps, pod)
        await capture
    web = running.cluster.pod(running.namespace)
    ids = [identity[:12] for _, identity in container_ids(web)]
    expected = (
        "sysdig --modern-bpf --cri /run/a b -M 3 -s 2048 -z -w sysdig.scap.gz"
        f" container.id in ({', '.join(ids)})"
    )
    assert any(line.endswith(expected) for line in lines.splitlines())
    gone(running.cluster, home)


async def test_ac_24_own_namespace(
    clients: Clients, running: Running, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a parameter the job is where we run, and `falco` where we are in no pod."""
    with pytest.raises(PluginError, match='namespaces "falco" not found'):
        await sysdig(clients, running.about(), duration=1)
    monkeypatch.setattr(clients.kubernetes._access, "namespace", home)
    async with asyncio.TaskGroup() as tasks:
        seen = tasks.create_task(meanwhile(running.cluster, home))
        await sysdig(clients, running.about(), duration=2)
    assert seen.result()[0]["metadata"]["namespace"] == home
    gone(running.cluster, home)


async def test_ac_24_nothing_is_left_after_a_failure(
    clients: Clients, running: Running, home: str
) -> None:
    """A capture that fails, is cut short or cannot start leaves no job behind."""
    event, cluster = running.about(), running.cluster
    with pytest.raises(PluginError, match=r"the capture failed with exit code 127: .*sysdig"):
        await sysdig(clients, event, namespace=home, image="busybox:latest")
    gone(cluster, home)

    started = time.monotonic()
    text = r"the job 'falco-talon-sysdig-\w{5}' in the namespace '.*' for the sysdig capture is not"
    with pytest.raises(PluginError, match=rf"{text} ready: Err\w*Pull"):
        await sysdig(
            clients, event, namespace=home, image="absent:latest", image_pull_policy="Never"
        )
    assert time.monotonic() - started < 20
    gone(cluster, home)

    result = await sysdig(clients, event, namespace=home, duration=1, max_bytes=10)
    assert result.text.endswith("has been created (truncated to 10 bytes)")
    gone(cluster, home)


async def test_ac_24_nothing_is_left_after_a_cancellation(
    clients: Clients, running: Running, home: str
) -> None:
    """When the time of the action is up the job is deleted, with what runs in it."""
    async with asyncio.TaskGroup() as tasks:
        seen = tasks.create_task(meanwhile(running.cluster, home))
        task = tasks.create_task(sysdig(clients, running.about(), namespace=home, duration=30))
        await seen
        task.cancel()
    assert task.cancelled()
    gone(running.cluster, home)


async def test_ac_24_nothing_is_left_by_a_fault(
    running: Running, home: str, tmp_path: Path
) -> None:
    """Deleting is tried again; and a job that is not deleted ends and goes by itself."""
    async with (
        proxied(running.cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        proxy.answer("DELETE /apis/batch", 500, times=2)
        await sysdig(clients, running.about(), namespace=home, duration=1)
        gone(running.cluster, home)

        proxy.answer("DELETE /apis/batch", 403)
        await sysdig(clients, running.about(), namespace=home, duration=1, margin_seconds=4)

    def succeeded() -> bool:
        return any(job["status"].get("succeeded") for job in jobs(running.cluster, home))

    running.cluster.wait_for(succeeded, timeout=20, what="the end of the job by itself")
    name = jobs(running.cluster, home)[0]["metadata"]["name"]
    where = f"/apis/batch/v1/namespaces/{home}/jobs/{name}?propagationPolicy=Background"
    running.cluster.request("DELETE", where)  # else the TTL controller does, a minute later
    gone(running.cluster, home)


async def test_missing_pod(clients: Clients, running: Running, home: str) -> None:
    """A pod that is not there is an error of the event, and no job is made."""
    with pytest.raises(CheckError, match="the pod 'absent' .* doesn't exist"):
        await sysdig(clients, about(running.namespace, "absent"), namespace=home)
    assert jobs(running.cluster, home) == []


async def test_ac_24_pods_without_containers(
    clients: Clients, cluster: Cluster, namespace: str, create_pod: CreatePod
) -> None:
    """A pod on no node, or whose containers have no id yet, is refused, and no job is made."""
    create_pod("nowhere")
    with pytest.raises(CheckError, match="the pod 'nowhere' .* has no container that has been"):
        await sysdig(clients, about(namespace, "nowhere"), namespace=namespace)
    with pytest.raises(PluginError, match="the pod 'nowhere' .* is not on a node yet"):
        await sysdig(clients, about(namespace, "nowhere"), namespace=namespace, scope="node")
    assert jobs(cluster, namespace) == []


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("containerd://0123456789abcdef", "0123456789ab"),
        ("docker://0123456789abcdef", "0123456789ab"),
        ("cri-o://0123456789abcdef", "0123456789ab"),
        ("mock://abc", "abc"),
        ("abcdef", None),
        ("containerd://", None),
        ("containerd://') or (evt.type=", None),
        ("", None),
        (None, None),
    ],
)
def test_ac_24_container_ids(identity: str | None, expected: str | None) -> None:
    """The id of any runtime is understood, however short; what is none is not used."""
    plugin = Sysdig(Sysdig.Parameters(), Clients())
    statuses = [
        {"name": "a", "containerID": identity},
        {"name": "b", "containerID": "containerd://fedcba9876543210"},
    ]
    words = plugin._words(Pod("web", "ns"), {"status": {"containerStatuses": statuses}})
    both = f"{expected}, fedcba987654" if expected else "fedcba987654"
    assert words[-1] == f"container.id in ({both})"


def test_defaults() -> None:
    """The reference's defaults, also for 0 and nothing."""
    plain = Sysdig.Parameters()
    assert plain == Sysdig.Parameters.model_validate(
        {"duration": 0, "buffer_size": 0, "scope": "", "image": ""}
    )
    assert (plain.duration, plain.buffer_size, plain.scope) == (5, 2048, "pod")
    assert plain.image == "issif/sysdig:latest"
    longer = Sysdig(Sysdig.Parameters(duration=30, ready_timeout_seconds=20), Clients())
    assert longer.duration_seconds == 50


@pytest.mark.parametrize(
    "parameters",
    [
        {"duration": 31},
        {"duration": -1},
        {"buffer_size": 127},
        {"scope": "cluster"},
        {"namespace": "a/b"},
        {"cri_socket": "relative"},
        {"margin_seconds": 0},
    ],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any]) -> None:
    """Values that mean nothing stop the load of the rules."""
    with pytest.raises(ValidationError):
        Sysdig.Parameters.model_validate(parameters)


def test_permissions() -> None:
    """What it needs beside reading the pod is needed in our own namespace, unless a parameter names
    another one.
    """
    own = Sysdig(Sysdig.Parameters(), Clients()).needs({})
    assert {rule.own_namespace for rule in own if rule.resources != ("pods",)} == {True}
    assert PolicyRule(("pods",), ("get",)) in own
    other = Sysdig(Sysdig.Parameters(namespace="captures"), Clients()).needs({})
    assert not any(rule.own_namespace for rule in other)
