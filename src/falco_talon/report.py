"""The record of one step: what is logged, counted and told, with the reference's field names."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Status = Literal["in_progress", "success", "failure", "ignored"]


class Report(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One step of the handling of an event. Notifiers get it; ``to_json`` leaves out the empty.

    ``time`` is an RFC 3339 text in UTC; ``objects`` names what was worked on, keys in lower case
    (``pod``, ``namespace``, ``node``, …); ``event`` is the text of the event's output; ``attempt``
    is there, 2 or more, if earlier runs of the event were interrupted.
    """

    time: str = ""
    objects: Mapping[str, str] = {}
    trace_id: str = ""
    rule: str = ""
    event: str = ""
    message: str = ""
    priority: str = ""
    source: str = ""
    result: str = ""
    notifier: str = ""
    context: str = ""
    output: str = ""
    category: str = ""
    output_target: str = ""
    actionner: str = ""
    action: str = ""
    error: str = ""
    status: Status | Literal[""] = ""
    stage: str = ""
    attempt: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are not empty, in order."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    def to_json(self) -> bytes:
        """Encode the fields that are not empty, in order, as JSON."""
        return msgspec.json.encode(self)
