"""Starts, recognises and stops the processes of the cluster.

A process outlives the command that started it. Its record, `<name>.pid`, holds the pid together
with the kernel's start time, so that a pid the kernel gave to somebody else is never killed.
"""

import hashlib
import http.client
import json
import os
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.errors import SetupError

POLL_SECONDS = 0.05

# root's PATH may lack the folders of administration when it comes from `su` or an editor
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Record:
    """What is known about a process that was started."""

    pid: int
    started: int | None
    fingerprint: str

    def is_alive(self) -> bool:
        return self.started is not None and started_at(self.pid) == self.started


@dataclass(frozen=True)
class Process:
    """A process by its name, and where its record and log are."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def record_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def record(self) -> Record | None:
        """What is known about it, if it runs."""
        try:
            kept = json.loads(self.record_file.read_text())
            known = Record(kept["pid"], kept["started"], kept.get("fingerprint", ""))
        except (FileNotFoundError, ValueError):
            return None
        return known if known.is_alive() else None

    def stop(self, patience: float = 10.0) -> bool:
        """Stop it, politely for `patience` seconds; False if it did not run."""
        known = self.record()
        if known is not None:
            with suppress(ProcessLookupError):
                os.kill(known.pid, signal.SIGTERM if patience else signal.SIGKILL)
                if not wait_until(lambda: not known.is_alive(), patience):
                    os.kill(known.pid, signal.SIGKILL)
            if not wait_until(lambda: not known.is_alive(), 10.0):
                raise SetupError(f"{self.name} (pid {known.pid}) survives SIGKILL")
        self.record_file.unlink(missing_ok=True)
        return known is not None


@dataclass(frozen=True)
class Daemon(Process):
    """A process that can be started: its arguments, its files, and when it is healthy."""

    argv: tuple[str, ...]
    healthy: Callable[[], bool]
    files: Mapping[Path, str] = field(default_factory=dict)
    dies_with_parent: bool = False

    @property
    def fingerprint(self) -> str:
        """Tells whether a running one was started with other arguments or files."""
        files = {str(path): content for path, content in self.files.items()}
        return hashlib.sha256(json.dumps([self.argv, files]).encode()).hexdigest()

    def is_current(self) -> bool:
        """It runs as it would be started today, and answers."""
        known = self.record()
        return known is not None and known.fingerprint == self.fingerprint and self.healthy()

    def ensure(self, timeout: float = 60.0) -> bool:
        """Make it run and wait until it is healthy; False if there was nothing to do.

        Raises SetupError with the end of the log if it does not get healthy within `timeout`
        seconds.
        """
        if known := self.record():
            # it may be starting, or busy for a moment, so ask for a while
            if known.fingerprint == self.fingerprint and self._becomes_healthy(10.0):
                return False
            self.stop()
        self._start()
        if not self._becomes_healthy(timeout):
            self.stop()
            raise SetupError(f"{self.name} does not get healthy: {self._last_words()}")
        return True

    def _start(self) -> None:
        for path, content in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        argv = list(self.argv)
        if self.dies_with_parent and (setpriv := shutil.which("setpriv")):
            # a killed pytest must not leave an API server behind
            argv = [setpriv, "--pdeathsig", "KILL", *argv]
        # posix_spawn, not Popen: a Popen complains when it is forgotten while its process runs
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        pid = os.posix_spawn(
            argv[0],
            argv,
            _environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        record = Record(pid, started_at(pid), self.fingerprint)
        self.record_file.write_text(json.dumps(asdict(record)))

    def _becomes_healthy(self, timeout: float) -> bool:
        def settled() -> bool:
            return self.record() is None or self.healthy()

        return wait_until(settled, timeout) and self.record() is not None

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        # Go's usage text and goroutine dumps come after the line that says why
        telling = [line for line in lines if "rror" in line or "fatal" in line or "panic" in line]
        return f"{(telling or lines or ['no output'])[-1].strip()} (see {self.log})"


def _environment() -> dict[str, str]:
    """Ours, but without proxies: the parts of the cluster talk to each other alone."""
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    return {**kept, "PATH": PATH}


def started_at(pid: int) -> int | None:
    """The kernel's start time of a process in clock ticks; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the second field is the name in parentheses, which may itself hold spaces and parentheses
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        with suppress(ChildProcessError):  # somebody else's child: its parent reaps it
            os.waitpid(pid, os.WNOHANG)
        return None
    return int(fields[19])


def wait_until(settled: Callable[[], bool], timeout: float) -> bool:
    """Poll until `settled`, for `timeout` seconds at most; False if it never was."""
    end = time.monotonic() + timeout
    while not settled():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def answers(url: str, authority: Path | None = None) -> bool:
    """Whether a GET is answered with 200; without an authority any certificate will do."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=authority)
            if authority is None:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(host, port, timeout=3, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=3)
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False
