"""Dead letters: accepted events that will not be worked on any more, kept with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, Header, RetentionPolicy, StorageType, StreamConfig

from falco_talon.bus.buckets import ensure, reason
from falco_talon.errors import BusUnavailableError

DEAD_STREAM: Final = "EVENTS_DEAD"
Reason = Literal["interrupted", "expired", "invalid"]

REASON_HEADER: Final = "Talon-Reason"
ATTEMPTS_HEADER: Final = "Talon-Attempts"
ERROR_HEADER: Final = "Talon-Last-Error"
ACCEPTED_HEADER: Final = "Talon-Accepted"

_MAX_BYTES = 256 * 1024**2
_MAX_ERROR = 512


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event, and why it is here. ``accepted`` is when it came in."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    key: str
    reason: Reason
    attempts: int
    error: str
    accepted: datetime


class DeadLetters:
    """The stream of dead letters. When it is full, the oldest go."""

    def __init__(self, client: Client, *, max_bytes: int = _MAX_BYTES, replicas: int = 1) -> None:
        self._jetstream = JetStreamContext(client)
        self._max_bytes = min(max_bytes, _MAX_BYTES)
        self._replicas = replicas

    async def open(self) -> None:
        """Create the stream, or bring it into shape.

        :raises BusError: if the server refuses it.
        """
        await ensure(
            self._jetstream,
            StreamConfig(
                name=DEAD_STREAM,
                description="Falco events that could not be worked on",
                subjects=[f"{DEAD_STREAM}.*"],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                discard=DiscardPolicy.OLD,
                max_bytes=self._max_bytes,
                num_replicas=self._replicas,
            ),
        )

    async def bury(self, letter: DeadLetter) -> int:
        """Keep the letter; a crash right after leads to no second one. Return its number.

        :raises BusUnavailableError: if the server did not confirm that it has it.
        """
        headers = {
            name: value for name, value in letter.headers.items() if not name.startswith("Nats-")
        } | {
            REASON_HEADER: letter.reason,
            ATTEMPTS_HEADER: str(letter.attempts),
            ACCEPTED_HEADER: letter.accepted.astimezone(UTC).isoformat(),
            Header.MSG_ID.value: letter.key,
        }
        if error := _one_line(letter.error):
            headers[ERROR_HEADER] = error
        try:
            stored = await self._jetstream.publish(
                f"{DEAD_STREAM}.{letter.subject.rpartition('.')[2]}", letter.data, headers=headers
            )
        except (nats.js.errors.APIError, nats.errors.Error, TimeoutError, OSError) as error:
            raise BusUnavailableError(
                f"the dead letter could not be stored: {reason(error)}"
            ) from None
        return int(stored.seq)


def _one_line(text: str) -> str:
    """Keep a header one header, whatever the text quotes."""
    return "".join(char if char.isprintable() else " " for char in text)[:_MAX_ERROR].strip()
