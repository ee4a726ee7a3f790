"""The bus as a whole: the server, the connection, and what is kept there."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from falco_talon.bus.acknowledgements import Acknowledgements
from falco_talon.bus.connection import Address, connect
from falco_talon.bus.consumer import Consumer, Handler
from falco_talon.bus.dead import DeadLetters
from falco_talon.bus.delivery import Bookkeeping
from falco_talon.bus.duplicates import Duplicates
from falco_talon.bus.journal import Journal
from falco_talon.bus.locks import Locks
from falco_talon.bus.server import EmbeddedServer
from falco_talon.bus.stream import Stream
from falco_talon.config import Config

_EVENTS_IN_HAND = 1000
_SHARED_IN_HAND = 100
"""Fewer, so that the others get their share, and less waits for a daemon that died."""
_MESSAGE_OVERHEAD_BYTES = 64 * 1024


class Bus:
    """Events go in by ``stream``; :meth:`consume` hands them over. For ``async with``."""

    def __init__(self, config: Config, tasks: asyncio.TaskGroup) -> None:
        self._config = config
        self._tasks = tasks
        self._stack = AsyncExitStack()
        self._consumer: Consumer | None = None
        self._shared = bool(config.nats.url)
        self._server: EmbeddedServer | None = None

    @property
    def fault(self) -> str:
        """Why no events can be accepted or handed over now; empty if they can."""
        if not self.stream.connected:
            return "not connected to nats-server"
        return self._server.fault if self._server else ""

    @property
    def consuming(self) -> bool:
        """Whether events are being handed over."""
        return self._consumer is not None and self._consumer.running

    async def __aenter__(self) -> Self:
        """Bring everything up, but hand nothing over yet.

        :raises BusError: if that is not possible.
        """
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        config, tasks, nats = self._config, self._tasks, self._config.nats
        client = self._client = await stack.enter_async_context(connect(await self._address(stack)))
        window = config.deduplication.time_window_seconds
        duplicates = Duplicates(client, window_seconds=window, replicas=nats.replicas)
        self.stream = Stream(
            client,
            config.deduplication.key,
            duplicates,
            window_seconds=window,
            max_bytes=nats.max_bytes,
            replicas=nats.replicas,
            fault=lambda: self._server.fault if self._server else "",
        )
        journal = Journal(client, tasks, shared=self._shared, replicas=nats.replicas)
        stack.callback(journal.close)
        acknowledge = Acknowledgements(client, tasks, duplicates)
        stack.callback(acknowledge.close)
        dead = DeadLetters(client, max_bytes=nats.max_bytes, replicas=nats.replicas)
        locks = Locks(client, replicas=nats.replicas) if self._shared else None
        for part in (self.stream, duplicates, journal, dead, locks):
            if part is not None:
                await part.open()
        self._books = Bookkeeping(
            journal,
            acknowledge,
            dead,
            max_attempts=config.engine.max_attempts,
            retention_seconds=nats.retention_seconds,
            locks=locks,
        )

    async def _address(self, stack: AsyncExitStack) -> Address:
        """Return where NATS is: outside, or in a server of our own that is started now."""
        if self._shared:
            return Address.external(self._config)
        self._server = embedded_server(self._config, self._tasks)
        return (await stack.enter_async_context(self._server)).address

    async def consume(self, handle: Handler) -> None:
        """Begin to hand events over.

        :raises BusError: if the server refuses.
        """
        self._consumer = Consumer(
            self._client,
            self._tasks,
            handle,
            self._books,
            max_in_flight=_SHARED_IN_HAND if self._shared else _EVENTS_IN_HAND,
            shared=self._shared,
        )
        await self._consumer.start()

    async def stop(self, grace_seconds: float) -> None:
        """Hand nothing over any more; what runs has *grace_seconds* to end."""
        if self._consumer is not None:
            await self._consumer.stop(grace_seconds)


def embedded_server(config: Config, tasks: asyncio.TaskGroup) -> EmbeddedServer:
    """Return the nats-server of the configuration, not started."""
    return EmbeddedServer(
        tasks,
        config.nats.store_folder(),
        binary=str(config.nats.server) if config.nats.server else None,
        max_payload_bytes=config.max_body_bytes + _MESSAGE_OVERHEAD_BYTES,
        always_sync=config.nats.sync == "always",
    )
