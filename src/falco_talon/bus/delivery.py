"""One event that the bus handed over: counted, journalled, acknowledged, or given up."""

import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg

from falco_talon.bus.acknowledgements import Acknowledgements
from falco_talon.bus.dead import DeadLetter, DeadLetters, Reason
from falco_talon.bus.heritage import accepted_at, inherited
from falco_talon.bus.journal import Entry, Journal
from falco_talon.bus.locks import Locks
from falco_talon.bus.progress import Progress
from falco_talon.event import Event

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """Where it is written how far the events are, and when one is given up."""

    journal: Journal
    acknowledge: Acknowledgements
    dead: DeadLetters
    max_attempts: int
    retention_seconds: float
    locks: Locks | None = None
    """Only if other daemons take events from the same stream."""


class Delivery(Progress):
    """The progress of one event of the stream, kept in the journal."""

    def __init__(self, books: Bookkeeping, message: Msg, key: str) -> None:
        super().__init__()
        self.message = message
        """Its latest delivery: whatever is answered, is answered to this one."""
        self.event: Event | None = None
        self.ended = False
        self.unknown = False
        self._books = books
        self._key = key
        self._entry = Entry()
        self._unsaved = True

    async def recall(self) -> None:
        """Find what earlier runs did.

        :raises BusError: if that cannot be known now.
        """
        self._entry = await self._books.journal.entry(
            self._key, redelivered=self.message.metadata.num_delivered > 1
        )
        if self._entry == Entry():
            self._entry = inherited(self.message.headers or {})
        self._statuses = self._entry.statuses

    @property
    def accepted(self) -> float:
        """When the event was accepted, here or by another replica, in seconds since 1970."""
        stored_at = self.message.metadata.timestamp.timestamp()
        return accepted_at(self.message.headers or {}, stored_at)

    @property
    def exhausted(self) -> bool:
        """Whether it has been begun as often as it may."""
        return self._entry.attempts >= self._books.max_attempts

    def alone_with(self, target: tuple[str, str]) -> AbstractAsyncContextManager[None]:
        """Hold the target, if there are other daemons."""
        locks = self._books.locks
        return super().alone_with(target) if locks is None else locks(target)

    async def begin(self) -> bool:
        """Count this run. An event that is too old, or was begun too often, becomes a dead letter.

        :returns: false if it became one, or another daemon has done it meanwhile.
        """
        if self._books.locks is not None:
            # A new leader of the consumer may not know what the old one handed over, nor count
            # it: whether another daemon has done it, the stream alone knows.
            if not await self._books.acknowledge.pending(self):
                self.ended = True
                return False
            await self.recall()
        age = time.time() - self.accepted
        if age > self._books.retention_seconds:
            await self.bury("expired", f"its turn came after {age:.0f} s")
            return False
        if self.exhausted:
            await self.bury("interrupted", self._entry.error or "the daemon was killed")
            return False
        self._entry.attempts += 1
        self.attempt = self._entry.attempts
        return True

    def finished(self, rule: str, index: int, status: str) -> None:
        """Note how an action ended."""
        super().finished(rule, index, status)
        self._unsaved = True

    async def save(self) -> None:
        """Write the entry, if there is anything new in it."""
        if self._unsaved:
            self._unsaved = False
            await self._books.journal.save(self._key, self._entry)

    async def failed(self, error: str) -> None:
        """Note why this run was interrupted."""
        self._entry.error = error
        self._unsaved = True
        await self.save()

    async def end(self) -> None:
        """Take the event out of the stream; what the journal knows of it may go."""
        await self._books.acknowledge(self)
        self.ended = True
        self._books.journal.forget(self._key)

    async def bury(self, reason: Reason, error: str) -> None:
        """Make it a dead letter, then take it out of the stream.

        :raises BusUnavailableError: if it could not be kept.
        """
        message = self.message
        letter = DeadLetter(
            subject=message.subject,
            data=message.data,
            headers=message.headers or {},
            key=self._key,
            reason=reason,
            attempts=self._entry.attempts,
            error=error,
            accepted=datetime.fromtimestamp(self.accepted, UTC),
        )
        number = await self._books.dead.bury(letter)
        event = self.event or Event()
        log.error(
            "event",
            event=event.rule,
            output=event.output,
            trace_id=event.trace_id,
            error=f"given up, dead letter {number}: {reason}, {error}",
        )
        await self.end()
