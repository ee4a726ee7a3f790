"""Writes together what gathers while a write is under way (a group commit)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")


class GroupCommit(Generic[_T]):
    """One write at a time, each of all that waits: under load the cost of a round trip is shared.

    *write* returns when its items are safe; it tries again by itself while the bus is away.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        write: Callable[[Sequence[_T]], Awaitable[None]],
        *,
        name: str,
    ) -> None:
        self._write = write
        self._waiting: list[tuple[_T, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._task = tasks.create_task(self._run(), name=name)

    async def __call__(self, item: _T) -> None:
        """Return when the item has been written. A caller that is cancelled takes nothing back."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, written))
        self._wake.set()
        await written

    def close(self) -> None:
        """Write no more."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            await self._write([item for item, _ in group])
            for _, written in group:
                if not written.done():
                    written.set_result(None)
