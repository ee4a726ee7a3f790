"""Dead letters as their reader sees them: listed, shown, put on the bus again, dropped."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg

from falco_talon.bus.buckets import reason
from falco_talon.bus.connection import Address, connect
from falco_talon.bus.dead import (
    ACCEPTED_HEADER,
    ATTEMPTS_HEADER,
    DEAD_STREAM,
    ERROR_HEADER,
    REASON_HEADER,
)
from falco_talon.bus.stream import STREAM
from falco_talon.config import Config
from falco_talon.errors import BusError, InvalidEventError
from falco_talon.event import Event

_FAULTS = (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. ``number`` is its sequence in the stream."""

    number: int
    subject: str
    data: bytes
    headers: Mapping[str, str]

    def summary(self) -> dict[str, str | int]:
        """Return what is said of it in a list."""
        rule, output = "", ""
        try:
            event = Event.from_message(self.data)
        except InvalidEventError:
            pass
        else:
            rule, output = event.rule, event.output
        return {
            "number": self.number,
            "accepted": self.headers.get(ACCEPTED_HEADER, ""),
            "reason": self.headers.get(REASON_HEADER, ""),
            "attempts": int(self.headers.get(ATTEMPTS_HEADER, "0")),
            "error": self.headers.get(ERROR_HEADER, ""),
            "rule": rule,
            "output": output,
        }

    def event(self) -> Any:
        """Return the event as plain data; as text if it is none."""
        try:
            return msgspec.to_builtins(Event.from_message(self.data))
        except InvalidEventError:
            return self.data.decode(errors="backslashreplace")


class Graveyard:
    """Works on the dead letters of one bus."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._jetstream = JetStreamContext(client)

    async def letters(self) -> AsyncIterator[Letter]:
        """Give every letter, oldest first.

        :raises BusError: if the bus does not answer.
        """
        number = 1
        while (found := await self._get(number, following=True)) is not None:
            yield found
            number = found.number + 1

    async def letter(self, number: int) -> Letter:
        """Return one letter.

        :raises BusError: if there is no such letter, or the bus does not answer.
        """
        found = await self._get(number) if number > 0 else None
        if found is None:
            raise BusError(f"there is no dead letter {number}: `talon events dead list` shows them")
        return found

    async def replay(self, number: int) -> None:
        """Put the event on the bus under an id of its own, then drop the letter.

        :raises BusError: if one of that fails; the letter is still there then.
        """
        letter = await self.letter(number)
        headers = {
            name: value
            for name, value in letter.headers.items()
            if not name.startswith(("Nats-", "Talon-"))
        }
        headers[Header.MSG_ID.value] = f"replay-{secrets.token_hex(16)}"
        subject = f"{STREAM}.{letter.subject.rpartition('.')[2]}"
        try:
            await self._jetstream.publish(subject, letter.data, headers=headers)
        except _FAULTS as error:
            raise BusError(f"dead letter {number} cannot be replayed: {reason(error)}") from None
        await self.drop(number)

    async def drop(self, number: int) -> None:
        """Delete the letter.

        :raises BusError: if that fails.
        """
        try:
            await self._jetstream.delete_msg(DEAD_STREAM, number)
        except _FAULTS as error:
            raise BusError(f"dead letter {number} cannot be dropped: {reason(error)}") from None

    async def _get(self, number: int, *, following: bool = False) -> Letter | None:
        subject = f"{DEAD_STREAM}.*" if following else None
        try:
            found: RawStreamMsg = await self._jetstream.get_msg(
                DEAD_STREAM, number, subject=subject, next=following
            )
        except nats.js.errors.NotFoundError:
            return None
        except _FAULTS as error:
            raise BusError(f"the dead letters cannot be read: {reason(error)}") from None
        return Letter(
            int(found.seq or 0), found.subject or "", found.data or b"", found.headers or {}
        )


@asynccontextmanager
async def open_graveyard(config: Config) -> AsyncIterator[Graveyard]:
    """Connect to the bus that the daemon of *config* uses.

    :raises BusError: if no daemon runs there, or it cannot be reached.
    """
    async with connect(_find(config)) as client:
        yield Graveyard(client)


def _find(config: Config) -> Address:
    """Return where the bus is: outside, or the embedded server of a running daemon."""
    if config.nats.url:
        return Address.external(config)
    path = config.nats.store_folder() / "connection.json"
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=dict[str, str | int])
        return Address(str(facts["url"]), str(facts["user"]), str(facts["password"]))
    except FileNotFoundError:
        raise BusError(
            f"no daemon runs on '{path.parent}' (nats.store_dir): start it, or name its "
            "configuration with -c"
        ) from None
    except PermissionError:
        raise BusError(f"'{path}' may only be read by the user of the daemon") from None
    except (OSError, msgspec.MsgspecError, KeyError) as error:
        raise BusError(f"'{path}' cannot be read: {error}") from None
