"""Log lines: the layouts, what hostile values do to them (nothing), and where lines come from."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from falco_talon.errors import CheckError
from falco_talon.telemetry.loggers import configure
from falco_talon.telemetry.logging import LogFormat, render

TIME = datetime(2026, 11, 21, 9, 30, 5, 999_000, tzinfo=UTC)
ANSI = re.compile(r"\x1b\[\d+m")
HOSTILE = 'a\nb\r\x1b[31m\x00\x7f\x9b "q" \\ é \u202e\u2028 status=success'


def line(log_format: LogFormat, level: str, message: str, **fields: Any) -> str:
    return render(log_format, level, message, fields, time=TIME)


class TestJson:
    def test_order_of_the_keys(self) -> None:
        fields = dict.fromkeys(
            [
                "error",
                "objects",
                "trace_id",
                "result",
                "status",
                "action",
                "output_target",
                "category",
                "actionner",
                "stage",
                "output",
                "context",
                "notifier",
                "source",
                "priority",
                "event",
                "rule",
            ],
            "x",
        )
        written = line("json", "info", "action", **{**fields, "objects": {"Pod": "web"}})

        assert " ".join(json.loads(written)) == (
            "level rule event priority source notifier context output stage actionner category "
            "output_target action status result trace_id pod error time message"
        )

    def test_whole_line(self) -> None:
        assert line("json", "warning", "init", category="aws", n=0, ok=False) == (
            '{"level":"warn","category":"aws","n":0,"ok":false,'
            '"time":"2026-11-21T09:30:05Z","message":"init"}'
        )

    @pytest.mark.parametrize(
        ("method", "name"),
        [("debug", "debug"), ("info", "info"), ("warning", "warn"), ("error", "error"),
         ("critical", "fatal"), ("fatal", "fatal")],
    )  # fmt: skip
    def test_names_of_the_levels(self, method: str, name: str) -> None:
        assert json.loads(line("json", method, "m"))["level"] == name

    @given(st.text(), st.dictionaries(st.text(min_size=1), st.text(min_size=1)))
    def test_any_text_comes_back(self, message: str, objects: dict[str, str]) -> None:
        written = line("json", "info", message, objects=objects, output="x")

        assert written.isprintable()
        assert json.loads(written).get("message", "") == message

    def test_hostile_value_comes_back(self) -> None:
        written = line("json", "info", "match", event=HOSTILE, objects={"pod": HOSTILE})

        assert written.isprintable()
        assert json.loads(written)["event"] == HOSTILE
        assert json.loads(written)["pod"] == HOSTILE

    def test_half_a_surrogate_pair(self) -> None:
        assert json.loads(line("json", "info", "m", event="\ud83d"))["event"] == "\ud83d"

    def test_what_json_does_not_know_is_text(self) -> None:
        assert json.loads(line("json", "info", "m", x=TimeoutError("t")))["x"] == "t"


class TestText:
    @pytest.mark.parametrize(
        ("method", "name"),
        [("debug", "DBG"), ("info", "INF"), ("warning", "WRN"), ("error", "ERR"),
         ("critical", "FTL")],
    )  # fmt: skip
    def test_error_first_then_by_name(self, method: str, name: str) -> None:
        written = line(
            "text", method, "action", rule="r", error="e", action="a", objects={"Z": "z"}
        )

        assert written == f"2026-11-21T09:30:05Z {name} action error=e action=a rule=r z=z"

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("plain-ASCII/=1:'", "plain-ASCII/=1:'"),
            ("two words", '"two words"'),
            ('a"b', r'"a\"b"'),
            ("a\\b", r'"a\\b"'),
            ("é", '"é"'),
            ("a\nb\tc\rd", r'"a\nb\tc\rd"'),
            ("\x1b[31m", r'"\x1b[31m"'),
            ("\x7f\x9b", r'"\x7f\u009b"'),
            ("\u202e\U000e0001\ud800", r'"\u202e\U000e0001\ud800"'),
            (True, "true"),
            (0, "0"),
            (1.5, "1.5"),
            ({"a": [1]}, r'"{\"a\":[1]}"'),
            ([" status=x"], r'"[\" status=x\"]"'),
        ],
    )
    def test_values(self, value: object, shown: str) -> None:
        assert line("text", "info", "m", key=value) == f"2026-11-21T09:30:05Z INF m key={shown}"

    @given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
    def test_nothing_ends_the_line_or_adds_a_field(self, a: str, b: str, message: str) -> None:
        written = line("text", "info", message, a=a, b=b, status="failure")
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', written)

        assert written.isprintable()
        assert len(re.findall(r"(?: |^)status=", bare)) == 1

    def test_hostile_message_and_names(self) -> None:
        written = line("text", "info", "m\n status=success", **{"a b\n": "x"})

        assert written == ('2026-11-21T09:30:05Z INF "m\\n status=success" "a b\\n"=x')


class TestColor:
    def test_whole_line(self) -> None:
        assert line("color", "error", "action", rule="r", error="e") == (
            "\x1b[90m2026-11-21T09:30:05Z\x1b[0m \x1b[31mERR\x1b[0m \x1b[1maction\x1b[0m "
            "\x1b[36merror=\x1b[0m\x1b[31m\x1b[1me\x1b[0m\x1b[0m \x1b[36mrule=\x1b[0mr"
        )

    @pytest.mark.parametrize(("method", "code"), [("info", 32), ("warning", 33), ("fatal", 31)])
    def test_colors_of_the_levels(self, method: str, code: int) -> None:
        assert f" \x1b[{code}m" in line("color", method, "m")

    @given(st.text(), st.text(), st.text())
    def test_without_its_colors_it_is_the_text(self, message: str, error: str, value: str) -> None:
        fields = {"error": error, "output": value, "objects": {"pod": value}}

        colored = line("color", "info", message, **fields)
        assert ANSI.sub("", colored) == line("text", "info", message, **fields)


class TestFields:
    def test_the_empty_are_left_out(self) -> None:
        written = line("text", "info", "m", a=None, b="", c={}, d=[], objects={}, e=0, f=False)

        assert written == "2026-11-21T09:30:05Z INF m e=0 f=false"

    def test_objects_never_take_the_place_of_a_field(self) -> None:
        objects = {"Status": "x", "time": "y", "pod": "web", "node": ""}
        written = json.loads(line("json", "info", "m", status="failure", objects=objects))

        assert written["status"] == "failure"
        assert written["time"] == "2026-11-21T09:30:05Z"
        assert (written["object.status"], written["object.time"]) == ("x", "y")
        assert (written["pod"], "node" in written) == ("web", False)

    def test_a_field_never_takes_the_place_of_what_each_line_has(self) -> None:
        written = json.loads(line("json", "info", "m", time="x"))

        assert (written["time"], written["field.time"]) == ("2026-11-21T09:30:05Z", "x")

    @pytest.mark.parametrize("log_format", ["json", "text", "color"])
    def test_a_record_without_message_is_written(self, log_format: LogFormat) -> None:
        written = ANSI.sub("", line(log_format, "error", "", error="e"))

        assert "error" in written
        assert "message" not in written

    def test_time_is_utc(self) -> None:
        time = TIME.astimezone(timezone(timedelta(hours=2)))

        assert render("text", "info", "m", {}, time=time) == "2026-11-21T09:30:05Z INF m"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go; afterwards, logging is as it was."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(written) for written in stream.getvalue().splitlines()]


class TestStructlog:
    def test_a_line_a_call(self, stream: io.StringIO) -> None:
        configure("text", "info", stream)
        log = structlog.get_logger()
        log.bind(rule="r").info("action", status="success")
        log.fatal("config", error="e")

        first, second = stream.getvalue().splitlines()
        assert first.endswith(" INF action rule=r status=success")
        assert second.endswith(" FTL config error=e")

    def test_a_field_may_be_called_event(self, stream: io.StringIO) -> None:
        configure("json", "info", stream)
        structlog.get_logger().info("match", event="Terminal shell", message="x")

        (record,) = records(stream)
        assert (record["message"], record["event"]) == ("match", "Terminal shell")
        assert record["field.message"] == "x"

    def test_capture_logs_sees_it(self, stream: io.StringIO) -> None:
        configure("json", "info", stream)
        with structlog.testing.capture_logs() as captured:
            structlog.get_logger().info("match", event="Terminal shell")

        assert captured == [{"event": "match", "event_": "Terminal shell", "log_level": "info"}]
        assert stream.getvalue() == ""

    @pytest.mark.parametrize(
        ("level", "written"),
        [
            ("debug", ["debug", "info", "warn", "warn", "error", "fatal"]),
            ("info", ["info", "warn", "warn", "error", "fatal"]),
            ("warning", ["warn", "warn", "error", "fatal"]),
            ("error", ["error", "fatal"]),
        ],
    )
    def test_levels(self, stream: io.StringIO, level: str, written: list[str]) -> None:
        configure("json", level, stream)
        log = structlog.get_logger()
        for method in ("debug", "info", "warning", "warn", "error", "critical"):
            getattr(log, method)("m")

        assert [record["level"] for record in records(stream)] == written

    def test_an_exception_is_one_line(self, stream: io.StringIO) -> None:
        configure("json", "info", stream)
        log = structlog.get_logger()
        try:
            int("a\n")
        except ValueError as error:
            log.exception("http")
            log.warning("nats", exc_info=error)

        assert [(record["level"], record["error"]) for record in records(stream)] == [
            ("error", "ValueError: invalid literal for int() with base 10: 'a\\n'"),
            ("warn", "ValueError: invalid literal for int() with base 10: 'a\\n'"),
        ]
        assert "traceback" not in stream.getvalue()

    def test_our_errors_are_sentences(self, stream: io.StringIO) -> None:
        configure("json", "info", stream)
        group = ExceptionGroup("g", [CheckError("missing pod name"), OSError()])
        structlog.get_logger().error("action", exc_info=group)

        assert records(stream)[0]["error"] == "missing pod name; OSError"

    def test_tracebacks_at_debug_level(self, stream: io.StringIO) -> None:
        configure("text", "debug", stream)
        try:
            int("x")
        except ValueError:
            structlog.get_logger().exception("http")

        (written,) = stream.getvalue().splitlines()
        assert 'traceback="Traceback (most recent call last):\\n' in written

    def test_a_failing_stream_does_not_fail_the_caller(self, stream: io.StringIO) -> None:
        configure("text", "info", stream)
        stream.close()

        structlog.get_logger().info("m")

    def test_lines_of_threads_stay_whole(self, stream: io.StringIO) -> None:
        configure("json", "info", stream)
        log = structlog.get_logger()

        def write(name: str) -> None:
            for _ in range(200):
                log.info("m", output=name * 500)

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(records(stream)) == 800

    def test_no_color(self, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
        configure("color", "info", stream)
        structlog.get_logger().info("m")
        monkeypatch.setenv("NO_COLOR", "1")
        configure("color", "info", stream)
        structlog.get_logger().info("m")

        first, second = stream.getvalue().splitlines()
        assert "\x1b[" in first
        assert "\x1b[" not in second


class TestOtherLibraries:
    def test_warnings_and_errors_have_our_layout(self, stream: io.StringIO) -> None:
        configure("json", "debug", stream)
        logging.getLogger("aiohttp.server").info("not shown")
        logging.getLogger("aiohttp.server").warning("from %s\n", "10.0.0.1")
        logging.getLogger("nats").critical("gone")

        first, second = records(stream)
        assert (first["level"], first["message"]) == ("warn", "from 10.0.0.1\n")
        assert first["logger"] == "aiohttp.server"
        assert (second["level"], second["message"]) == ("fatal", "gone")

    def test_exceptions(self, stream: io.StringIO) -> None:
        configure("text", "info", stream)
        try:
            _ = dict[str, int]()["x"]
        except KeyError:
            logging.getLogger("x").exception("failed")

        assert stream.getvalue().endswith(""" ERR failed error="KeyError: 'x'" logger=x\n""")

    def test_errors_only(self, stream: io.StringIO) -> None:
        configure("text", "error", stream)
        logging.getLogger("x").warning("not shown")

        assert stream.getvalue() == ""

    def test_arguments_that_do_not_fit(self, stream: io.StringIO) -> None:
        configure("json", "info", stream)
        logging.getLogger("x").error("%d", "x")

        assert records(stream)[0]["message"] == "%d"


def run(program: str, **environ: str) -> str:
    """Run the program, with logging configured, in a process of its own; return its lines."""
    start = (
        "import logging, warnings, structlog\n"
        "from falco_talon.telemetry.loggers import configure\n"
        "configure('text', 'info')\n"
    )
    command = [sys.executable, "-W", "always", "-c", start + program]
    environ = {**os.environ, **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


def test_an_odd_encoding_of_stdout_loses_no_line() -> None:
    written = run("structlog.get_logger().info('m', output='é')", PYTHONIOENCODING="ascii")

    assert written.endswith('output="\\xe9"\n')


def test_warnings_of_python_have_our_layout() -> None:
    written = run("warnings.warn('old')")

    assert re.fullmatch(r"\S+ WRN .*UserWarning: old.* logger=py.warnings\n", written)


def test_rendering_needs_no_structlog() -> None:
    program = "import sys, falco_talon.telemetry.logging; sys.exit('structlog' in sys.modules)"

    subprocess.run([sys.executable, "-c", program], check=True)
