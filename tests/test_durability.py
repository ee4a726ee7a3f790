"""What was accepted is acted on, once, in order: the whole daemon, killed where it hurts."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.endpoint import Answer, Endpoint

CALL = """
- rule: Call
  match: {{rules: [Call]}}
  actions:
    - action: Call
      actionner: http:request
      parameters: {{url: "{url}"}}
"""
TWO_STEPS = """
- rule: Call
  match: {{rules: [Call]}}
  actions:
    - action: First
      actionner: http:request
      parameters: {{url: "{url}/first"}}
      continue: true
      ignore_errors: true
    - action: Second
      actionner: http:request
      parameters: {{url: "{url}/second", timeout_seconds: 60}}
"""
TIMEOUT = """
- action: First
  actionner: http:request
  timeout: 2s
- rule: Call
  match: {{rules: [Call]}}
  actions:
    - action: First
      parameters: {{url: "{url}/first", timeout_seconds: 60}}
      ignore_errors: true
    - action: Second
      actionner: http:request
      parameters: {{url: "{url}/second"}}
"""
TARGETS = 10


def event(number: int, rule: str = "Call") -> dict[str, Any]:
    return {"rule": rule, "output": str(number), "hostname": f"host-{number % TARGETS}"}


def outputs(endpoint: Endpoint) -> list[int]:
    return [int(json.loads(request.body)["output"]) for request in endpoint.received]


class Load:
    """Posts events without a pause; knows which of them were accepted."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.accepted: list[int] = []
        self.refused = 0
        self.number = 0
        self._stop = False

    async def __aenter__(self) -> "Load":
        self._task = asyncio.get_running_loop().run_in_executor(None, self._post)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await self._task

    def _post(self) -> None:
        while not self._stop:
            self.number += 1
            try:
                status = self.daemon.post(event(self.number))
            except OSError:
                status = 0
            if status == 200:
                self.accepted.append(self.number)
            else:
                self.refused += 1
                time.sleep(0.01)


def check(endpoint: Endpoint, accepted: list[int], kills: int) -> None:
    """Assert that all accepted were acted on, none twice but those in flight, in order."""
    seen = outputs(endpoint)
    assert set(accepted) - set(seen) == set()
    again = {number: count - 1 for number, count in Counter(seen).items() if count > 1}
    assert sum(again.values()) <= kills * TARGETS
    by_target: dict[int, list[int]] = defaultdict(list)
    for number in seen:
        by_target[number % TARGETS].append(number)
    for numbers in by_target.values():
        # A repeat is what was in flight at the kill: it comes right after itself.
        assert numbers == sorted(numbers)


async def until(daemon: Daemon, probe: Any, what: str, seconds: float = 30) -> None:
    await asyncio.to_thread(lambda: daemon.wait_for(probe, what, seconds))


async def test_kill_9_of_the_daemon_at_20_random_moments(
    daemon: Daemon, endpoint: Endpoint
) -> None:
    """Every accepted event is acted on; twice only what was in flight; each target in order."""
    chance = random.Random(5)  # a failure can be repeated
    daemon.write(CALL.format(url=endpoint.url))
    await asyncio.to_thread(daemon.start)
    async with Load(daemon) as load:
        for _ in range(20):
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            await asyncio.to_thread(daemon.stop, signal.SIGKILL)
            await asyncio.to_thread(daemon.start)
        await asyncio.sleep(0.5)
    await until(daemon, lambda: set(load.accepted) <= set(outputs(endpoint)), "all actions")
    assert await asyncio.to_thread(daemon.stop) == 0

    assert len(load.accepted) > 100
    check(endpoint, load.accepted, kills=20)
    # An accepted event may come again although it was done only once per kill and target.
    assert not any("dead letter" in line for line in daemon.raw)


