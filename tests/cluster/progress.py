"""Tells the person who waits what is going on."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tests.cluster.errors import SetupError

# Silence longer than this makes people press Ctrl-C.
BEAT_SECONDS = 5.0


class Progress:
    """Writes one line a step, each with the seconds since the start."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        # sys.stderr is looked up late: pytest replaces it while a test runs
        stream = self._stream or sys.stderr
        stream.write(f"[{time.monotonic() - self._start:6.1f} s] {text}\n")
        stream.flush()

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        summary: Callable[[list[str]], str] = lambda lines: lines[-1],
    ) -> None:
        """Run a command that may take minutes; while it does, say a summary of its output.

        Raises SetupError with the last error it wrote if the command fails or does not exist.
        """
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                raise SetupError(f"cannot run {argv[0]}: {error.strerror}") from error
            with process:
                while process.poll() is None:
                    try:
                        process.wait(BEAT_SECONDS)
                    except subprocess.TimeoutExpired:
                        if lines := _lines(output.fileno()):
                            self.say(f"  … {summary(lines)}")
            if process.returncode != 0:
                lines = _lines(output.fileno()) or [f"exit status {process.returncode}"]
                errors = [line for line in lines if "rror" in line or "E: " in line]
                raise SetupError((errors or lines)[-1].strip())


def _lines(descriptor: int) -> list[str]:
    """What a command wrote so far; the child shares our file offset, so read without moving it."""
    with Path(f"/proc/self/fd/{descriptor}").open(errors="replace") as copy:
        return [line for line in copy.read().splitlines() if line.strip()]
