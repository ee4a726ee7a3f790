"""structlog and the standard library's logging, both writing the lines of the daemon."""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from falco_talon.errors import PluginError, TalonError
from falco_talon.telemetry.logging import LogFormat, render

_LEVELS = ("debug", "info", "warning", "error")


class LineWriter:
    """Writes whole lines to a stream: one at a time, whichever thread they come from."""

    def __init__(self, stream: TextIO) -> None:
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            # A line is worth more than its odd characters.
            reconfigure(errors="backslashreplace")
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Write the line and flush; a stream that takes no more (closed, disk full) loses it."""
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass


class Logger(structlog.BoundLoggerBase):
    """What ``structlog.get_logger()`` becomes: a method a level, a message and fields.

    The message is positional only, so that a field may be called ``event``. Tests that use
    ``capture_logs`` find that field as ``event_``: ``event`` is where structlog keeps the message.
    """

    def debug(self, message: str = "", /, **fields: Any) -> None:
        """Log what helps to find a fault."""
        self._emit("debug", message, fields)

    def info(self, message: str = "", /, **fields: Any) -> None:
        """Log what happens."""
        self._emit("info", message, fields)

    def warning(self, message: str = "", /, **fields: Any) -> None:
        """Log what may need somebody."""
        self._emit("warning", message, fields)

    def error(self, message: str = "", /, **fields: Any) -> None:
        """Log what failed."""
        self._emit("error", message, fields)

    def exception(self, message: str = "", /, **fields: Any) -> None:
        """Log what failed, with the exception in hand."""
        self._emit("error", message, {"exc_info": True, **fields})

    def critical(self, message: str = "", /, **fields: Any) -> None:
        """Log what ends the daemon."""
        self._emit("critical", message, fields)

    warn = warning
    fatal = critical

    def _emit(self, level: str, message: str, fields: dict[str, Any]) -> None:
        if "event" in fields:
            fields["event_"] = fields.pop("event")
        try:
            args, _ = self._process_event(level, message, fields)
        except structlog.DropEvent:
            return
        self._logger.write(*args)


def configure(log_format: LogFormat, log_level: str, stream: TextIO | None = None) -> None:
    """Make structlog and the standard library's logging write to *stream* (stdout), line by line.

    Lines below *log_level* (``debug``, ``info``, ``warning``, ``error``) are dropped; those of
    other libraries below ``warning`` as well. A failing stream never fails the caller.
    """
    if log_format == "color" and os.environ.get("NO_COLOR"):
        log_format = "text"
    writer = LineWriter(stream or sys.stdout)
    structlog.configure(
        processors=[_renderer(log_format, tracebacks=log_level == "debug")],
        wrapper_class=_logger_class(log_level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(writer, log_format, tracebacks=log_level == "debug")
    level = max(logging.WARNING, logging.getLevelNamesMapping()[log_level.upper()])
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)


def describe(error: BaseException) -> str:
    """Return the exception in one piece: our own are sentences, others need their type."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(part) for part in error.exceptions)
    text = str(error)
    if text and isinstance(error, TalonError | PluginError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _logger_class(log_level: str) -> type[Logger]:
    dropped = _LEVELS[: _LEVELS.index(log_level)]
    names = [*dropped, "warn"] if "warning" in dropped else dropped
    return type("Logger", (Logger,), dict.fromkeys(names, _drop))


def _drop(self: Logger, message: str = "", /, **fields: Any) -> None:
    """Log nothing: the level is off."""


def _renderer(
    log_format: LogFormat, *, tracebacks: bool
) -> Callable[[WrappedLogger, str, EventDict], str]:
    def process(_: WrappedLogger, level: str, fields: EventDict) -> str:
        message = fields.pop("event", "")
        if "event_" in fields:
            fields["event"] = fields.pop("event_")
        if exc_info := fields.pop("exc_info", None):
            _add_error(fields, _exception(exc_info), tracebacks=tracebacks)
        return render(log_format, level, str(message), fields)

    return process


def _exception(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1]


def _add_error(
    fields: MutableMapping[str, Any], error: BaseException | None, *, tracebacks: bool
) -> None:
    if error is None:
        return
    fields.setdefault("error", describe(error))
    if tracebacks:
        fields["traceback"] = "".join(traceback.format_exception(error))


class _Handler(logging.Handler):
    """Writes the records of other libraries."""

    def __init__(self, writer: LineWriter, log_format: LogFormat, *, tracebacks: bool) -> None:
        super().__init__()
        self._writer = writer
        self._format = log_format
        self._tracebacks = tracebacks

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record: its text is the message, ``logger`` says whose it is."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's format and arguments may not fit
            message = str(record.msg)
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            _add_error(fields, record.exc_info[1], tracebacks=self._tracebacks)
        self._writer.write(render(self._format, _level_name(record.levelno), message, fields))


def _level_name(level: int) -> str:
    if level >= logging.CRITICAL:
        return "critical"
    return "error" if level >= logging.ERROR else "warning"
