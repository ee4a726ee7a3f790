"""What a rule file says → plain values, as the type of a parameter wants them.

YAML has its own idea of a scalar; where a text is wanted, the text as written is what counts.
"""

import types
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from falco_talon.rules.nodes import ListNode, MapNode, Node, Scalar, value_of

_TEXTS = (str, SecretStr, SecretBytes, bytes, Path, Enum)


def as_wanted(annotation: Any, node: Node) -> Any:
    """Return the value of the node for something annotated so.

    A scalar is its literal text where a text is wanted (``suspicious: true``, ``version: 1.50``),
    unless its own type will do as well; null is ``""`` there. A whole number may have a fraction
    of zero. All else is left as it is: whether it is right is for the validation to say.
    """
    wanted = tuple(_alternatives(annotation))
    if isinstance(node, ListNode):
        inner = next((get_args(kind)[0] for kind in wanted if _is_list(kind)), Any)
        return [value_of(item) if _is_null(item) else as_wanted(inner, item) for item in node]
    if isinstance(node, MapNode):
        return _map(wanted, node)
    value = value_of(node)
    if isinstance(value, str) or _fits(value, wanted):
        return value
    if isinstance(value, float) and int in wanted and value.is_integer():
        return int(value)
    if any(_is_text(kind, node) for kind in wanted):
        return "" if value is None else str(node)
    return value


def names_of(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the names under which pydantic takes the field."""
    alias = field.validation_alias or field.alias
    if isinstance(alias, AliasChoices):
        return tuple(choice for choice in alias.choices if isinstance(choice, str))
    return (alias if isinstance(alias, str) else name,)


def _map(wanted: tuple[Any, ...], node: MapNode) -> dict[str, Any]:
    for kind in wanted:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {
                accepted: field.annotation
                for name, field in kind.model_fields.items()
                for accepted in names_of(name, field)
            }
            return {str(key): as_wanted(fields.get(key, Any), item) for key, item in node.items()}
    inner = next((get_args(kind)[1] for kind in wanted if _is_map(kind)), Any)
    return {str(key): as_wanted(inner, item) for key, item in node.items()}


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Return the members of a union, without metadata."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Collection) and not _is_map(kind)


def _is_map(kind: Any) -> bool:
    origin = get_origin(kind)
    return len(get_args(kind)) > 1 and isinstance(origin, type) and issubclass(origin, Mapping)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.null


def _fits(value: Any, wanted: tuple[Any, ...]) -> bool:
    """Tell whether the value has one of the types as it is."""
    if type(value) in wanted or Any in wanted or (type(value) is int and float in wanted):
        return True
    return any(get_origin(kind) is Literal and _is_choice(value, kind) for kind in wanted)


def _is_choice(value: Any, literal: Any) -> bool:
    # 1 == True: the type must be the same as well.
    return any(type(choice) is type(value) and choice == value for choice in get_args(literal))


def _is_text(kind: Any, node: Scalar) -> bool:
    if get_origin(kind) is Literal:
        return str(node) in get_args(kind)
    return isinstance(kind, type) and issubclass(kind, _TEXTS)
