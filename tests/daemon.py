"""The whole daemon as users run it: a process of its own, posted to over HTTP."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

_T = TypeVar("_T")


class Daemon:
    """``talon server`` on a configuration and rules; its log, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.port = 0
        self.config: dict[str, Any] = {
            "listen_address": "127.0.0.1",
            "listen_port": 0,
            "log_format": "json",
            "rules_files": [str(folder / "rules.yaml")],
            "nats": {"store_dir": str(folder / "store")},
            "deduplication": {"leader_election": False},
        }
        self.environ: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None

    def write(self, rules: str, **config: Any) -> None:
        """Write the rules and the configuration, over what there was."""
        (self.folder / "rules.yaml").write_text(rules)
        self.config |= config
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def start(self, *, ready: bool = True) -> None:
        """Start the process; wait until it is ready, unless it is not meant to be."""
        self.port = 0
        command = [sys.executable, "-m", "falco_talon", "server", "-c", "config.yaml"]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)} | self.environ,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if ready:
            self.wait_for(lambda: self.port or self.process.poll() is not None, "listening")  # type: ignore[union-attr]
            assert self.port, self.raw

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.raw.append(line.rstrip())
            try:
                record = json.loads(line)
            except ValueError:
                continue
            self.log.append(record)
            if "up and listening on" in record.get("result", ""):
                self.port = int(record["result"].rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 30) -> int:
        """Send the signal; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.join(seconds)

    def join(self, seconds: float = 30) -> int:
        """Wait for the end; return the exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def post(self, body: Any, headers: dict[str, str] | None = None) -> int:
        """Post an event (bytes as they are); return the status."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._request("POST", "/", data, headers)[0]

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        return self._request("GET", path, None)

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(
                method, path, body, {"Content-Type": "application/json"} | (headers or {})
            )
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the log records that have these fields."""
        return [line for line in list(self.log) if fields.items() <= line.items()]

    def wait_for(self, probe: Callable[[], _T], what: str, seconds: float = 20) -> _T:
        """Return what *probe* does, as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (found := probe()):
            if time.monotonic() > deadline:
                pytest.fail(f"no {what} within {seconds} s; the log:\n" + "\n".join(self.raw))
            time.sleep(0.01)
        return found

    def wait_for_lines(self, number: int, **fields: Any) -> list[dict[str, Any]]:
        """Return the records that have these fields, once there are *number* of them."""
        probe = lambda: len(self.lines(**fields)) >= number  # noqa: E731
        self.wait_for(probe, f"{number} lines with {fields}")
        return self.lines(**fields)


@pytest.fixture
def in_thread() -> Callable[..., Any]:
    """Return what runs a blocking call of the daemon beside the servers of an async test."""
    return asyncio.to_thread


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Make a daemon in a folder of its own; what still runs at the end is killed."""
    daemon = Daemon(tmp_path)
    yield daemon
    if daemon.process is not None:
        daemon.stop(signal.SIGKILL)
