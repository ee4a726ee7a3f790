"""The way to the stream of the leader: kept open, tried again, given up for our own in time."""

import asyncio
from collections.abc import Mapping

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck

from falco_talon.bus.buckets import reason
from falco_talon.bus.connection import connect_once
from falco_talon.bus.peers import PEER_INBOX, Peers
from falco_talon.errors import BusError

log = structlog.get_logger()

_ANSWER_SECONDS = 1.0
_PING_SECONDS = 2.0
_REST_SECONDS = 5.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 2.0
_LOG_EVERY_SECONDS = 60.0
_REFUSALS = (
    nats.js.errors.NoStreamResponseError,  # closed, because it stops
    nats.js.errors.APIError,  # full
    nats.errors.MaxPayloadError,
)


class Link:
    """Publishes to the replica that :meth:`follow` names, as long as that one answers.

    A leader that is away costs the sender of an event nothing, one that falls silent a second,
    once: after that :meth:`publish` refuses at once, until the leader has answered again.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._where = ""
        self._usable: Client | None = None
        self._distrusted_until = float("-inf")
        self._wake = asyncio.Event()
        self._waiting: set[asyncio.Timeout] = set()
        self._logged: tuple[str, float] = ("", float("-inf"))

    @property
    def usable(self) -> bool:
        """Whether events can go to the replica that is followed."""
        return self._usable is not None

    def follow(self, where: str) -> None:
        """Publish to the replica at *where* (``host:port``) from now on; empty: to none."""
        if where != self._where:
            self._where = where
            self._usable = None
            self._distrusted_until = float("-inf")
            self._wake.set()

    async def run(self) -> None:
        """Keep the connection up, for ever."""
        retry = _FIRST_RETRY_SECONDS
        while True:
            self._wake.clear()
            where = self._where
            if not where:
                await self._wake.wait()
                continue
            try:
                await self._stay_with(where)
                retry = _FIRST_RETRY_SECONDS
            except BusError as error:
                self._say(where, str(error))
            if where != self._where:
                retry = _FIRST_RETRY_SECONDS
                continue
            self._wake.clear()
            await self._sleep(retry)
            retry = min(2 * retry, _LAST_RETRY_SECONDS)

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str], *, seconds: float | None = None
    ) -> PubAck | None:
        """Store a message in the leader's stream.

        :returns: none if that cannot be done, or nobody answered within *seconds* (1 by default):
            it may have been stored all the same then.
        """
        client = self._usable
        if client is None:
            return None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS if seconds is None else seconds) as limit:
                self._waiting.add(limit)
                try:
                    return await JetStreamContext(client).publish(
                        subject, data, headers=dict(headers), timeout=_REST_SECONDS
                    )
                finally:
                    self._waiting.discard(limit)
        except _REFUSALS as error:
            self._say(self._where, f"it does not take the event: {reason(error)}")
        except (nats.errors.Error, TimeoutError, OSError) as error:
            self._give_up(client, error)
        return None

    def _give_up(self, client: Client, error: BaseException) -> None:
        """Have the connection looked at before it is used again; not at once, if it is there."""
        if self._usable is client:
            self._usable = None
            if client.is_connected:
                self._distrusted_until = asyncio.get_running_loop().time() + _REST_SECONDS
            self._say(self._where, f"it does not answer: {reason(error)}")
            self._wake.set()

    async def _stay_with(self, where: str) -> None:
        """Be connected with the replica at *where*, until it is lost or another is followed.

        :raises BusError: if there is no connection to be had.
        """
        url, seed = self._peers.url(where), self._peers.seed
        async with connect_once(url, seed, inbox=PEER_INBOX, on_lost=self._lost) as client:
            answered = False
            try:
                while where == self._where and await self._answers(client):
                    answered = True
                    self._trust(client, where)
                    await self._sleep(_PING_SECONDS)
            finally:
                self._lost()
        if not answered and where == self._where:
            raise BusError("no answer")

    def _trust(self, client: Client, where: str) -> None:
        if where != self._where or self._usable is not None:
            return
        if self._distrusted_until <= asyncio.get_running_loop().time():
            self._usable = client
            self._logged = ("", float("-inf"))
            log.info("nats", result=f"events go to the stream of the leader at {where}")

    async def _answers(self, client: Client) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await client.flush()
        except (nats.errors.Error, TimeoutError, OSError):
            return False
        return client.is_connected

    def _lost(self) -> None:
        """Let nobody wait for an answer that cannot come any more."""
        self._usable = None
        now = asyncio.get_running_loop().time()
        for limit in self._waiting:
            if not limit.expired():
                limit.reschedule(now)
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """Sleep until something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _say(self, where: str, error: str) -> None:
        """Say what is wrong with the leader when it changes, and once a minute."""
        now = asyncio.get_running_loop().time()
        text, at = self._logged
        if where != text or now - at >= _LOG_EVERY_SECONDS:
            self._logged = (where, now)
            log.warning(
                "nats", error=f"events go to our own stream, not to the leader at {where}: {error}"
            )
