"""Where the test cluster keeps what it downloads, builds and runs.

bin/      built binaries, keyed by version
build/    the Go modules they are built from
python/   packages that are not in the running interpreter
run/      the running cluster: pid and log of each process, certificates, data
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tests.cluster.processes import wait_until
from tests.cluster.progress import Progress

WAITING_SECONDS = 10.0


@dataclass(frozen=True)
class Cache:
    """The folder that belongs to the test cluster."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Cache":
        if chosen := os.environ.get("TALON_TEST_CACHE"):
            return cls(Path(chosen).resolve())
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(home).resolve() / "falco-talon" / "cluster")

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def kubeconfig(self) -> Path:
        """The administrator of the cluster that `up` started."""
        return self.run / "admin.kubeconfig"

    def binary(self, version: str, name: str) -> Path:
        return self.root / "bin" / version / name

    @contextmanager
    def lock(self, name: str, progress: Progress) -> Iterator[None]:
        """Let one process at a time do `name`; the kernel frees the lock of a dead one."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{name}.lock").open("w") as file:
            while not _try_lock(file):
                progress.say(f"waiting for another process ({name})")
                wait_until(lambda: _try_lock(file), WAITING_SECONDS)
            yield


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
