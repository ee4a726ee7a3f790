"""The parameters of a rule's action → the validated parameters of a plugin."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from falco_talon.rules.blocks import nearest
from falco_talon.rules.conversion import as_wanted, names_of
from falco_talon.rules.model import Fault, Place
from falco_talon.rules.nodes import ListNode, MapNode, Node, Scalar, is_null, kind_of

_OWN_WORDS = frozenset(("value_error", "assertion_error"))
_PYDANTICS = frozenset(get_args(ErrorType))
"""Errors of pydantic; the plugin has words of its own for any other."""
_SHOWN = 64
"""Characters of a wrong value that are shown."""


def decode(model: type[BaseModel], given: MapNode) -> tuple[BaseModel | None, list[Fault]]:
    """Return the parameters, None if they are wrong, and the faults (errors and warnings).

    Names of parameters match whatever their case; null is as if not given. Types are strict, but
    a scalar where a text is wanted counts by its literal text (``suspicious: true``), and a whole
    number may have a fraction of zero. The values of secrets are in no fault.
    """
    faults: list[Fault] = []
    names = {accepted.lower(): accepted for accepted, _ in _fields(model)}
    nodes: dict[str, Node] = {}
    for key, node in given.items():
        name = names.get(key.lower())
        if name is None:
            faults.append(_unknown(key, names))
        elif name in nodes:
            faults.append(
                Fault(f"the parameter '{key}' is given twice", place=Place.of(key), key=key)
            )
        elif not is_null(node):
            nodes[name] = node
    types = {accepted: field.annotation for accepted, field in _fields(model)}
    values = {name: as_wanted(types[name], node) for name, node in nodes.items()}
    try:
        # As JSON, which knows no other types than YAML, and strictly: nothing is guessed.
        return model.model_validate_json(json.dumps(values), strict=True), faults
    except ValidationError as error:
        secrets = _secrets(model)
        where = Place.of(given)
        faults += [
            _fault(item, nodes, model, secrets, where)
            for item in error.errors(include_url=False, include_input=False)
        ]
        return None, faults


def _path(error: ErrorDetails, nodes: Mapping[str, Node]) -> Iterator[Any]:
    """Return the keys and indexes of the error's place that exist in the file.

    pydantic also names the members of a union, and the fields that are missing.
    """
    node: Any = nodes
    for part in error["loc"]:
        in_map = isinstance(node, Mapping) and part in node
        if in_map or (isinstance(node, ListNode) and part in range(len(node))):
            node = node[part]
            yield part


def _fault(
    error: ErrorDetails,
    nodes: Mapping[str, Node],
    model: type[BaseModel],
    secrets: frozenset[str],
    where: Place | None,
) -> Fault:
    """Say what pydantic found, in our words and with our place."""
    path = tuple(_path(error, nodes))
    key = ".".join(str(part) for part in path) or ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        missing = ".".join(str(part) for part in error["loc"])
        return Fault(f"missing parameter '{missing}'", place=where, key=missing)
    node: Any = nodes
    for part in path:
        node = node[part]
    secret = bool(path) and path[0] in secrets
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if secret and isinstance(node, Scalar) and node:
        message = message.replace(node, "…")
    place = (Place.of(node) if path else where) or where
    if error["type"] in _OWN_WORDS or error["type"] not in _PYDANTICS:
        named = not path or f"'{path[0]}'" in message
        text = message if named else f"wrong parameter '{key}': {message}"
        return Fault(text, place=place, key=key, value=_shown(node, secret=secret))
    return Fault(
        f"wrong parameter '{key}'",
        place=place,
        key=key,
        value=_shown(node, secret=secret),
        allowed=(message.removeprefix("Input should be "),),
        nearest=_nearest_choice(error, node) if not secret else "",
    )


def _shown(node: Any, *, secret: bool) -> str:
    if isinstance(node, Scalar) and not node.null:
        if secret:
            return ""
        return str(node) if len(node) <= _SHOWN else f"{node[:_SHOWN]}…"
    return kind_of(node) if isinstance(node, Scalar | ListNode | MapNode) else ""


def _nearest_choice(error: ErrorDetails, node: Any) -> str:
    choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    return nearest(node, choices) if isinstance(node, Scalar) else ""


def _unknown(key: Scalar, names: Mapping[str, str]) -> Fault:
    known = tuple(dict.fromkeys(names.values()))
    return Fault(
        f"unknown parameter '{key}'",
        "warning",
        Place.of(key),
        key=key,
        allowed=known or ("none",),
        nearest=nearest(key, known),
    )


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Return the fields, under each of the names that pydantic takes."""
    for name, field in model.model_fields.items():
        for accepted in names_of(name, field):
            yield accepted, field


def _secrets(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the parameters that hold a secret."""
    return frozenset(
        accepted for accepted, field in _fields(model) if _holds_secret(field.annotation)
    )


def _holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes):
        return True
    if get_origin(annotation) is Literal:
        return False
    return any(_holds_secret(inner) for inner in get_args(annotation))
