"""What no action deletes, evicts or cuts off, whatever an event names: ``guard.protected``."""

import re
from collections.abc import Iterable
from typing import Final

OWN: Final = "@own"
"""Stands for the namespace that the daemon runs in."""

PROTECTED: Final = (
    "kube-system",
    "kube-public",
    "kube-node-lease",
    OWN,
    "namespaces/default",
    "clusterroles/*",
)
"""The default: this is the one list of it."""

_ENTRY = re.compile(
    rf"{OWN}|[a-z0-9]([-a-z0-9]{{0,61}}[a-z0-9])?|[a-z][-a-z0-9.]{{0,252}}/(\*|[A-Za-z0-9._:@-]{{1,253}})"
)


class Protected:
    """The objects that no disruptive actionner touches.

    An entry is a namespace (with everything that lives in it), :data:`OWN`, a single object
    (``namespaces/default``; the resource is the plural) or all of a resource (``clusterroles/*``).

    :raises ValueError: for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str] = PROTECTED) -> None:
        self._entries = frozenset(entries)
        for entry in self._entries:
            if not _ENTRY.fullmatch(entry):
                raise ValueError(
                    f"'{entry}' is neither a namespace, nor {OWN}, nor resource/name or resource/*"
                )

    def reason(
        self, own_namespace: str, *, resource: str, name: str = "", namespace: str = ""
    ) -> str:
        """Return why an object is protected, to follow its name in a sentence; or nothing.

        *own_namespace* is the one that we run in, empty outside of a cluster.
        """
        if f"{resource}/*" in self._entries:
            return f"is one of the {resource}, which are protected,"
        home = name if resource == "namespaces" else namespace
        if home and (home in self._entries or (home == own_namespace and OWN in self._entries)):
            inside = f"is in the protected namespace '{home}'"
            return "is protected" if resource == "namespaces" else inside
        return "is protected" if f"{resource}/{name}" in self._entries else ""
