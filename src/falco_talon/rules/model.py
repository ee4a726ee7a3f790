"""Rules, actions and what may be wrong with them: frozen records that know where they stand.

They are Structs, not dataclasses: a check of a hundred rules is done before a dozen of those is
even defined.
"""

import re
from typing import Literal, Self

import msgspec
from msgspec import Struct, field

from falco_talon.errors import TalonError
from falco_talon.rules.nodes import NOTHING, MapNode, Node, Scalar

Severity = Literal["error", "warning"]

MAX_TIMEOUT_SECONDS = 86400
_DURATION = re.compile(r"((?:0|[1-9]\d{0,8})(?:\.\d{1,9})?)([smh]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Place(Struct, frozen=True, order=True):
    """A spot in a rule file; line and column count from 1, 0 is the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    @classmethod
    def of(cls, node: Node) -> Self | None:
        """Return where the node stands, if it stands in a file."""
        return cls(node.file, node.line, node.column) if node.file else None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Fault(Struct, frozen=True):
    """One finding about the rules.

    ``error`` is one sentence, that of the reference where it has one; ``value`` what was found
    (never of a secret), ``allowed`` what may stand there, ``nearest`` what was probably meant.
    """

    error: str
    severity: Severity = "error"
    place: Place | None = None
    rule: str = ""
    action: str = ""
    actionner: str = ""
    output_target: str = ""
    key: str = ""
    value: str = ""
    allowed: tuple[str, ...] = ()
    nearest: str = ""

    def as_error(self) -> "Fault":
        """Return the same finding, as one that stops the load."""
        return msgspec.structs.replace(self, severity="error")

    def fields(self) -> dict[str, str]:
        """Return it as the fields of a log line, under the names that the reference has."""
        fields = {
            "error" if self.severity == "error" else "warning": self.error,
            "rule": self.rule,
            "action": self.action,
            "actionner": self.actionner,
            "output_target": self.output_target,
            "place": str(self.place or ""),
            "key": self.key,
            "found": self.value,
            "allowed": ", ".join(self.allowed),
            "nearest": self.nearest,
        }
        return {name: str(text) for name, text in fields.items() if text}

    def __str__(self) -> str:
        """Return it in one line: place and sentence."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence

    @property
    def sentence(self) -> str:
        """What is wrong, what was found, what is allowed, what was probably meant."""
        parts = [self.error]
        if self.value:
            parts.append(f"found '{self.value}'")
        if self.allowed:
            parts.append(f"allowed: {', '.join(self.allowed)}")
        if self.nearest:
            parts.append(f"did you mean '{self.nearest}'?")
        return ", ".join(parts)


class RulesError(TalonError):
    """The rules cannot be used; ``faults`` holds every finding of every file, warnings too."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        errors = [fault for fault in faults if fault.severity == "error"]
        lines = ("invalid rules", *(str(fault) for fault in errors))
        super().__init__("\n".join(lines))
        self.faults = faults


class OutputRef(Struct, frozen=True):
    """Where an action stores what it brings back; no target, no output."""

    target: Scalar = NOTHING
    parameters: MapNode = field(default_factory=MapNode)


class Action(Struct, frozen=True):
    """An action of a rule, or an action block: the same keys. Texts not given are empty.

    ``continue_`` and ``ignore_errors`` are the texts of the file; :func:`flag` reads them, and
    :func:`seconds` reads ``timeout``.
    """

    name: Scalar
    description: Scalar = NOTHING
    actionner: Scalar = NOTHING
    parameters: MapNode = field(default_factory=MapNode)
    continue_: Scalar = NOTHING
    ignore_errors: Scalar = NOTHING
    timeout: Scalar = NOTHING
    contexts: tuple[Scalar, ...] = ()
    output: OutputRef = OutputRef()
    place: Place | None = None


class Match(Struct, frozen=True):
    """The criteria of a rule; all of those given must hold. See :mod:`falco_talon.rules.match`."""

    rules: tuple[Scalar, ...] = ()
    output_fields: tuple[Scalar, ...] = ()
    tags: tuple[Scalar, ...] = ()
    priority: Scalar = NOTHING
    source: Scalar = NOTHING

    @property
    def empty(self) -> bool:
        """Whether there is no criterion at all: every event matches."""
        lists = self.rules or self.output_fields or self.tags
        return not (lists or self.priority or self.source)


class Rule(Struct, frozen=True):
    """A rule, as one file has it or as merged from all of them. Texts not given are empty."""

    name: Scalar
    description: Scalar = NOTHING
    continue_: Scalar = NOTHING
    dry_run: Scalar = NOTHING
    match: Match = Match()
    actions: tuple[Action, ...] = ()
    notifiers: tuple[Scalar, ...] = ()
    place: Place | None = None


class RuleSet(Struct, frozen=True):
    """The merged rules, in order, and every finding about them, errors and warnings."""

    rules: tuple[Rule, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether there is no error among the findings."""
        return all(fault.severity != "error" for fault in self.faults)

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """The findings that do not stop the load."""
        return tuple(fault for fault in self.faults if fault.severity == "warning")


def flag(text: str) -> bool | None:
    """Return what a flag of a rule or action says; None if it is not given (or wrong)."""
    return {"true": True, "false": False}.get(text)


def seconds(text: str) -> float | None:
    """Return the seconds of a duration (``90``, ``1.5s``, ``5m``, ``1h``).

    None if it is not given, is none, or is not more than 0 and at most a day.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    value = float(found[1]) * _UNITS[found[2]]
    return value if 0 < value <= MAX_TIMEOUT_SECONDS else None
