"""What the model says of its own keys: their paths, whether they are secret, what they allow."""

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the model that holds a value, not a section."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def dotted(self) -> str:
        """The key as messages name it: ``deduplication.time_window_seconds``."""
        return ".".join(self.path)

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown."""
        return SecretStr in _members(self.field.annotation)

    @property
    def is_list(self) -> bool:
        """Whether it holds a list, which may be written as text with commas."""
        return typing.get_origin(self.field.annotation) is tuple

    @property
    def allowed(self) -> str:
        """What may stand there, in words."""
        return _allowed(self.field)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a section, or None if the field holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[Key]:
    """Walk the model, in its order, down to the keys that hold values."""
    for name, field in model.model_fields.items():
        if section := section_of(field):
            yield from keys(section, (*above, name))
        elif not is_free(field):
            yield Key((*above, name), field)


def is_free(field: FieldInfo) -> bool:
    """Whether the field is a mapping whose keys the user names, as ``notifiers``."""
    return typing.get_origin(field.annotation) is Mapping


def find(model: type[BaseModel], path: tuple[str | int, ...]) -> Key | None:
    """Return the key that *path* leads to or through (the index of a list), if there is one."""
    for key in keys(model):
        if path[: len(key.path)] == key.path:
            return key
    return None


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return tuple(kind for kind in typing.get_args(annotation) if kind is not types.NoneType)
    return (annotation,)


def _allowed(field: FieldInfo) -> str:
    kind = _members(field.annotation)[0]
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["allowed"])
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list" + (" of paths" if Path in typing.get_args(kind) else " of names")
    if kind is bool:
        return "true or false"
    if kind is ByteSize:
        return "a size in bytes, or like 256MiB," + _range(field)
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _range(field)
    return "a path" if kind is Path else "text"


def _range(field: FieldInfo) -> str:
    words = ""
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=value):
                words += f" from {value}"
            case annotated_types.Gt(gt=value):
                words += f" above {value}"
            case annotated_types.Le(le=value):
                words += f" to {value}"
    return words + " up" if words and " to " not in words else words
