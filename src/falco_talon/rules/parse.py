"""YAML text → nodes, at the speed of libyaml: its events, joined to nodes that keep their place."""

import base64
import binascii
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from falco_talon.rules.nodes import ListNode, MapNode, Node, Scalar

_MAX_DEPTH = 100
_MAX_NODES = 5_000_000
"""Nodes of a file, those that aliases repeat counted each time."""

_TAG = "tag:yaml.org,2002:"
_RESOLVED_TAGS = frozenset(_TAG + name for name in ("null", "bool", "int", "float"))


class WrongSyntaxError(ValueError):
    """The text is no YAML that can be read; ``line`` and ``column`` count from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(problem)
        self.line = line
        self.column = column


def parse(data: bytes, file: str) -> list[Node]:
    """Return the root of every document of the text; *file* is the name that the nodes bear.

    :raises WrongSyntaxError: for what is not well-formed, a key that stands twice, an alias that
        names nothing, and nesting or repetition beyond all measure.
    """
    try:
        with _no_garbage_collection():
            return list(_Composer(yaml.CBaseLoader(data), file).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise WrongSyntaxError(problem, line, column) from None
    except yaml.reader.ReaderError as error:
        before = data[: error.position]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise WrongSyntaxError(str(error.reason), line, column) from None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector from walking through ten thousands of young nodes again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Composer:
    def __init__(self, parser: yaml.CBaseLoader, file: str) -> None:
        self._next = parser.get_event
        self._file = file
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0

    def documents(self) -> Iterator[Node]:
        while type(event := self._next()) is not StreamEndEvent:
            if type(event) is DocumentStartEvent:
                self._anchors = {}
                yield self._node(self._next(), 0)

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event)
        if kind is AliasEvent:
            return self._alias(event)
        if depth > _MAX_DEPTH:
            _fail(event, f"nested more than {_MAX_DEPTH} levels deep")
        first = self._nodes
        self._nodes += 1
        node: Node
        if kind is ScalarEvent:
            node = self._scalar(event)
        elif kind is SequenceStartEvent:
            node = self._list(event, depth)
        else:
            node = self._map(event, depth)
        if event.anchor is not None:
            # Only now: a node cannot hold itself.
            self._anchors[event.anchor] = (node, self._nodes - first)
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            _fail(event, f"unknown anchor '{event.anchor}'")
        node, size = self._anchors[event.anchor]
        self._nodes += size
        if self._nodes > _MAX_NODES:
            _fail(event, "too many repetitions by aliases")
        return node

    def _scalar(self, event: Any) -> Scalar:
        mark, tag, text = event.start_mark, event.tag, event.value
        plain = event.implicit[0] and not event.style
        if tag is not None and tag != "!":
            plain = tag in _RESOLVED_TAGS
            if tag == _TAG + "binary":
                text = _decoded(event)
        return Scalar(text, self._file, mark.line + 1, mark.column + 1, plain=plain)

    def _list(self, event: Any, depth: int) -> ListNode:
        mark = event.start_mark
        items = ListNode(self._file, mark.line + 1, mark.column + 1)
        while type(event := self._next()) is not SequenceEndEvent:
            items.append(self._node(event, depth + 1))
        return items

    def _map(self, event: Any, depth: int) -> MapNode:
        mark = event.start_mark
        fields = MapNode(self._file, mark.line + 1, mark.column + 1)
        inherited: list[MapNode] | None = None
        while type(event := self._next()) is not MappingEndEvent:
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                _fail(event, "a key must be a word, not a list or a map")
            merges = key == "<<" and key.plain
            if key in fields or (merges and inherited is not None):
                _fail(event, f"the key '{key}' stands here a second time")
            value = self._node(event := self._next(), depth + 1)
            if merges:
                inherited = _merged(event, value)
            else:
                fields[key] = value
        for source in inherited or ():
            for name, item in source.items():
                fields.setdefault(name, item)
        return fields


def _merged(event: Any, value: Node) -> list[MapNode]:
    sources: list[MapNode] = []
    for source in value if isinstance(value, ListNode) else (value,):
        if not isinstance(source, MapNode):
            _fail(event, "'<<' takes a map or a list of maps")
        sources.append(source)
    return sources


def _decoded(event: Any) -> str:
    try:
        return base64.b64decode("".join(event.value.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return _fail(event, "a !!binary that is no base64 of text")


def _fail(event: Any, problem: str) -> NoReturn:
    mark = event.start_mark
    raise WrongSyntaxError(problem, mark.line + 1, mark.column + 1)
