"""The election, on a real API server that comes and goes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from falco_talon.cli.entries import policy_rules
from falco_talon.clients import Clients
from falco_talon.leader import PERMISSIONS, Election
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.forwarder import way_to

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
Logged = Callable[..., list[dict[str, Any]]]


class Candidate:
    """An election, and where it said that events should go."""

    def __init__(self, clients: Clients, namespace: str, name: str) -> None:
        self.followed: list[str] = []
        self.identity = f"{name}_198.51.100.{len(name)}:4222"
        self.election = Election(clients.kubernetes, namespace, self.identity, self.followed.append)


@asynccontextmanager
async def candidate(
    kubeconfig: Path, namespace: str, name: str, *, release: bool = True
) -> AsyncIterator[Candidate]:
    """Let somebody compete until the body ends."""
    async with Clients(kubeconfig=kubeconfig) as clients, asyncio.TaskGroup() as tasks:
        await clients.ready(["kubernetes"])
        found = Candidate(clients, namespace, name)
        running = tasks.create_task(found.election.run())
        yield found
        running.cancel()
        if release:
            await found.election.release()


def lease(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.request("GET", LEASES.format(namespace) + "/falco-talon")
    return found


async def until(probe: Callable[[], Any], seconds: float) -> float:
    """Wait until the answer is yes; return how long that took."""
    begin = time.monotonic()
    async with asyncio.timeout(seconds):
        while not probe():
            await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def test_the_first_one_leads(cluster: Cluster, namespace: str, logged: Logged) -> None:
    """At once, by a lease of the documented name and times; the second one follows it."""
    async with candidate(cluster.kubeconfig, namespace, "one") as one:
        await until(lambda: one.election.leading, 3)
        async with candidate(cluster.kubeconfig, namespace, "second") as second:
            await until(lambda: second.election.leader, 3)
            assert second.election.leader == one.identity
            assert second.followed == ["198.51.100.3:4222"]
            assert not second.election.leading
        found = lease(cluster, namespace)
        assert found["spec"]["holderIdentity"] == "one_198.51.100.3:4222"
        assert found["spec"]["leaseDurationSeconds"] == 4
        assert found["spec"]["leaseTransitions"] == 0
        assert set(found["metadata"]["labels"].values()) == {"falco-talon"}
        assert one.followed == [""]
    assert lease(cluster, namespace)["spec"]["holderIdentity"] == ""
    assert logged(result="new leader detected 'one_198.51.100.3:4222'")


async def test_da_08_a_released_lease_is_taken_at_the_next_look(
    cluster: Cluster, namespace: str
) -> None:
    """Nobody waits for a lease to run out that its holder gave up."""
    async with AsyncExitStack() as earlier:
        one = await earlier.enter_async_context(candidate(cluster.kubeconfig, namespace, "one"))
        await until(lambda: one.election.leading, 3)
        async with candidate(cluster.kubeconfig, namespace, "second") as second:
            await until(lambda: second.election.leader, 3)
            await earlier.aclose()
            assert await until(lambda: second.election.leading, 4) < 2.5
            assert second.followed == ["198.51.100.3:4222", ""]


async def test_the_lease_of_a_dead_leader_runs_out(cluster: Cluster, namespace: str) -> None:
    """After 4 s without a renewal, as the watch of the other goes, it is taken."""
    async with candidate(cluster.kubeconfig, namespace, "one", release=False) as one:
        await until(lambda: one.election.leading, 3)
    async with candidate(cluster.kubeconfig, namespace, "second") as second:
        assert 4 <= await until(lambda: second.election.leading, 10) < 7
    assert lease(cluster, namespace)["spec"]["leaseTransitions"] == 1


async def test_who_comes_back_leads_at_once(cluster: Cluster, namespace: str) -> None:
    """A restarted leader of the same name and address need not wait for its own lease."""
    async with candidate(cluster.kubeconfig, namespace, "one", release=False) as one:
        await until(lambda: one.election.leading, 3)
    async with candidate(cluster.kubeconfig, namespace, "one") as one:
        assert await until(lambda: one.election.leading, 3) < 1.5
    assert lease(cluster, namespace)["spec"]["leaseTransitions"] == 0


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_da_07_the_api_is_away(
    cluster: Cluster, namespace: str, tmp_path: Path, fault: str, logged: Logged
) -> None:
    """The leader notices that it lost the lease, and when it can, follows whoever has it now."""
    async with (
        way_to(cluster, tmp_path) as (way, kubeconfig),
        candidate(kubeconfig, namespace, "one") as one,
    ):
        await until(lambda: one.election.leading, 3)
        async with candidate(cluster.kubeconfig, namespace, "second") as second:
            await until(lambda: second.election.leader, 3)
            if fault == "refused":
                way.close()
            else:
                way.freeze()
            assert await until(lambda: not one.election.leading, 5) < 3.5
            assert await until(lambda: second.election.leading, 8) < 7
            assert one.followed == [""]  # no other leader is known
            way.open()
            assert await until(lambda: one.followed[-1], 6) < 4.5
            assert one.followed == ["", "198.51.100.6:4222"]
            assert second.election.leading
        # The second one has given the lease up: the first leads again.
        assert await until(lambda: one.election.leading, 5) < 3
    assert logged(message="lease", level="warn")


async def test_a_lease_that_was_deleted_is_made_anew(cluster: Cluster, namespace: str) -> None:
    """Whatever people do to the lease, somebody leads."""
    async with candidate(cluster.kubeconfig, namespace, "one") as one:
        await until(lambda: one.election.leading, 3)
        cluster.request("DELETE", LEASES.format(namespace) + "/falco-talon")

        def there() -> bool:
            try:
                return bool(lease(cluster, namespace))
            except ClusterError:
                return False

        assert await until(there, 6) < 5
        assert one.election.leading


async def test_a_lease_of_the_reference(cluster: Cluster, namespace: str) -> None:
    """Its holder is an address alone; it counts as the leader until its time is over."""
    body = {
        "metadata": {"name": "falco-talon"},
        "spec": {"holderIdentity": "198.51.100.9", "leaseDurationSeconds": 4},
    }
    cluster.request("POST", LEASES.format(namespace), body)
    async with candidate(cluster.kubeconfig, namespace, "one") as one:
        await until(lambda: one.election.leading, 10)
    assert one.followed == ["198.51.100.9", ""]


async def test_what_it_must_be_allowed(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """The listed permissions are enough."""
    rules = policy_rules(PERMISSIONS)
    kubeconfig = cluster.service_account_kubeconfig(namespace, "talon", rules, tmp_path / "k")
    async with candidate(kubeconfig, namespace, "one") as one:
        await until(lambda: one.election.leading, 3)
        async with candidate(kubeconfig, namespace, "second") as second:
            await until(lambda: second.election.leader, 3)
            assert await second.election.heir() == "198.51.100.3:4222"
    assert lease(cluster, namespace)["spec"]["holderIdentity"] == ""


async def test_what_it_is_not_allowed(
    cluster: Cluster, namespace: str, tmp_path: Path, logged: Logged
) -> None:
    """Without permission it says so, once, and tries on: somebody may grant it."""
    kubeconfig = cluster.service_account_kubeconfig(namespace, "talon", [], tmp_path / "k")
    async with candidate(kubeconfig, namespace, "one") as one:
        await until(lambda: logged(message="lease", level="warn"), 3)
        await asyncio.sleep(2.5)
        assert not one.election.leading
    (line,) = logged(message="lease", level="warn")
    assert "cannot get resource" in line["error"]
