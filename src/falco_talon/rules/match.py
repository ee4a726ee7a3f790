"""Which rules an event matches. Pure; compiled once, so that it costs little per event.

Rules that name Falco rules are found by that name: the cost does not grow with the others.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from falco_talon.event import Event
from falco_talon.rules.criteria import (
    PRIORITIES,
    UNKNOWN_PRIORITY,
    Term,
    parse_priority,
    parse_tags,
    parse_terms,
)
from falco_talon.rules.model import Rule


class Matcher:
    """The criteria of all rules.

    :raises CriterionError: at making, for criteria that :func:`load` would have refused.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._criteria = [_Criteria(rule) for rule in rules]
        self._by_name: dict[str, list[int]] = {}
        self._of_any_name: list[int] = []
        for index, rule in enumerate(rules):
            for name in dict.fromkeys(str(name) for name in rule.match.rules):
                self._by_name.setdefault(name, []).append(index)
            if not rule.match.rules:
                self._of_any_name.append(index)

    def matching(self, event: Event) -> list[int]:
        """Return the indexes of the rules that the event matches, in the order of the rules."""
        return list(self._matching(event))

    def any(self, event: Event) -> bool:
        """Tell whether any rule matches."""
        return next(self._matching(event), None) is not None

    def _matching(self, event: Event) -> Iterator[int]:
        named = self._by_name.get(event.rule)
        if named is None:
            candidates: Iterable[int] = self._of_any_name
        elif not self._of_any_name:
            candidates = named
        else:
            candidates = sorted((*named, *self._of_any_name))
        if not candidates:
            return
        level = PRIORITIES.get(event.priority.lower(), UNKNOWN_PRIORITY)
        tags = frozenset(tag for tag in event.tags or () if isinstance(tag, str))
        fields = event.output_fields or {}
        for index in candidates:
            if self._criteria[index].hold(event.source, level, tags, fields):
                yield index


class _Criteria:
    """What a rule asks of an event, beside the name of the Falco rule."""

    __slots__ = ("levels", "source", "tags", "terms")

    def __init__(self, rule: Rule) -> None:
        match = rule.match
        self.source = str(match.source)
        self.levels = parse_priority(match.priority) if match.priority else None
        self.tags = tuple(dict.fromkeys(parse_tags(item) for item in match.tags))
        self.terms = tuple(dict.fromkeys(parse_terms(item) for item in match.output_fields))

    def hold(self, source: str, level: int, tags: frozenset[str], fields: dict[str, Any]) -> bool:
        if self.source and self.source != source:
            return False
        if self.levels is not None and level not in self.levels:
            return False
        if self.tags and not any(wanted <= tags for wanted in self.tags):
            return False
        return not self.terms or any(_hold(item, fields) for item in self.terms)


def _hold(terms: tuple[Term, ...], fields: dict[str, Any]) -> bool:
    for term in terms:
        if term.key not in fields:
            if not term.negated:
                return False
            continue
        value = fields[term.key]
        text = value if type(value) is str else as_text(value)
        if (text == term.value) is term.negated:
            return False
    return True


def as_text(value: Any) -> str:
    """Return what a term compares with: the text of an output field.

    Integers are as written; other numbers have their shortest digits, with an exponent from 1e6
    on and below 1e-4; null, lists and objects look as in Go (``<nil>``, ``[a b]``, ``map[k:v]``).
    """
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, dict):
        items = (f"{key}:{as_text(value[key])}" for key in sorted(value))
        return f"map[{' '.join(items)}]"
    if isinstance(value, list):
        return f"[{' '.join(as_text(item) for item in value)}]"
    return str(value)


_EXPONENT_FROM = 1e6
_EXPONENT_BELOW = 1e-4


def _float_text(number: float) -> str:
    if number == 0 or _EXPONENT_BELOW <= abs(number) < _EXPONENT_FROM:
        return repr(number).removesuffix(".0")
    digits, _, exponent = repr(number).partition("e")
    if not exponent:
        digits, _, exponent = format(number, f".{_precision(number)}e").partition("e")
    return f"{digits.removesuffix('.0')}e{exponent}"


def _precision(number: float) -> int:
    """Return how many digits stand after the first in the shortest text of the number."""
    digits = repr(abs(number)).replace(".", "").strip("0")
    return max(len(digits) - 1, 0)
