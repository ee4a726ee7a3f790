"""Fixtures of all tests, and the rule that nothing is skipped where all can run."""

import io
import json
import os
from collections.abc import Callable, Generator
from typing import Any

import pytest

from falco_talon.telemetry.loggers import configure

pytest_plugins = [
    "tests.bus.cluster",
    "tests.bus.fixtures",
    "tests.bus.replicas",
    "tests.cluster.fixtures",
    "tests.daemon",
    "tests.endpoint",
]


@pytest.fixture(autouse=True)
def _no_variables_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration comes from the test alone."""
    for name in list(os.environ):
        if name.startswith("FALCO_TALON_") or name in {"KUBECONFIG", "LOG_LEVEL", "LOG_FORMAT"}:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _log_stream() -> io.StringIO:
    stream = io.StringIO()
    configure("json", "debug", stream)
    return stream


@pytest.fixture(autouse=True)
def logged(_log_stream: io.StringIO) -> Callable[..., list[dict[str, Any]]]:
    """Return the log records of the test so far that have these fields."""
    _log_stream.seek(0)
    _log_stream.truncate()

    def records(**fields: Any) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in _log_stream.getvalue().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    return records


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``TALON_TEST_NO_SKIP`` set, as in CI, a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("TALON_TEST_NO_SKIP") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report
