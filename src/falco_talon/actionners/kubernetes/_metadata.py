"""What ``kubernetes:label`` and ``kubernetes:annotation`` share: one patch of the metadata."""

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.clients.kubernetes import NotFound, Object, path
from falco_talon.event import Event
from falco_talon.plugin import PolicyRule

_KEY: Final = re.compile(
    r"((?=[^/]{1,253}/)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class MetadataActionner(PodActionner, abstract=True):
    """Sets or removes entries of the metadata, with one merge patch and ``null`` to remove."""

    source = ("syscalls", "k8s_audit")
    permissions = (
        PolicyRule(("pods",), ("get", "patch")),
        PolicyRule(("nodes",), ("patch",)),
    )

    def needs(self, known: Mapping[str, Collection[str]]) -> tuple[PolicyRule, ...]:
        """Return the permissions for the level that is changed."""
        if self.parameters.level == "node":
            return PolicyRule(("pods",), ("get",)), PolicyRule(("nodes",), ("patch",))
        return (PolicyRule(("pods",), ("patch",)),)

    async def set_metadata(
        self, event: Event, field: str, entries: dict[str, str], level: Literal["pod", "node"]
    ) -> tuple[str, dict[str, str]]:
        """Set *entries* in ``metadata.<field>``; an empty value removes its key.

        Return what was changed, in words, and its objects.
        """
        pod = Pod.of(event)
        patch: Object = {
            "metadata": {field: {key: value or None for key, value in entries.items()}}
        }
        if level == "pod":
            try:
                await self.patch(pod.path, patch)
            except NotFound:
                raise pod.missing() from None
            return str(pod), pod.objects
        node = await self.node(pod)
        await self.patch(path("nodes", node), patch)
        return f"the node '{node}'", {"node": node}


def check_key(key: str) -> str:
    """See that *key* is one for a label or an annotation.

    :raises PydanticCustomError: if the API would refuse it.
    """
    if not _KEY.fullmatch(key):
        raise PydanticCustomError(
            "key",
            "'{key}' is no key: [prefix/]name, the name of 1 to 63 letters, digits, -_.",
            {"key": key},
        )
    return key


def check_label_value(value: str) -> str:
    """See that *value* is one for a label.

    :raises PydanticCustomError: if the API would refuse it.
    """
    if not _LABEL_VALUE.fullmatch(value):
        raise PydanticCustomError(
            "value", "'{value}' is no label value: up to 63 letters, digits, -_.", {"value": value}
        )
    return value


def _as_text(value: object) -> object:
    """Take the unquoted scalars of YAML for what is written there; null removes."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_as_text)]
"""A value of a label or an annotation: text, or an unquoted scalar."""
