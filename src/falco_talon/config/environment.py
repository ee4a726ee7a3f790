"""Environment variables over the file: ``FALCO_TALON_<KEY>``, and the reference's bare names."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from falco_talon.config.document import KeyPath
from falco_talon.config.fields import keys

PREFIX = "FALCO_TALON_"

_NEW_SECTIONS = ("engine", "nats")
_NEW_KEYS = (
    "publish_unmatched",
    "max_body_bytes",
    "shutdown_grace_seconds",
    "deduplication.key",
)
"""Keys that the reference does not have: they have no variable without the prefix."""

_SERVICE_LINK = ("tcp://", "udp://", "sctp://")
"""Kubernetes sets ``<SERVICE>_PORT=tcp://…`` for every Service: never a port of ours."""


def variable_names(path: Iterable[str]) -> tuple[str, ...]:
    """Return the variables of a key, the one that wins first."""
    path = tuple(path)
    name = "_".join(path).upper().replace("-", "_")
    if path[0] in _NEW_SECTIONS or ".".join(path) in _NEW_KEYS:
        return (PREFIX + name,)
    return (PREFIX + name, name)


def overlay(
    model: type[BaseModel],
    values: dict[str, Any],
    environ: Mapping[str, str],
    notifiers: Mapping[str, Iterable[str]],
) -> dict[KeyPath, str]:
    """Put the values of variables into *values*; return which variable set which key.

    The names come from walking the model, so a variable that is no key's is nobody's fault. An
    empty variable counts as unset.
    """
    variables: dict[KeyPath, str] = {}
    for path in _paths(model, values, notifiers):
        name = _first_set(variable_names(path), environ)
        if name and _set(values, path, environ[name]):
            variables[path] = name
    return variables


def _paths(
    model: type[BaseModel], values: Mapping[str, Any], notifiers: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, ...]]:
    yield from (key.path for key in keys(model))
    settings = {(name, setting): None for name in notifiers for setting in notifiers[name]}
    sections = values.get("notifiers")
    for name, section in sections.items() if isinstance(sections, dict) else ():
        if isinstance(section, dict):
            settings.update({(name, setting): None for setting in section})
    yield from (("notifiers", *path) for path in settings)


def _first_set(names: Iterable[str], environ: Mapping[str, str]) -> str:
    for name in names:
        value = environ.get(name, "")
        if value and not (name.endswith("_PORT") and value.startswith(_SERVICE_LINK)):
            return name
    return ""


def _set(values: dict[str, Any], path: tuple[str, ...], value: str) -> bool:
    """Set the value; not below a key whose value is no section (that is a fault of the file)."""
    for name in path[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            return False
    values[path[-1]] = value
    return True
