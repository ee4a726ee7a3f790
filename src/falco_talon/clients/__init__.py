"""What the plugins talk through: one place that opens, shares and closes every client."""

import asyncio
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from falco_talon.errors import PluginError, TalonError
from falco_talon.protected import PROTECTED, Protected

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from falco_talon.clients.kubernetes import Kubernetes
    from falco_talon.config import Config

_CONNECTIONS_PER_ACTION: Final = 4
"""Beside a stream that lasts (exec, watch) an action makes short requests: none may wait for it."""


class Clients:
    """The clients, each opened when something that runs needs it.

    Making one costs nothing and touches neither the network nor a file, so that rules can be
    bound and checked offline. :meth:`ready` opens, :meth:`close` (or leaving ``async with``)
    closes; both belong to the same running loop.

    ``kubeconfig`` is the path of a kubeconfig file; without it the service account of the pod is
    used. ``concurrency`` says how many actions run at once, and so bounds the connections.
    ``protected`` lists what disruptive actionners spare, as ``guard.protected`` does.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | Path | None = None,
        concurrency: int = 32,
        protected: Iterable[str] = PROTECTED,
    ) -> None:
        self.protected = Protected(protected)
        self._kubeconfig = Path(kubeconfig) if kubeconfig else None
        self._concurrency = concurrency
        self._opening = asyncio.Lock()
        self._errors: dict[str, TalonError] = {}
        self._http: ClientSession | None = None
        self._kubernetes: Kubernetes | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def kubernetes(self) -> "Kubernetes":
        """The Kubernetes API.

        :raises PluginError: if it is not ready, with the reason if opening it failed.
        """
        if self._kubernetes is None:
            raise self._not_ready("kubernetes")
        return self._kubernetes

    @property
    def http(self) -> "ClientSession":
        """The pool of HTTP connections that every plugin shares; it keeps no cookies.

        :raises PluginError: if it is not ready.
        """
        if self._http is None:
            raise self._not_ready("http")
        return self._http

    async def ready(self, names: Iterable[str]) -> None:
        """Open those of *names* (``http``, ``kubernetes``) that are not open yet.

        Opening reads files and imports libraries; it makes no request, so that a daemon starts
        while the other side is down. A client that failed is tried again by the next call.

        :raises TalonError: if one cannot be opened, in one line; the others are open then.
        """
        async with self._opening:
            failed: TalonError | None = None
            for name in sorted(set(names)):
                try:
                    await self._open(name)
                except TalonError as error:
                    self._errors[name] = error
                    failed = failed or error
                else:
                    self._errors.pop(name, None)
            if failed:
                raise failed

    async def close(self) -> None:
        """Close what is open. Safe to call twice."""
        http, self._http = self._http, None
        kubernetes, self._kubernetes = self._kubernetes, None
        if http is not None:
            await http.close()
        if kubernetes is not None:
            await kubernetes.close()

    async def _open(self, name: str) -> None:
        if name == "http":
            if self._http is None:
                self._http = await _open_http(self._concurrency)
        elif name == "kubernetes":
            if self._kubernetes is None:
                self._kubernetes = await _open_kubernetes(self._kubeconfig, self._concurrency)
        else:
            raise TalonError(f"unknown client '{name}': there are 'http' and 'kubernetes'")

    def _not_ready(self, name: str) -> PluginError:
        error = self._errors.get(name)
        return PluginError(str(error) if error else f"the client '{name}' is not ready")


def open_clients(config: "Config") -> Clients:
    """Return the clients for *config*, for ``async with``; each opens when it is needed."""
    return Clients(
        kubeconfig=config.kubeconfig,
        concurrency=config.engine.concurrency,
        protected=config.guard.protected,
    )


# A rules check makes Clients and never opens them: importing aiohttp would be most of its time.


async def _open_http(concurrency: int) -> "ClientSession":
    from falco_talon.clients.http import open_session

    return open_session(concurrency)


async def _open_kubernetes(kubeconfig: Path | None, concurrency: int) -> "Kubernetes":
    # The SDK brings hundreds of models along: half a second, which the loop need not wait for.
    await asyncio.to_thread(importlib.import_module, "falco_talon.clients.access")
    from falco_talon.clients.access import open_access
    from falco_talon.clients.kubernetes import Kubernetes

    access = await open_access(kubeconfig, connections=_CONNECTIONS_PER_ACTION * concurrency)
    return Kubernetes(access)
