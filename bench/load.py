"""Load on loopback: a daemon as users run it, and connections that post as fast as it takes."""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

_READY_SECONDS = 20.0
_PEER_PORT = 2803


@dataclass(frozen=True)
class Target:
    """A running daemon."""

    port: int
    pid: int
    ready_seconds: float

    @property
    def resident_mb(self) -> float:
        """Memory of the daemon and of the servers it started."""
        pids = [self.pid, *_children(self.pid)]
        return sum(_resident_kb(pid) for pid in pids) / 1024


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _resident_kb(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


class Installation:
    """Rules, configuration and store in a folder, on which the daemon can run again and again.

    ``TALON_PEER`` names another binary to run instead.
    """

    def __init__(self, folder: Path, rules: str, config: Mapping[str, object]) -> None:
        self._folder = folder
        peer = os.environ.get("TALON_PEER")
        settings = {
            "listen_address": "127.0.0.1",
            "listen_port": _PEER_PORT if peer else 0,
            "log_format": "json",
            "watch_rules": False,
            "deduplication": {"leader_election": False, "time_window_seconds": 5},
            **config,
        }
        if not peer:
            settings["nats"] = {"store_dir": f"{folder}/store"}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        (folder / "rules.yaml").write_text(rules)
        program = [peer] if peer else [sys.executable, "-m", "falco_talon"]
        files = ["-c", f"{folder}/config.yaml", "-r", f"{folder}/rules.yaml"]
        self._command = [*program, "server", *files]

    @contextmanager
    def run(self) -> Iterator[Target]:
        """Run the daemon; it may have been killed when the context ends."""
        log_file = self._folder / "log"
        begin = time.perf_counter()
        with log_file.open("wb") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            port = _wait_until_up(log_file, process)
            yield Target(port, process.pid, time.perf_counter() - begin)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def installed(rules: str, **config: object) -> Iterator[Installation]:
    """Put *rules* and the configuration into a folder that vanishes in the end."""
    with tempfile.TemporaryDirectory(prefix="talon-bench-") as folder:
        yield Installation(Path(folder), rules, config)


@contextmanager
def running(rules: str, **config: object) -> Iterator[Target]:
    """Run the daemon on *rules*."""
    with installed(rules, **config) as installation, installation.run() as target:
        yield target


def _wait_until_up(log_file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r"up and listening on [^\" ]*:(\d+)", log_file.read_text())
        if match:
            return int(match[1])
        time.sleep(0.005)
    raise SystemExit(f"the daemon did not start:\n{log_file.read_text()}")


def body(number: int, rule: str) -> bytes:
    """Return an event of about 1 KB, unlike that of any other number."""
    fields = {f"field.{index}": "x" * 24 for index in range(20)}
    event = {
        "output": f"12:00:00.000000000: Notice event {number} of {rule}",
        "output_fields": {"k8s.ns.name": "bench", "k8s.pod.name": f"pod-{number % 100}"} | fields,
        "priority": "Notice",
        "rule": rule,
        "source": "syscall",
        "hostname": "node-1",
        "time": "2026-11-21T12:00:00.000000000Z",
        "tags": ["bench"],
    }
    return json.dumps(event).encode()


async def post(port: int, bodies: list[bytes], connections: int) -> tuple[float, list[float]]:
    """Post the bodies over that many connections; return the seconds and each latency in ms."""
    latencies: list[float] = []
    lanes = [bodies[lane::connections] for lane in range(connections)]
    begin = time.perf_counter()
    await asyncio.gather(*(_lane(port, lane, latencies) for lane in lanes))
    return time.perf_counter() - begin, latencies


async def _lane(port: int, bodies: list[bytes], latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for data in bodies:
        begin = time.perf_counter()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"refused: {head!r}")
        latencies.append((time.perf_counter() - begin) * 1000)
    writer.close()
    await writer.wait_closed()


def row(what: str, seconds: float, latencies: list[float]) -> str:
    """Return a line of the result."""
    ordered = sorted(latencies)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99) - 1]
    rate = len(ordered) / seconds
    return f"{what:<58} {rate:>8,.0f}/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms"
