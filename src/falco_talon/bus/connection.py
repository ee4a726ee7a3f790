"""The connection to nats-server: where it is, how to get in, and how to stay in."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import nats.errors
import structlog
from nats.aio.client import Client

from falco_talon.config import Config
from falco_talon.errors import BusError

log = structlog.get_logger()

_CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens (several, separated by commas), and how to get in."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def servers(self) -> tuple[str, ...]:
        """The URL of each server."""
        return tuple(self.url.split(","))

    @classmethod
    def external(cls, config: Config) -> Self:
        """Return where the NATS of ``nats.url`` is.

        :raises BusError: if a certificate or key cannot be used.
        """
        nats = config.nats
        return cls(
            ",".join(nats.url),
            nats.user,
            nats.password.get_secret_value(),
            nats.token.get_secret_value(),
            _tls(nats.ca_file, nats.cert_file, nats.key_file),
        )


def _tls(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> ssl.SSLContext | None:
    """Return what to trust and who we are; none if nothing is said: the URL decides then."""
    if ca_file is None and cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (ca_file, cert_file, key_file) if path)
        raise BusError(f"TLS to NATS cannot be set up ({files}): {error}") from None
    return context


@asynccontextmanager
async def connect(address: Address) -> AsyncIterator[Client]:
    """Connect to the server at *address*, for ever: a lost connection is made anew.

    :raises BusError: if the first connection cannot be made.
    """
    client = Client()

    async def on_error(error: Exception) -> None:
        log.debug("nats", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats", result="the connection to nats-server is lost, making it anew")

    async def on_reconnect() -> None:
        log.info("nats", result="connected to nats-server again")

    try:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
                await client.connect(
                    list(address.servers),
                    name="falco-talon",
                    user=address.user or None,
                    password=address.password or None,
                    token=address.token or None,
                    tls=address.tls,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type] # it sleeps that long
                    ping_interval=10,
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=on_reconnect,
                )
        except (OSError, nats.errors.Error, TimeoutError) as error:
            why = str(error) or f"no answer within {_CONNECT_TIMEOUT_SECONDS:g} s"
            raise BusError(f"no connection to nats-server at {address.url}: {why}") from None
        yield client
    finally:
        await client.close()
