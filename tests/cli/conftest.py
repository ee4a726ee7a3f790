"""The command line, run as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Talon = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def talon() -> Talon:
    """Run ``talon`` with these arguments, in a process of its own; keywords are variables."""

    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "falco_talon", *map(str, arguments)],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
