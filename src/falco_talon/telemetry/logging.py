"""Log lines: one record, one line, whatever an attacker put into it.

It needs nothing heavy, so that commands can use it as well; ``loggers`` writes such lines.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

LogFormat = Literal["json", "text", "color"]

_BEFORE_OBJECTS = (
    "rule",
    "event",
    "priority",
    "source",
    "notifier",
    "context",
    "output",
    "stage",
    "actionner",
    "category",
    "output_target",
    "action",
    "status",
    "result",
    "trace_id",
)
_AFTER_OBJECTS = ("error", "traceback")
_RESERVED = frozenset(("level", "time", "message"))
_ORDERED = frozenset((*_BEFORE_OBJECTS, *_AFTER_OBJECTS))

_LEVELS = {
    "debug": ("debug", "DBG", "35"),
    "info": ("info", "INF", "32"),
    "warn": ("warn", "WRN", "33"),
    "warning": ("warn", "WRN", "33"),
    "error": ("error", "ERR", "31"),
    "exception": ("error", "ERR", "31"),
    "critical": ("fatal", "FTL", "31"),
    "fatal": ("fatal", "FTL", "31"),
}
"""Name of the method or level → its name in JSON, its short name, its colour."""

_BARE = re.compile(r"[!#-\[\]-~]+")
"""A value that needs no quotes: printable ASCII without space, quote and backslash."""
_NOT_ASCII = re.compile(r"[^ -~]")
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

_encode = msgspec.json.Encoder(enc_hook=str).encode


def render(
    log_format: LogFormat,
    level: str,
    message: str,
    fields: Mapping[str, Any],
    *,
    time: datetime | None = None,
) -> str:
    """Return the line, without a line end, of a record.

    *level* is the name of a logging method: ``debug``, ``info``, ``warning``, ``error``,
    ``critical``. Empty fields are left out; the mapping ``objects`` is laid out as fields of its
    own. No value can end the line, add a field, or move the cursor of a terminal.
    """
    at = (time or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    laid_out = _lay_out(fields)
    if log_format == "json":
        return _json(level, message, laid_out, at)
    return _console(level, message, laid_out, at, color=log_format == "color")


def _lay_out(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not empty, the objects among them, under names of their own."""
    laid_out: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or value == "" or value in ({}, [], ()):
            continue
        if name == "objects" and isinstance(value, Mapping):
            for key, item in value.items():
                taken = key.lower() in _ORDERED or key.lower() in _RESERVED
                if item not in (None, ""):
                    laid_out[f"object.{key.lower()}" if taken else key.lower()] = item
        else:
            laid_out[f"field.{name}" if name in _RESERVED else name] = value
    return laid_out


def _json(level: str, message: str, fields: dict[str, Any], at: str) -> str:
    record: dict[str, Any] = {"level": _LEVELS[level][0]}
    record.update({name: fields[name] for name in _BEFORE_OBJECTS if name in fields})
    record.update({name: value for name, value in fields.items() if name not in _ORDERED})
    record.update({name: fields[name] for name in _AFTER_OBJECTS if name in fields})
    record["time"] = at
    if message:
        record["message"] = message
    try:
        line = _encode(record).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        # Half of a surrogate pair, a key that is no text: slower, and takes all.
        line = json.dumps(record, default=str, skipkeys=True)
    return line if line.isprintable() else _NOT_ASCII.sub(_json_escape, line)


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    return char if char.isprintable() else json.dumps(char)[1:-1]


def _console(level: str, message: str, fields: dict[str, Any], at: str, *, color: bool) -> str:
    def paint(text: str, *codes: str) -> str:
        if not color:
            return text
        return "".join(f"\x1b[{code}m" for code in codes) + text + "\x1b[0m" * len(codes)

    _, short, level_color = _LEVELS[level]
    parts = [paint(at, "90"), paint(short, level_color)]
    if message:
        # What looks like a field must not be taken for one.
        parts.append(paint(_quoted(message) if "=" in message else _inert(message), "1"))
    for name in _console_order(fields):
        value = _text(fields[name])
        shown = paint(value, "31", "1") if name == "error" else value
        parts.append(paint(_quoted(name) + "=", "36") + shown)
    return " ".join(parts)


def _console_order(fields: Iterable[str]) -> list[str]:
    return sorted(fields, key=lambda name: (name != "error", name))


def _text(value: object) -> str:
    """Return the value as a console line shows it: text, or JSON, quoted if need be."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    try:
        return _quoted(_encode(value).decode())
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        return _quoted(str(value))


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    return '"' + _inert(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _inert(text: str) -> str:
    """Escape what a terminal would not print as a character."""
    return text if text.isprintable() else _NOT_ASCII.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char.isprintable():
        return char
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
