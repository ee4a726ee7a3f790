"""Two daemons with a server each: one leads, and what one leaves behind the other does."""

import asyncio
import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from falco_talon.bus import Peers
from falco_talon.clients import Clients
from falco_talon.config import Config
from falco_talon.replica import find_replica
from tests.bus.cluster import free_ports
from tests.cluster.cluster import Cluster
from tests.daemon import Daemon
from tests.endpoint import Answer, Endpoint
from tests.forwarder import forwarding, way_to

SECRET = "correct horse battery staple"
RULES = """
- rule: Call
  match: {{rules: [Call]}}
  actions:
    - action: First
      actionner: http:request
      parameters: {{url: "{url}/first"}}
      continue: true
    - action: Second
      actionner: http:request
      parameters: {{url: "{url}/second", timeout_seconds: 60}}
"""
Logged = Callable[..., list[dict[str, Any]]]


class Pair:
    """Two replicas in one namespace; ``leader`` and ``follower`` once both know who leads."""

    def __init__(self, cluster: Cluster, namespace: str, url: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.daemons = [self._make(folder / name, url) for name in ("one", "two")]

    def _make(self, folder: Path, url: str) -> Daemon:
        folder.mkdir()
        daemon = Daemon(folder)
        (port,) = free_ports(1)
        daemon.environ = {"NAMESPACE": self.namespace, "POD_NAME": folder.name}
        daemon.write(
            RULES.format(url=url),
            kubeconfig=str(self.cluster.kubeconfig),
            shutdown_grace_seconds=1,
            deduplication={"leader_election": True, "time_window_seconds": 60},
            nats={
                "store_dir": str(folder / "store"),
                "shared_secret_file": str(self.secret),
                "peer_port": port,
                "peer_address": "127.0.0.1",
            },
        )
        return daemon

    async def start(self) -> None:
        """Start both, the first one first; return when the second publishes to it."""
        self.leader, self.follower = self.daemons
        await asyncio.to_thread(self.leader.start)
        await until(self.leader, "leads", "'one_127.0.0.1:*' leads")
        await asyncio.to_thread(self.follower.start)
        await until(self.follower, "link", "events go to the stream of the leader at ")

    def holder(self) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/falco-talon"
        return str(self.cluster.request("GET", path)["spec"]["holderIdentity"])


async def until(
    daemon: Daemon, what: str, text: str, number: int = 1, seconds: float = 15
) -> float:
    """Wait for log lines that hold all of this, with ``*`` between; return how long that took."""
    begin = time.monotonic()
    wanted = re.compile(".*".join(re.escape(part) for part in text.split("*")))

    def said() -> bool:
        lines = [f"{line.get('result', '')}{line.get('error', '')}" for line in list(daemon.log)]
        return sum(bool(wanted.search(line)) for line in lines) >= number

    await asyncio.to_thread(daemon.wait_for, said, what, seconds)
    return time.monotonic() - begin


def leads(daemon: Daemon) -> bool:
    """Whether the last thing it said of itself is that it leads."""
    said = [line.get("result", "") for line in daemon.lines(message="lease")]
    about = [text for text in said if " leads" in text]
    return bool(about) and about[-1].endswith(" leads")


async def post(daemon: Daemon, *numbers: int, host: str = "") -> float:
    """Post events, each of which must be accepted; return the longest wait, in seconds."""
    longest = 0.0
    for number in numbers:
        body = {"rule": "Call", "output": str(number), "hostname": host or f"h{number}"}
        begin = time.monotonic()
        assert await asyncio.to_thread(daemon.post, body) == 200
        longest = max(longest, time.monotonic() - begin)
    return longest


def calls(endpoint: Endpoint, path: str = "/second") -> Counter[int]:
    return Counter(
        int(json.loads(request.body)["output"])
        for request in endpoint.received
        if request.path == path
    )


async def until_called(endpoint: Endpoint, numbers: set[int], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not numbers <= set(calls(endpoint)):
            await asyncio.sleep(0.02)


@pytest.fixture
async def pair(
    cluster: Cluster, namespace: str, endpoint: Endpoint, tmp_path: Path
) -> AsyncIterator[Pair]:
    """Make two replicas, not started."""
    found = Pair(cluster, namespace, endpoint.url, tmp_path)
    yield found
    for daemon in found.daemons:
        if daemon.process is not None:
            await asyncio.to_thread(daemon.stop, signal.SIGKILL)
        # Neither the secret nor what is derived from it is ever printed.
        log = "\n".join(daemon.raw)
        assert SECRET not in log
        assert Peers.of(Config(), found.secret).seed not in log


async def test_equal_events_posted_to_both_act_once(pair: Pair, endpoint: Endpoint) -> None:
    """All go to the leader's stream; a stop gives the lease up, and the other leads at once."""
    await pair.start()
    assert pair.holder().startswith("one_127.0.0.1:")
    numbers = range(50)
    await asyncio.gather(*(post(daemon, *numbers) for daemon in pair.daemons))
    await until_called(endpoint, set(numbers))
    await asyncio.sleep(0.3)
    assert max(calls(endpoint).values()) == 1
    assert not pair.follower.lines(message="action")

    assert await asyncio.to_thread(pair.leader.stop) == 0
    assert await until(pair.follower, "leader", "'two_127.0.0.1:*' leads") < 3
    await post(pair.follower, 100)
    await until_called(endpoint, {100})
    assert await asyncio.to_thread(pair.follower.stop) == 0
    assert pair.holder() == ""


async def test_kill_9_of_the_leader(pair: Pair, endpoint: Endpoint) -> None:
    """Senders do not notice; its own events wait for it, and it comes back as a follower."""
    await pair.start()
    endpoint.answers = [Answer(), Answer(fault="hang")]
    await post(pair.follower, 0, 1, 2, host="same")
    async with asyncio.timeout(5):
        while not calls(endpoint):
            await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as tasks:  # the kill comes in the midst of these
        senders = [
            tasks.create_task(post(pair.follower, *range(first, 200, 4)))
            for first in range(100, 104)
        ]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(pair.leader.stop, signal.SIGKILL)
        endpoint.answers = [Answer()]
        await endpoint.close()
    assert max(sender.result() for sender in senders) < 1.5
    assert await post(pair.follower, *range(10, 30)) < 1.5
    await until_called(endpoint, set(range(10, 30)))
    assert await until(pair.follower, "leader", "'two_127.0.0.1:*' leads", seconds=20) < 9
    assert set(calls(endpoint)) & set(range(3)) == {0}

    await asyncio.to_thread(pair.leader.start)
    await until_called(endpoint, {0, 1, 2, *range(100, 200)})
    await until(pair.leader, "link", "events go to the stream of the leader at ")
    await post(pair.leader, 40)
    await post(pair.follower, 40)
    await until_called(endpoint, {40})
    for daemon in pair.daemons:
        assert await asyncio.to_thread(daemon.stop) == 0
    # Twice, at most, what was in flight at the kill.
    assert {number for number, count in calls(endpoint).items() if count > 1} <= {
        0,
        *range(100, 200),
    }
    assert max(calls(endpoint).values()) <= 2
    assert calls(endpoint, "/first")[0] == 1


@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_a_stopping_replica_hands_over(pair: Pair, endpoint: Endpoint, who: str) -> None:
    """What it has not done the other does, the interrupted event after its last action."""
    if who == "leader":
        await pair.start()
        stopping, heir = pair.leader, pair.follower
        posted_to = stopping
    else:  # its stream has events of the time when there was no leader
        stopping, heir = pair.daemons
        posted_to = stopping
        stopping.environ["NAMESPACE"] = "no-such-namespace"
        await asyncio.to_thread(stopping.start)
    endpoint.answers = [Answer(), Answer(fault="hang")]
    await post(posted_to, *range(20), host="same")
    async with asyncio.timeout(5):
        while not calls(endpoint):
            await asyncio.sleep(0.01)
    if who == "follower":
        await asyncio.to_thread(stopping.stop, signal.SIGKILL)
        await asyncio.to_thread(heir.start)
        await until(heir, "leads", "'two_127.0.0.1:*' leads")
        stopping.environ["NAMESPACE"] = pair.namespace
        await asyncio.to_thread(stopping.start)
        await until(stopping, "link", "events go to the stream of the leader at ")
        async with asyncio.timeout(5):
            while calls(endpoint)[0] < 2:
                await asyncio.sleep(0.01)
    stopping.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    begin = time.monotonic()
    await until(stopping, "end of the actions", "event(s) cut short")
    endpoint.answers = [Answer()]
    await endpoint.close()
    assert await asyncio.to_thread(stopping.join) == 0
    assert time.monotonic() - begin < 6
    await until_called(endpoint, set(range(20)))

    assert any(
        line.get("result") == "20 event(s) handed over to the leader" for line in stopping.log
    )
    second = {"message": "action", "action": "Second", "status": "success"}
    assert len(await asyncio.to_thread(heir.wait_for_lines, 20, **second)) == 20
    assert set(calls(endpoint, "/first").values()) == {1}
    (again,) = [
        line for line in heir.lines(message="action", status="success") if "attempt" in line
    ]
    assert again["action"] == "Second"
    before = len(endpoint.received)
    await asyncio.to_thread(stopping.start)
    await asyncio.sleep(0.5)
    assert len(endpoint.received) == before  # they are gone from its own stream


async def test_nobody_to_hand_over_to(pair: Pair, endpoint: Endpoint) -> None:
    """Alone, a replica keeps its events on disk and does them when it is back."""
    daemon = pair.daemons[0]
    endpoint.answers = [Answer(fault="hang")]
    await asyncio.to_thread(daemon.start)
    await until(daemon, "leads", "'one_127.0.0.1:*' leads")
    await post(daemon, *range(3), host="same")
    daemon.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    await until(daemon, "end of the actions", "event(s) cut short")
    endpoint.answers = [Answer()]
    await endpoint.close()
    assert await asyncio.to_thread(daemon.join) == 0
    assert daemon.lines(result="3 event(s) stay on disk until we are back")
    await asyncio.to_thread(daemon.start)
    await until_called(endpoint, {0, 1, 2})
    begin = time.monotonic()
    assert await asyncio.to_thread(daemon.stop) == 0
    assert time.monotonic() - begin < 3  # nothing waits: nobody is waited for


async def test_the_api_is_away_for_10_seconds(
    pair: Pair, endpoint: Endpoint, tmp_path: Path
) -> None:
    """All go on with the leader they knew; afterwards one of them leads again."""
    async with way_to(pair.cluster, tmp_path) as (way, kubeconfig):
        for daemon in pair.daemons:
            daemon.write(RULES.format(url=endpoint.url), kubeconfig=str(kubeconfig))
        await pair.start()
        way.close()
        gone = time.monotonic()
        assert await until(pair.leader, "loss", "'one_127.0.0.1:*' leads no more") < 4
        while time.monotonic() < gone + 10:
            number = int((time.monotonic() - gone) * 10)
            for daemon in pair.daemons:
                assert await post(daemon, number) < 1
            await asyncio.sleep(0.2)
        way.open()
        seen = max(calls(endpoint).values())
        done = len(pair.follower.lines(message="action"))
        # Whoever looks first gets the lease, and is the leader for both.
        begin = time.monotonic()
        while sum(leads(daemon) for daemon in pair.daemons) != 1:
            assert time.monotonic() - begin < 5
            await asyncio.sleep(0.05)
        if leads(pair.follower):
            await until(pair.leader, "link", "events go to the stream of the leader at ")
        for daemon in pair.daemons:
            await post(daemon, 1000)
        await until_called(endpoint, {1000})
        await asyncio.sleep(0.3)
        assert calls(endpoint)[1000] == seen == 1
        assert len(calls(endpoint)) > 20
        assert done == 0  # while the API was away, the leader's stream was there


async def test_the_leaders_stream_cannot_be_reached(pair: Pair, endpoint: Endpoint) -> None:
    """Events go to the own stream at once, and to the leader's again when the way is free."""
    port = pair.daemons[0].config["nats"]["peer_port"]
    async with forwarding("127.0.0.1", port) as way:
        nats = pair.daemons[0].config["nats"] | {"peer_address": f"127.0.0.1:{way.port}"}
        pair.daemons[0].write(RULES.format(url=endpoint.url), nats=nats)
        await pair.start()
        way.close()
        assert await post(pair.follower, *range(10)) < 0.7
        await until_called(endpoint, set(range(10)))
        await asyncio.to_thread(pair.follower.wait_for_lines, 10, message="action")
        way.open()
        await until(pair.follower, "link", "events go to the stream of the leader at ", 2)
        await post(pair.follower, 20)
        await until_called(endpoint, {20})
        second = {"message": "action", "action": "Second", "status": "success"}
        await asyncio.to_thread(pair.leader.wait_for_lines, 1, **second)


async def test_a_wrong_secret(pair: Pair, endpoint: Endpoint) -> None:
    """The replicas say so and go on alone."""
    other = pair.secret.with_name("other")
    other.write_text("another secret, wrong here")
    follower = pair.daemons[1]
    nats = follower.config["nats"] | {"shared_secret_file": str(other)}
    follower.write(RULES.format(url=endpoint.url), nats=nats)
    await asyncio.to_thread(pair.daemons[0].start)
    await until(pair.daemons[0], "leads", "'one_127.0.0.1:*' leads")
    await asyncio.to_thread(follower.start)
    await until(follower, "refusal", "events go to our own stream, not to the leader at ")
    assert "Authorization Violation" in "".join(follower.raw)
    assert await post(follower, 1) < 1
    await until_called(endpoint, {1})
    await asyncio.to_thread(follower.wait_for_lines, 1, message="action")
    assert "another secret" not in "\n".join(follower.raw + pair.daemons[0].raw)


async def test_no_secret(pair: Pair) -> None:
    """There is no election then, one line says so, and nothing but loopback is served."""
    daemon = pair.daemons[0]
    nats = {"store_dir": str(daemon.folder / "store")}
    daemon.write(RULES.format(url="http://127.0.0.1:1"), nats=nats)
    await asyncio.to_thread(daemon.start)
    (line,) = daemon.lines(level="warn")
    assert line["result"] == "leader election is off: 'nats.shared_secret_file' is not set"
    assert [line for line in daemon.raw if "nats-server is listening on 127.0.0.1" in line]
    assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.parametrize(
    ("config", "environ", "level"),
    [
        pytest.param({}, {}, "debug", id="default, no cluster"),
        pytest.param({"deduplication": {"leader_election": True}}, {}, "warn", id="asked for"),
        pytest.param({"nats": {"shared_secret_file": "s"}}, {}, "warn", id="a secret, no cluster"),
        pytest.param({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "warn", id="a cluster"),
        pytest.param({"kubeconfig": "absent"}, {}, "debug", id="default, with a kubeconfig"),
        pytest.param({"nats": {"url": "nats://a"}}, {}, "debug", id="an external NATS"),
        pytest.param({"deduplication": {"leader_election": False}}, {}, "", id="not wanted"),
    ],
)
async def test_da_11_when_it_is_off(
    config: dict[str, Any], environ: dict[str, str], level: str, logged: Logged
) -> None:
    """One line says why, a warning only where somebody may miss it."""
    async with Clients(kubeconfig=config.get("kubeconfig")) as clients:
        assert await find_replica(Config.model_validate(config), clients, environ) is None
    lines = logged(message="lease")
    assert [line["level"] for line in lines] == [level] * bool(level)
    assert all(line["result"].startswith("leader election is off: ") for line in lines)


async def test_da_11_a_cluster_that_cannot_be_used(tmp_path: Path, logged: Logged) -> None:
    """A pod without a service account runs all the same."""
    (tmp_path / "secret").write_text(SECRET)
    config = Config.model_validate({"nats": {"shared_secret_file": tmp_path / "secret"}})
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    async with Clients() as clients:
        assert await find_replica(config, clients, environ) is None
    (line,) = logged(message="lease", level="warn")
    assert line["result"].startswith("leader election is off: no Kubernetes cluster")


@pytest.mark.parametrize(
    ("said", "pod_ip", "where"),
    [
        pytest.param("", "10.1.2.3", "10.1.2.3:4222", id="the pod's"),
        pytest.param("", "fd00::17", "[fd00::17]:4222", id="da-10 IPv6"),
        pytest.param("talon-0.talon", "10.1.2.3", "talon-0.talon:4222", id="a name"),
        pytest.param("gate.example:30222", "", "gate.example:30222", id="with a port"),
        pytest.param("[fd00::1]:30222", "", "[fd00::1]:30222", id="IPv6 with a port"),
        pytest.param("[fd00::1]", "", "[fd00::1]:4222", id="IPv6 in brackets"),
    ],
)
async def test_da_10_who_we_are(
    cluster: Cluster, tmp_path: Path, said: str, pod_ip: str, where: str
) -> None:
    """The pod's name, and where the others reach us: said by the user, else by the pod."""
    (tmp_path / "secret").write_text(SECRET)
    nats = {"shared_secret_file": tmp_path / "secret", "peer_address": said}
    config = Config.model_validate({"nats": nats, "kubeconfig": str(cluster.kubeconfig)})
    async with Clients(kubeconfig=cluster.kubeconfig) as clients:
        found = await find_replica(config, clients, {"POD_NAME": "talon-0", "POD_IP": pod_ip})
    assert found is not None
    assert found.identity == f"talon-0_{where}"
    assert found.namespace == "falco"
    assert found.peers.url(where) == f"nats://{where}"


async def test_da_10_nobody_says_who_we_are(cluster: Cluster, tmp_path: Path) -> None:
    """The machine's name and its address do as well."""
    (tmp_path / "secret").write_text(SECRET)
    nats = {"shared_secret_file": tmp_path / "secret"}
    config = Config.model_validate({"nats": nats, "kubeconfig": str(cluster.kubeconfig)})
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    async with Clients(kubeconfig=cluster.kubeconfig) as clients:
        found = await find_replica(config, clients, environ)
    assert found is not None
    assert found.identity == f"{socket.gethostname()}_127.0.0.1:4222"
