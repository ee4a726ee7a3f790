"""The bus as a whole: the server, the connection, and what is kept there."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from falco_talon.bus.acknowledgements import Acknowledgements
from falco_talon.bus.connection import Address, connect
from falco_talon.bus.consumer import Consumer, Handler
from falco_talon.bus.dead import DeadLetters
from falco_talon.bus.delivery import Bookkeeping
from falco_talon.bus.duplicates import Duplicates
from falco_talon.bus.handover import HandOver
from falco_talon.bus.journal import Journal
from falco_talon.bus.link import Link
from falco_talon.bus.locks import Locks
from falco_talon.bus.peers import Peers
from falco_talon.bus.server import EmbeddedServer
from falco_talon.bus.stream import Stream
from falco_talon.config import Config
from falco_talon.errors import BusError

log = structlog.get_logger()

_EVENTS_IN_HAND = 1000
_SHARED_IN_HAND = 100
"""Fewer, so that the others get their share, and less waits for a daemon that died."""
_MESSAGE_OVERHEAD_BYTES = 64 * 1024
_HEIR_SECONDS = 5.0
_HEIR_POLL_SECONDS = 0.2
_HAND_OVER_SECONDS = 10.0


class Bus:
    """Events go in by ``stream``; :meth:`consume` hands them over. For ``async with``.

    With *peers*, the other replicas' events may come to the own stream, and ours go to theirs.
    """

    def __init__(
        self, config: Config, tasks: asyncio.TaskGroup, peers: Peers | None = None
    ) -> None:
        self._config = config
        self._tasks = tasks
        self._stack = AsyncExitStack()
        self._consumer: Consumer | None = None
        self._shared = bool(config.nats.url)
        self._server: EmbeddedServer | None = None
        self._peers = peers
        self._link = Link(peers) if peers else None

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
            leader=self._link,
        )
        journal = self._journal = Journal(
            client, tasks, shared=self._shared, replicas=nats.replicas
        )
        stack.callback(journal.close)
        if self._link is not None:
            linking = tasks.create_task(self._link.run(), name="leader")
            stack.callback(linking.cancel)
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
        self._server = embedded_server(self._config, self._tasks, self._peers)
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

    def follow(self, leader: str) -> None:
        """Put events on the stream of the replica at *leader* (``host:port``); empty: on ours."""
        if self._link is not None:
            self._link.follow(leader)

    async def close_to_peers(self) -> None:
        """Take no more events from other replicas, which put them on their own streams then."""
        if self._link is not None:
            try:
                await self.stream.close()
            except BusError as error:
                log.warning("nats", error=str(error))

    async def stop(self, grace_seconds: float) -> None:
        """Hand nothing over any more; what runs has *grace_seconds* to end."""
        if self._consumer is not None:
            await self._consumer.stop(grace_seconds)

    async def hand_over(self, heir: Callable[[], Awaitable[str]]) -> None:
        """Give the events that nobody has worked on to the replica that *heir* names.

        It is asked until it names one (``host:port``) that can be reached, for 5 s. What nobody
        takes stays in our stream on disk, and is worked on when we are back.
        """
        if self._link is None:
            return
        window = self._config.deduplication.time_window_seconds
        work = HandOver(self._client, self._link, self._journal, window_seconds=window)
        try:
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                waiting = await work.waiting()
                if waiting and await self._reached(heir):
                    given = await work.run()
                    waiting -= given
                    log.info("nats", result=f"{given} event(s) handed over to the leader")
        except (BusError, TimeoutError) as error:
            log.warning("nats", error=f"not all events could be handed over: {error}".rstrip(": "))
        else:
            if waiting:
                log.warning("nats", result=f"{waiting} event(s) stay on disk until we are back")

    async def _reached(self, heir: Callable[[], Awaitable[str]]) -> bool:
        """Be connected with the one that *heir* names, soon; false if there is none."""
        if self._link is None:
            return False
        clock = asyncio.get_running_loop().time
        deadline = clock() + _HEIR_SECONDS
        while clock() < deadline:
            self._link.follow(await heir())
            await asyncio.sleep(_HEIR_POLL_SECONDS)
            if self._link.usable:
                return True
        return False


def embedded_server(
    config: Config, tasks: asyncio.TaskGroup, peers: Peers | None = None
) -> EmbeddedServer:
    """Return the nats-server of the configuration, not started."""
    return EmbeddedServer(
        tasks,
        config.nats.store_folder(),
        binary=str(config.nats.server) if config.nats.server else None,
        max_payload_bytes=config.max_body_bytes + _MESSAGE_OVERHEAD_BYTES,
        always_sync=config.nats.sync == "always",
        peers=peers,
    )
