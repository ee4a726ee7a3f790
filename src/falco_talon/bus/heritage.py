"""What an event brings along from the replica that handed it over: its age, and what was done."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import msgspec

from falco_talon.bus.journal import Entry

_ACCEPTED: Final = "Talon-Accepted-At"
_JOURNAL: Final = "Talon-Journal"


def bequeath(headers: Mapping[str, str], stored_at: float, entry: Entry) -> dict[str, str]:
    """Return the headers with what the other replica has to know.

    *stored_at*, in seconds since 1970, is when the event came into our stream.
    """
    known = {_ACCEPTED: f"{accepted_at(headers, stored_at):.6f}"}
    if entry != Entry():
        known[_JOURNAL] = base64.b64encode(msgspec.json.encode(entry)).decode()
    return {**headers, **known}


def accepted_at(headers: Mapping[str, str], stored_at: float) -> float:
    """Return when the event was accepted, here or elsewhere; by clocks, so never in the future."""
    try:
        return min(float(headers.get(_ACCEPTED, stored_at)), stored_at)
    except ValueError:
        return stored_at


def inherited(headers: Mapping[str, str]) -> Entry:
    """Return what was done elsewhere: nothing, as a rule."""
    try:
        return msgspec.json.decode(
            base64.b64decode(headers.get(_JOURNAL, "e30="), validate=True), type=Entry
        )
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return Entry()
