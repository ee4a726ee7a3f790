"""Several daemons on one NATS cluster: real servers, real daemons, real kills."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.bus.cluster import NatsCluster
from tests.daemon import Daemon
from tests.endpoint import Answer, Endpoint

RULES = """
- rule: Call
  match: {{rules: [Call]}}
  actions:
    - action: Call
      actionner: http:request
      parameters: {{url: "{url}", timeout_seconds: 60}}
"""
TARGETS = 20


@pytest.fixture
async def daemons(
    nats_cluster: NatsCluster, endpoint: Endpoint, tmp_path: Path
) -> AsyncIterator[list[Daemon]]:
    """Run two daemons on one cluster."""
    pair = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        daemon = Daemon(folder)
        # A sender that comes again after a 503 must find its event known, if it was stored.
        deduplication = {"leader_election": False, "time_window_seconds": 60}
        rules = RULES.format(url=endpoint.url)
        daemon.write(rules, nats=nats_cluster.config, deduplication=deduplication)
        pair.append(daemon)
    try:
        for daemon in pair:
            await asyncio.to_thread(daemon.start)
        yield pair
    finally:
        for daemon in pair:
            if daemon.process is not None:
                await asyncio.to_thread(daemon.stop, signal.SIGKILL)


async def post(daemons: list[Daemon], numbers: range) -> list[int]:
    """Post events to the daemons in turn, again after each refusal; return what was accepted."""
    accepted: list[int] = []
    waiting = list(reversed(numbers))

    async def send(session: aiohttp.ClientSession) -> None:
        while waiting:
            number = waiting.pop()
            event = {"rule": "Call", "output": str(number), "hostname": f"h{number % TARGETS}"}
            for attempt in range(100):
                port = daemons[(number + attempt) % len(daemons)].port
                try:
                    async with session.post(f"http://127.0.0.1:{port}/", json=event) as reply:
                        if reply.status == 200:
                            accepted.append(number)
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(send(session) for _ in range(8)))
    return accepted


def outputs(endpoint: Endpoint) -> list[int]:
    return [int(json.loads(request.body)["output"]) for request in endpoint.received]


async def until_done(endpoint: Endpoint, accepted: list[int], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not set(accepted) <= set(outputs(endpoint)):
            await asyncio.sleep(0.05)


async def test_two_daemons_share_the_work(daemons: list[Daemon], endpoint: Endpoint) -> None:
    """1,000 events lead to 1,000 actions, in both daemons; equal events act once for both."""
    accepted = await post(daemons, range(1000))
    assert len(accepted) == 1000
    await until_done(endpoint, accepted)
    await asyncio.sleep(1)

    counts = Counter(outputs(endpoint))
    assert len(counts) == 1000
    assert max(counts.values()) == 1
    for daemon in daemons:
        assert len(daemon.lines(message="action", status="success")) > 50
        assert "cluster-s3cret" not in "\n".join(daemon.raw)
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.parametrize("which", ["follower", "leader"])
async def test_a_node_is_killed(
    daemons: list[Daemon], endpoint: Endpoint, nats_cluster: NatsCluster, which: str
) -> None:
    """Two nodes of three go on: every accepted event is acted on, none twice."""
    leader = nats_cluster.leader("EVENTS")
    assert leader is not None
    victim = (
        leader
        if which == "leader"
        else next(node for node in nats_cluster.nodes if node is not leader)
    )
    posting = asyncio.ensure_future(post(daemons, range(1000)))  # noqa: TID251
    while len(endpoint.received) < 200:
        await asyncio.sleep(0.01)
    victim.kill()
    accepted = await posting
    assert len(accepted) == 1000
    await until_done(endpoint, accepted)
    await asyncio.sleep(1)

    counts = Counter(outputs(endpoint))
    assert {number: count for number, count in counts.items() if count > 1} == {}


async def test_a_daemon_is_killed(daemons: list[Daemon], endpoint: Endpoint) -> None:
    """The other finishes its work; twice only what was in flight, never two at one target."""
    endpoint.answers = [Answer(fault="hang")]
    accepted = await post(daemons, range(TARGETS))
    async with asyncio.timeout(10):
        while len(endpoint.received) < TARGETS:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(daemons[0].stop, signal.SIGKILL)
    await asyncio.sleep(0.1)
    done_by_second = len(daemons[1].lines(message="action", status="in_progress"))
    endpoint.answers = [Answer()]
    await endpoint.close()
    await asyncio.to_thread(daemons[1].wait_for_lines, TARGETS, message="action", status="success")

    counts = Counter(outputs(endpoint))
    assert set(counts) == set(accepted)
    assert sum(1 for count in counts.values() if count == 2) == TARGETS - done_by_second
    repeated = [line for line in daemons[1].log if line.get("attempt") == 2]
    assert repeated


async def test_a_cluster_that_is_not_complete_yet(
    nats_cluster: NatsCluster, endpoint: Endpoint, daemon: Daemon
) -> None:
    """A daemon that starts with its servers waits until they have found each other."""
    for node in nats_cluster.nodes[1:]:
        node.kill()
    daemon.write(RULES.format(url=endpoint.url), nats=nats_cluster.config)
    await asyncio.to_thread(daemon.start, ready=False)
    await asyncio.sleep(6)  # longer than one request waits
    assert daemon.port == 0
    for node in nats_cluster.nodes[1:]:
        node.start()

    await asyncio.to_thread(daemon.wait_for, lambda: daemon.port, "start", 30)
    assert await post([daemon], range(1)) == [0]
    await until_done(endpoint, [0])
    assert await asyncio.to_thread(daemon.stop) == 0


async def test_never_two_daemons_on_one_target(daemons: list[Daemon], endpoint: Endpoint) -> None:
    """Events of one target run one after the other, whichever daemon got them."""
    endpoint.answers = [Answer(fault="hang")]
    await post(daemons, range(0, TARGETS * 6, TARGETS))
    await asyncio.sleep(2)
    assert len(endpoint.received) == 1
    endpoint.answers = [Answer()]
    await endpoint.close()
    await until_done(endpoint, list(range(0, TARGETS * 6, TARGETS)))
    assert len(endpoint.received) == 6
