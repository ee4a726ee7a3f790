"""How many replicas must stay: ``min_healthy_replicas``, a number or a percentage."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

_FORM = re.compile(r"(\d{1,9})(%?)")


def enough_replicas(minimum: str, replica_set: dict[str, Any]) -> bool:
    """Whether *replica_set* has the *minimum* of ready replicas: ``"2"``, or ``"33%"`` of those
    that it should have.
    """
    ready = replica_set.get("status", {}).get("readyReplicas", 0)
    number, percent = _parse(minimum)
    if not percent:
        return bool(ready >= number)
    desired = replica_set["spec"].get("replicas", 1)
    return bool(ready * 100 >= number * desired)


def _parse(minimum: str) -> tuple[int, bool]:
    found = _FORM.fullmatch(minimum)
    if not found or (found[2] and int(found[1]) > 100):
        raise PydanticCustomError(
            "min_healthy_replicas",
            "'{value}' is neither a number of replicas nor a percentage from 0% to 100%",
            {"value": minimum},
        )
    return int(found[1]), bool(found[2])


def _check(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        value = value.strip()
        if value:
            _parse(value)
    return value


MinHealthyReplicas = Annotated[str, BeforeValidator(_check)]
"""A number (``"2"``), a percentage (``"33%"``), or nothing."""
