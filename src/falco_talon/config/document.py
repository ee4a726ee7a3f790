"""Read a configuration file into one plain tree, whatever its format.

In the tree, keys are lower-case (down to the level where they stop being ours), nulls are left out
and every scalar is text: the model converts it, as it does the text of an environment variable. So
``"2803"`` and ``2803`` are the same in every format, and no format has its own idea of ``yes``.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from falco_talon.errors import ConfigError

FORMATS = (".yaml", ".yml", ".json", ".toml")

_KEY_LEVELS = 3
"""``notifiers.slack.webhook_url``: below that, keys belong to the user (``custom_headers``)."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(
    _TAG + kind for kind in ("null", "str", "bool", "int", "float", "timestamp", "merge", "value")
)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file; ``lines`` gives the line of a key, counted from 1, where known."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_document(path: Path) -> Document:
    """Read the file; its extension tells the format.

    :raises ConfigError: if it cannot be read, is not well-formed, is no mapping, or holds a key
        twice. The text never quotes the content: it may be a secret.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{path}: unknown type of file '{path.suffix}', allowed: {', '.join(FORMATS)}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read: it is not UTF-8 text") from None
    reader = _Reader(str(path))
    try:
        root = _parse(text, path.suffix.lower(), str(path))
        values = reader.value(root, ())
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if values is None:
        values = {}
    elif not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of keys to values is expected at the top")
    if reader.faults:
        raise ConfigError("\n".join(reader.faults))
    return Document(str(path), values, reader.lines)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its duplicate keys."""


def _parse(text: str, suffix: str, name: str) -> Any:
    try:
        if suffix == ".json":
            return json.loads(text, object_pairs_hook=_Pairs) if text.strip() else None
        if suffix == ".toml":
            return tomllib.loads(text)
        return yaml.compose(text, Loader=_LOADER)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}: not well-formed: {error.msg}") from None
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line (\d+)", str(error))
        line = f":{where[1]}" if where else ""
        raise ConfigError(f"{name}{line}: not well-formed TOML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = re.sub(r"'([^']*)'", _hide_words, error.problem or "cannot be parsed")
        raise ConfigError(f"{name}{line}: not well-formed: {problem}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: not well-formed: a character is not allowed") from None


def _hide_words(quoted: re.Match[str]) -> str:
    """Hide what the parser quotes of the file; one character is its grammar."""
    return quoted[0] if len(quoted[1]) == 1 else "'…'"


class _Reader:
    """Turns what a parser made into the plain tree, and notes where the keys stand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self.faults: list[str] = []

    def value(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, yaml.Node):
            return self._node(value, path)
        if isinstance(value, _Pairs):
            return self._mapping(((key, item, 0) for key, item in value), path)
        if isinstance(value, dict):
            return self._mapping(((key, item, 0) for key, item in value.items()), path)
        if isinstance(value, list):
            items = (self.value(item, (*path, index)) for index, item in enumerate(value))
            return [item for item in items if item is not None]
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if value is None else str(value)

    def _node(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            own = self._mapping(self._own_pairs(node), path)
            return {**self._merged(node, path), **own}
        if isinstance(node, yaml.SequenceNode):
            return self.value(node.value, path)
        if node.tag not in _SCALARS:
            self._fault(path, node.start_mark.line + 1, "a YAML tag of that kind is not allowed")
        return None if node.tag == _TAG + "null" else str(node.value)

    def _own_pairs(self, node: yaml.MappingNode) -> Iterator[tuple[str, Any, int]]:
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                continue
            if isinstance(key, yaml.ScalarNode):
                yield key.value, value, key.start_mark.line + 1
            else:
                line = key.start_mark.line + 1
                self.faults.append(f"{self.name}:{line}: a key is one word, not a collection")

    def _merged(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Values of the ``<<`` keys; the first one that has a key wins, as YAML wants it."""
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag != _TAG + "merge":
                continue
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in sources:
                if isinstance(found := self.value(source, path), dict):
                    merged = {**found, **merged}
        return merged

    def _mapping(self, pairs: Iterable[tuple[str, Any, int]], path: KeyPath) -> dict[str, Any]:
        seen: set[str] = set()
        values: dict[str, Any] = {}
        for written, item, line in pairs:
            key = written.lower() if len(path) < _KEY_LEVELS else written
            here = (*path, key)
            if key in seen:
                self._fault(here, line, "stands here a second time")
                continue
            seen.add(key)
            if line:
                self.lines[here] = line
            if (value := self.value(item, here)) is not None:
                values[key] = value
        return values

    def _fault(self, path: KeyPath, line: int, text: str) -> None:
        where = f"{self.name}:{line}" if line else self.name
        self.faults.append(f"{where}: {'.'.join(map(str, path))}: {text}")
