"""Which pods have left their node: by a watch, not by asking again and again."""

import asyncio
from collections.abc import Collection
from contextlib import aclosing, suppress
from typing import Final

from falco_talon.clients.kubernetes import Kubernetes, path
from falco_talon.errors import PluginError, TransientError

_PAUSE_SECONDS: Final = 1.0


class Departures:
    """The pods of *uids* that have left *node*. :meth:`follow` runs beside :meth:`wait_for`."""

    def __init__(self, kubernetes: Kubernetes, node: str, uids: Collection[str]) -> None:
        self.gone: set[str] = set()
        self.fault: PluginError | None = None
        """Why they cannot be followed."""
        self._kubernetes = kubernetes
        self._selector = f"spec.nodeName={node}"
        self._uids = frozenset(uids)
        self._changed = asyncio.Event()

    async def follow(self, version: str) -> None:
        """Follow the changes since resource *version*, until cancelled."""
        try:
            while True:
                try:
                    await self._watch(version)
                except PluginError as error:  # lost, or from before what the server remembers
                    if not isinstance(error, TransientError) and "(410 " not in str(error):
                        raise
                await asyncio.sleep(_PAUSE_SECONDS)
                version = await self._list() or version
        except PluginError as error:
            self.fault = error
            self._changed.set()

    async def wait_for(self, uids: Collection[str], seconds: float) -> None:
        """Wait until those of *uids* are gone, or *seconds* are over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                while not (self.gone.issuperset(uids) or self.fault):
                    self._changed.clear()
                    await self._changed.wait()

    async def _watch(self, version: str) -> None:
        changes = self._kubernetes.watch(
            path("pods"), fieldSelector=self._selector, resourceVersion=version
        )
        async with aclosing(changes):
            async for change in changes:
                if change["type"] == "DELETED":
                    self.gone.add(change["object"]["metadata"]["uid"])
                    self._changed.set()

    async def _list(self) -> str:
        """See what has left meanwhile, and return the resource version; empty if that failed."""
        try:
            found = await self._kubernetes.get(path("pods"), fieldSelector=self._selector)
        except TransientError:
            return ""
        self.gone |= self._uids - {pod["metadata"]["uid"] for pod in found["items"]}
        self._changed.set()
        return str(found["metadata"]["resourceVersion"])