async def test_kill_9_of_nats_server_under_load(daemon: Daemon, endpoint: Endpoint) -> None:
    """The daemon lives on: what was accepted is acted on exactly once, what was not got a 503."""
    daemon.write(CALL.format(url=endpoint.url))
    await asyncio.to_thread(daemon.start)
    connection = daemon.folder / "store" / "connection.json"
    async with Load(daemon) as load:
        for _ in range(5):
            await asyncio.sleep(0.7)
            before = len(load.accepted)
            os.kill(json.loads(connection.read_text())["pid"], signal.SIGKILL)
            await until(daemon, lambda n=before: len(load.accepted) > n + 20, "service again")
    await until(daemon, lambda: set(load.accepted) <= set(outputs(endpoint)), "all actions")
    assert await asyncio.to_thread(daemon.stop) == 0

    seen = outputs(endpoint)
    assert max(Counter(seen).values()) == 1
    check(endpoint, load.accepted, kills=0)


async def test_50_events_after_kill_9(daemon: Daemon, endpoint: Endpoint) -> None:
    """All are acted on within 10 s of the restart, none twice but those in flight."""
    daemon.write(CALL.format(url=endpoint.url))
    endpoint.answers = [Answer(fault="hang")]
    await asyncio.to_thread(daemon.start)
    for number in range(50):
        assert await asyncio.to_thread(daemon.post, event(number)) == 200
    await until(daemon, lambda: len(endpoint.received) == TARGETS, "requests")
    await asyncio.to_thread(daemon.stop, signal.SIGKILL)
    endpoint.answers = [Answer()]
    await endpoint.close()

    begin = time.monotonic()
    await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(daemon.wait_for_lines, 50, message="action", status="success")
    assert time.monotonic() - begin < 10
    assert await asyncio.to_thread(daemon.stop) == 0
    counts = Counter(outputs(endpoint))
    assert len(counts) == 50
    assert sorted(number for number, count in counts.items() if count == 2) == list(range(TARGETS))


async def test_an_interrupted_rule_goes_on_where_it_was(daemon: Daemon, endpoint: Endpoint) -> None:
    """A first action that is done is not repeated; the interrupted one is, and says so."""
    daemon.write(TWO_STEPS.format(url=endpoint.url))
    endpoint.answers = [Answer(status=403), Answer(fault="hang")]
    await asyncio.to_thread(daemon.start)
    assert await asyncio.to_thread(daemon.post, event(1)) == 200
    await until(daemon, lambda: len(endpoint.received) == 2, "requests")
    await asyncio.to_thread(daemon.stop, signal.SIGKILL)
    endpoint.answers = [Answer()]
    await endpoint.close()
    await asyncio.to_thread(daemon.start)
    (line,) = await asyncio.to_thread(
        daemon.wait_for_lines, 1, message="action", action="Second", status="success"
    )
    assert line["attempt"] == 2
    assert await asyncio.to_thread(daemon.stop) == 0

    assert [request.path for request in endpoint.received] == ["/first", "/second", "/second"]


async def test_an_event_that_kills_the_daemon(daemon: Daemon, endpoint: Endpoint) -> None:
    """After its attempts it is a dead letter, and others of its target are served."""
    daemon.write(CALL.format(url=endpoint.url), engine={"max_attempts": 2})
    endpoint.answers = [Answer(fault="hang")]
    await asyncio.to_thread(daemon.start)
    assert await asyncio.to_thread(daemon.post, event(0)) == 200
    assert await asyncio.to_thread(daemon.post, event(TARGETS)) == 200
    for number in (1, 2):
        await until(daemon, lambda n=number: len(endpoint.received) == n, "request")
        await asyncio.to_thread(daemon.stop, signal.SIGKILL)
        if number == 2:
            endpoint.answers = [Answer()]
        await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(daemon.wait_for_lines, 1, message="action", status="success")
    (line,) = [line for line in daemon.lines(message="event") if "dead letter" in line["error"]]
    assert line["output"] == "0"
    assert await asyncio.to_thread(daemon.stop) == 0
    assert outputs(endpoint) == [0, 0, TARGETS]


