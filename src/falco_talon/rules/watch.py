"""Tells when rule files have changed, however they were: written, replaced, linked elsewhere.

What is watched is every folder on the way to the files, links followed, and any change in them: a
ConfigMap is swapped by renaming ``..data``, editors rename a new file over the old one. Whether the
rules are concerned is then seen from the files themselves, and now and then without any sign, for
file systems that give none.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from watchfiles import awatch

Signature = tuple[tuple[int, ...], ...]

_MAX_LINKS = 40
_DEBOUNCE_MS = 50
_MAX_WAITS = 20


class Watch:
    """Watches rule files.

    *changed* is awaited after each change, when the files have been quiet for *quiet_seconds*.
    Every *poll_seconds* the files are looked at, sign or not.
    """

    def __init__(
        self,
        files: Sequence[Path],
        changed: Callable[[], Awaitable[None]],
        *,
        quiet_seconds: float = 0.3,
        poll_seconds: float = 1.0,
    ) -> None:
        self._files = tuple(file.absolute() for file in files)
        self._changed = changed
        self._quiet_seconds = quiet_seconds
        self._poll_seconds = poll_seconds
        self._seen = self._signature()

    async def run(self) -> None:
        """Watch until cancelled. Changes since the making of the object count."""
        while True:
            folders = self._folders()
            async for _ in self._signs(folders):
                if self._signature() != self._seen:
                    self._seen = await self._quiet()
                    await self._changed()
                if self._folders() != folders:
                    break  # a link leads elsewhere now

    async def _signs(self, folders: frozenset[Path]) -> AsyncIterator[None]:
        """Yield when something in the folders changes, and every now and then."""
        try:
            async for _ in awatch(
                *folders,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                rust_timeout=int(self._poll_seconds * 1000),
                yield_on_timeout=True,
                recursive=False,
            ):
                yield
        except (OSError, RuntimeError):
            # No more inotify handles, or a folder went away: looking is enough.
            await asyncio.sleep(self._poll_seconds)
            yield

    async def _quiet(self) -> Signature:
        """Wait until the files stay as they are, but not forever; return how they are."""
        signature = self._signature()
        for _ in range(_MAX_WAITS):
            await asyncio.sleep(self._quiet_seconds)
            last, signature = signature, self._signature()
            if signature == last:
                break
        return signature

    def _signature(self) -> Signature:
        """Return what differs as soon as a file does; a file that is not there is empty."""
        return tuple(_state(file) for file in self._files)

    def _folders(self) -> frozenset[Path]:
        return frozenset(
            _existing(hop.parent) for file in self._files for hop in (file, *_links(file))
        )


def _state(file: Path) -> tuple[int, ...]:
    try:
        state = file.stat()
    except OSError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _links(file: Path) -> list[Path]:
    """Return where the links lead, hop by hop, those of the folders on the way too."""
    hops: list[Path] = []
    parts = list(file.parts[1:])
    here = Path(file.anchor)
    while parts and len(hops) < _MAX_LINKS:
        step = here / parts.pop(0)
        if step.is_symlink():
            target = Path(os.path.normpath(here / step.readlink()))
            hops += [step, target]
            parts = [*target.parts[1:], *parts]
            here = Path(target.anchor)
        else:
            here = step
    return [*hops, here]


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
