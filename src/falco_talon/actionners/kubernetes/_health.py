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
    ready, needed = _replicas(minimum, replica_set)
    return ready >= needed


def spare_replicas(minimum: str, replica_set: dict[str, Any]) -> int:
    """How many pods *replica_set* can lose, one after the other, each while it has the *minimum*.

    As with :func:`enough_replicas`, the last one that goes may take it below.
    """
    ready, needed = _replicas(minimum, replica_set)
    return max(0, ready - needed + 1)


def _replicas(minimum: str, replica_set: dict[str, Any]) -> tuple[int, int]:
    """Return how many are ready, and how many must be."""
    ready = int(replica_set.get("status", {}).get("readyReplicas", 0))
    number, percent = _parse(minimum)
    desired = int(replica_set["spec"].get("replicas", 1))
    return ready, -(-number * desired // 100) if percent else number


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