async def test_repeats_across_a_restart(daemon: Daemon, endpoint: Endpoint) -> None:
    """Inside the window an equal event acts once, wherever the daemon was killed."""
    daemon.write(
        CALL.format(url=endpoint.url),
        deduplication={"leader_election": False, "time_window_seconds": 60},
    )
    await asyncio.to_thread(daemon.start)
    assert await asyncio.to_thread(daemon.post, event(1)) == 200
    await asyncio.to_thread(daemon.wait_for_lines, 1, message="action", status="success")
    await until(daemon, lambda: daemon.get("/readyz")[0] == 200, "ready")
    await asyncio.sleep(0.3)  # the acknowledgement comes right after the line
    await asyncio.to_thread(daemon.stop, signal.SIGKILL)
    await asyncio.to_thread(daemon.start)
    assert await asyncio.to_thread(daemon.post, event(1)) == 200
    assert await asyncio.to_thread(daemon.post, event(2)) == 200
    await asyncio.to_thread(daemon.wait_for_lines, 2, message="action", status="success")
    assert await asyncio.to_thread(daemon.stop) == 0
    assert outputs(endpoint) == [1, 2]


async def test_an_action_that_hangs_for_ever(daemon: Daemon, endpoint: Endpoint) -> None:
    """It fails after its time; meanwhile others are served; its target is served after it."""
    daemon.write(TIMEOUT.format(url=endpoint.url))
    endpoint.answers = [Answer(fault="hang"), Answer()]
    await asyncio.to_thread(daemon.start)
    assert await asyncio.to_thread(daemon.post, event(0)) == 200
    await until(daemon, lambda: endpoint.received, "request")
    (call,) = endpoint.connections
    begin = time.monotonic()
    assert await asyncio.to_thread(daemon.post, event(1)) == 200
    await asyncio.to_thread(daemon.wait_for_lines, 1, message="action", status="success")
    assert time.monotonic() - begin < 1
    assert not call.is_closing()
    assert await asyncio.to_thread(daemon.post, event(TARGETS)) == 200
    await asyncio.to_thread(daemon.wait_for_lines, 5, message="action", status="success")
    assert 2 < time.monotonic() - begin < 4
    assert call.is_closing()  # the call has ended, not only our wait for it
    (line,) = daemon.lines(message="action", status="failure")
    assert line["error"] == "timed out after 2 s"
    assert await asyncio.to_thread(daemon.stop) == 0
    paths = [(number, request.path) for number, request in zip(
        outputs(endpoint), endpoint.received, strict=True)]  # fmt: skip
    assert paths == [(0, "/first"), (1, "/first"), (1, "/second"), (0, "/second"),
                     (TARGETS, "/first"), (TARGETS, "/second")]  # fmt: skip


async def test_a_stale_server_and_lock(daemon: Daemon, endpoint: Endpoint) -> None:
    """What a killed daemon left in the folder keeps nobody from starting."""
    daemon.write(CALL.format(url=endpoint.url))
    await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(daemon.stop, signal.SIGKILL)
    store = daemon.folder / "store"
    assert (store / "connection.json").exists()
    assert (store / "lock").exists()

    await asyncio.to_thread(daemon.start)

    assert await asyncio.to_thread(daemon.post, event(1)) == 200
    await asyncio.to_thread(daemon.wait_for_lines, 1, message="action", status="success")
    assert await asyncio.to_thread(daemon.stop) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk(daemon: Daemon, endpoint: Endpoint, small_disk: Path) -> None:
    """503 while it is full, service again when it is not; nothing accepted is lost."""
    daemon.write(
        CALL.format(url=endpoint.url),
        nats={"store_dir": str(small_disk / "store"), "max_bytes": "16MiB"},
    )
    await asyncio.to_thread(daemon.start)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100 * 1024))
    async with Load(daemon) as load:
        await until(daemon, lambda: load.refused > 3, "refusals")
        assert daemon.get("/readyz")[0] == 503
        before = len(load.accepted)
        filler.unlink()
        await until(daemon, lambda: len(load.accepted) > before + 50, "service again")
    await until(daemon, lambda: set(load.accepted) <= set(outputs(endpoint)), "all actions")
    assert await asyncio.to_thread(daemon.stop) == 0
    refusals = [line for line in daemon.lines(message="http", level="error")]
    assert len(refusals) == 1  # said once a minute
    check(endpoint, load.accepted, kills=1)
