"""What ``rules check`` found, as log lines, as JSON, as annotations of a GitHub workflow."""

import json
import os
import sys
from collections.abc import Iterable, Sequence

from falco_talon.rules.model import Fault
from falco_talon.telemetry.logging import LogFormat, render


def as_lines(faults: Iterable[Fault], log_format: LogFormat, *, valid: bool) -> list[str]:
    """Return the log lines of the reference, with more fields: one a finding, then the verdict."""
    if log_format == "color" and (os.environ.get("NO_COLOR") or not sys.stdout.isatty()):
        log_format = "text"
    lines = [render(log_format, fault.severity, "rules", fault.fields()) for fault in faults]
    if valid:
        lines.append(render(log_format, "info", "rules", {"result": "rules file valid"}))
    else:
        lines.append(render(log_format, "fatal", "rules", {"error": "invalid rules"}))
    return lines


def as_json(faults: Sequence[Fault], rules: int, *, valid: bool) -> str:
    """Return one JSON object: whether the rules are valid, how many there are, the findings."""
    document = {
        "valid": valid,
        "rules": rules,
        "errors": sum(fault.severity == "error" for fault in faults),
        "warnings": sum(fault.severity == "warning" for fault in faults),
        "findings": [_finding(fault) for fault in faults],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _finding(fault: Fault) -> dict[str, object]:
    place = fault.place
    return {
        "severity": fault.severity,
        "error": fault.error,
        "file": place.file if place else None,
        "line": place.line if place and place.line else None,
        "column": place.column if place and place.line else None,
        "rule": fault.rule or None,
        "action": fault.action or None,
        "actionner": fault.actionner or None,
        "output_target": fault.output_target or None,
        "key": fault.key or None,
        "found": fault.value or None,
        "allowed": list(fault.allowed),
        "nearest": fault.nearest or None,
    }


def as_annotations(faults: Iterable[Fault]) -> list[str]:
    """Return the workflow commands that mark the findings in the files of a pull request."""
    return [_annotation(fault) for fault in faults]


def _annotation(fault: Fault) -> str:
    properties = {}
    if fault.place:
        properties["file"] = fault.place.file
        if fault.place.line:
            properties["line"] = str(fault.place.line)
            properties["col"] = str(fault.place.column)
    properties["title"] = "Falco Talon rules" + (f": {fault.rule}" if fault.rule else "")
    listed = ",".join(f"{key}={_escaped(text, ':,')}" for key, text in properties.items())
    return f"::{fault.severity} {listed}::{_escaped(fault.sentence)}"


def _escaped(text: str, more: str = "") -> str:
    """Escape what would end the command, or the property."""
    for char in f"%\r\n{more}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text
