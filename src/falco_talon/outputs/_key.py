"""The name under which an artifact is stored, the same for files and for objects in a bucket."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from falco_talon.plugin import Artifact

_UNSAFE: Final = re.compile(r"[^\w.-]|(?<=\.)\.")
_WHENCE_BYTES: Final = 140
_NAME_BYTES: Final = 80


def object_key(artifact: Artifact) -> str:
    """Return ``<time>-<unique>_<whence>_<name>``, at most 255 bytes, which never repeats.

    The time is UTC; *whence* is namespace and pod, else the host, else the other objects. What
    comes from the event keeps its letters, digits, ``-``, ``_`` and single dots, nothing else.
    """
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    parts = [
        f"{time}-{uuid4().hex[:8]}",
        _cut(_safe("_".join(_whence(artifact.objects))), _WHENCE_BYTES),
        # The end of a path tells more than its beginning.
        _cut(_safe(artifact.name), _NAME_BYTES, keep_end=True),
    ]
    return "_".join(part for part in parts if part)


def _whence(objects: Mapping[str, str]) -> list[str]:
    namespace, pod = objects.get("namespace"), objects.get("pod")
    if namespace and pod:
        return [namespace, pod]
    if hostname := objects.get("hostname"):
        return [hostname]
    return [objects[key] for key in sorted(objects) if key != "file" and objects[key]]


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text)


def _cut(text: str, size: int, *, keep_end: bool = False) -> str:
    """Cut *text* to *size* bytes of UTF-8, never through a character."""
    data = text.encode()
    return (data[-size:] if keep_end else data[:size]).decode(errors="ignore")
