"""What a rule file holds, as plain text, list and dict that know where they stand.

A :class:`Scalar` keeps its literal text, so that a parameter which is a string gets ``012`` or
``true`` as it was written; :func:`value_of` tells what the text means where the type is free.
"""

import re
from typing import Any, Self, TypeAlias

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_WORDS = {
    **dict.fromkeys(_NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_MAYBE_NUMBER = frozenset("0123456789+-.")
_INTEGER = re.compile(
    r"[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|0|[1-9]\d*)",
    re.ASCII,
)
_FLOAT = re.compile(r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?", re.ASCII)


class Scalar(str):
    """A scalar: its text, where it stands (lines and columns from 1), and whether it is plain.

    The text of a plain scalar may mean a number, a boolean or null; any other is just text.
    """

    __slots__ = ("column", "file", "line", "plain")

    file: str
    line: int
    column: int
    plain: bool

    def __new__(
        cls, text: str, file: str = "", line: int = 0, column: int = 0, *, plain: bool = False
    ) -> Self:
        self = super().__new__(cls, text)
        self.file, self.line, self.column, self.plain = file, line, column, plain
        return self

    @property
    def null(self) -> bool:
        """Whether it means nothing at all."""
        return self.plain and self in _NULLS


class ListNode(list["Node"]):
    """A sequence, and where it starts."""

    __slots__ = ("column", "file", "line")

    def __init__(self, file: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__()
        self.file, self.line, self.column = file, line, column


class MapNode(dict[Scalar, "Node"]):
    """A mapping, and where it starts; its keys know their own place."""

    __slots__ = ("column", "file", "line")

    def __init__(self, file: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__()
        self.file, self.line, self.column = file, line, column

    def find(self, key: str) -> "Node | None":
        """Return what stands under the key, if it is there."""
        return self.get(key)  # type: ignore[call-overload,no-any-return] # texts, all of them


Node: TypeAlias = Scalar | ListNode | MapNode

NOTHING = Scalar("")
"""What stands for a text that was not given."""


def is_null(node: Node) -> bool:
    """Tell whether the node is an explicit or implicit null."""
    return isinstance(node, Scalar) and node.null


def kind_of(node: Node) -> str:
    """Name the kind of the node for a message: ``a list``, ``a map``, ``null``, ``a string``…"""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    value = value_of(node)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return "a string" if isinstance(value, str) else "a number"


def value_of(node: Node) -> Any:
    """Return what the node means: text, int, float, bool, None, lists and dicts of them.

    Plain scalars are read as the reference does, which is YAML 1.2 with the octals (``012``) and
    underscores (``1_000``) of 1.1; ``yes``, ``12:30`` and dates are text.
    """
    if isinstance(node, Scalar):
        return _scalar_value(node) if node.plain else str(node)
    if isinstance(node, ListNode):
        return [value_of(item) for item in node]
    return {str(key): value_of(item) for key, item in node.items()}


def _scalar_value(scalar: Scalar) -> Any:
    text = str(scalar)
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _MAYBE_NUMBER:
        return text
    digits = text.replace("_", "") if text[0] != "." else text
    if number := _INTEGER.fullmatch(digits):
        sign = -1 if digits[0] == "-" else 1
        for group, base in (("hex", 16), ("bin", 2), ("oct", 8)):
            if number[group]:
                return sign * int(number[group], base)
        return int(digits)
    return float(digits) if _FLOAT.fullmatch(digits) else text
