"""The small language of ``match``: priorities, tags and terms on output fields."""

import re

from msgspec import Struct

PRIORITIES = {
    "debug": 1,
    "informational": 2,
    "info": 2,
    "notice": 3,
    "warning": 4,
    "error": 5,
    "critical": 6,
    "alert": 7,
    "emergency": 8,
}
UNKNOWN_PRIORITY = 0
"""Level of an event whose priority has none of the names: below all of them."""

_PRIORITY = re.compile(r"(?P<comparator>[<>]?=?)(?P<name>[A-Za-z]+)")
_TAG = re.compile(r"[A-Za-z0-9_.:/@+-]+")
_KEY = re.compile(r" *(?P<key>(?:[A-Za-z0-9_.:/@()-]|\[[^\]]*\])+) *(?P<operator>!?=)")
_QUOTED = re.compile(r' *"(?P<value>(?:[^"]|"")*)" *(?=,|$)')
_BARE = re.compile(r"[^,]*")


class CriterionError(ValueError):
    """A criterion that cannot be read; ``part`` is the part that is wrong."""

    def __init__(self, reason: str, part: str) -> None:
        super().__init__(reason)
        self.part = part


class Term(Struct, frozen=True):
    """``key=value`` or ``key!=value``; ``quoted`` if the value was written in quotes."""

    key: str
    value: str
    negated: bool = False
    quoted: bool = False


def parse_priority(text: str) -> frozenset[int]:
    """Return the levels that ``[<|>][=]Priority`` accepts.

    :raises CriterionError: if it is no comparator and name.
    """
    found = _PRIORITY.fullmatch(text)
    level = PRIORITIES.get(found["name"].lower()) if found else None
    if found is None or level is None:
        raise CriterionError(
            "a comparator (<, <=, >, >=, =, none) and the name of a priority", text
        )
    comparator = found["comparator"]
    levels = range(UNKNOWN_PRIORITY, max(PRIORITIES.values()) + 1)
    return frozenset(
        other
        for other in levels
        if (other == level and (not comparator or "=" in comparator))
        or (other < level and "<" in comparator)
        or (other > level and ">" in comparator)
    )


def parse_tags(item: str) -> frozenset[str]:
    """Return the tags of an item, all of which an event must have. Spaces do not count.

    :raises CriterionError: for one that no tag of Falco can be.
    """
    tags = item.replace(" ", "").split(",")
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise CriterionError("letters, digits and _ . : / @ + -", tag)
    return frozenset(tags)


def parse_terms(item: str) -> tuple[Term, ...]:
    """Return the terms of an item, all of which must hold: ``key=value, key!="quoted, value"``.

    The first operator of a term counts. A value in quotes may hold commas, and ``""`` for a quote;
    any other value ends at the comma and is taken as it stands.

    :raises CriterionError: for a term that is none.
    """
    terms = []
    position = 0
    while True:
        key = _KEY.match(item, position)
        if key is None:
            raise CriterionError("key=value or key!=value", item[position:].strip(" "))
        quoted = _QUOTED.match(item, key.end())
        value = quoted or _BARE.match(item, key.end())
        assert value is not None  # noqa: S101 - _BARE matches everywhere
        text = quoted["value"].replace('""', '"') if quoted else value[0]
        if not quoted and text.lstrip(" ").startswith('"'):
            raise CriterionError("a quote closes at the end of the value", item[key.start() :])
        negated = key["operator"] == "!="
        terms.append(Term(key["key"], text, negated, quoted is not None))
        if value.end() == len(item):
            return tuple(terms)
        position = value.end() + 1
