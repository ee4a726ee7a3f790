"""The connection to nats-server: where it is, how to get in, and how to stay in."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import nats.errors
import structlog
from nats.aio.client import Client

from falco_talon.config import Config
from falco_talon.errors import BusError

log = structlog.get_logger()

_FAULTS_TOLD = 4
_CONNECT_TIMEOUT_SECONDS = 5.0
_ONCE_TIMEOUT_SECONDS = 2.0
_CLOSE_SECONDS = 1.0
_CREDENTIALS = (
    rb".*-+BEGIN NATS USER JWT-+\r?\n\S+\r?\n.*"
    rb"-+BEGIN USER NKEY SEED-+\r?\n(SU[A-Z2-7]{56})\r?\n.*"
)
"""A ``.creds`` file, as `nsc` writes it: the JWT of the user, then its seed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens (several, separated by commas), and how to get in."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    nkey_seed_file: Path | None = None
    credentials_file: Path | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def servers(self) -> tuple[str, ...]:
        """The URL of each server."""
        return tuple(self.url.split(","))

    @classmethod
    def external(cls, config: Config) -> Self:
        """Return where the NATS of ``nats.url`` is.

        :raises BusError: if a certificate, key or file with credentials cannot be used.
        """
        nats = config.nats
        return cls(
            ",".join(nats.url),
            nats.user,
            nats.password.get_secret_value(),
            nats.token.get_secret_value(),
            _with_seed("nkey_seed_file", nats.nkey_seed_file, rb"\s*(SU[A-Z2-7]{56})\s*"),
            _with_seed("credentials_file", nats.credentials_file, _CREDENTIALS),
            _tls(nats.ca_file, nats.cert_file, nats.key_file),
        )


def _with_seed(key: str, file: Path | None, layout: bytes) -> Path | None:
    """Return the file, which is read at each connection; see now that it is what it should be."""
    if file is None:
        return None
    import nkeys

    try:
        found = re.fullmatch(layout, file.read_bytes(), re.DOTALL)
        if found:
            nkeys.from_seed(bytearray(found[1])).wipe()
            return file
    except OSError as error:
        raise BusError(f"nats.{key} '{file}' cannot be read: {error.strerror}") from None
    except (nkeys.NkeysError, ValueError):
        pass  # what was found is not said: it is nearly a secret
    raise BusError(f"nats.{key} '{file}' does not hold the seed of a user as it should")


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
    faults: dict[str, None] = {}  # each once, and not for ever: it tries again and again

    async def on_error(error: Exception) -> None:
        text = str(error) or type(error).__name__
        if len(faults) < _FAULTS_TOLD:
            faults[text] = None
        log.debug("nats", error=text)

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
                    nkeys_seed=str(address.nkey_seed_file) if address.nkey_seed_file else None,
                    user_credentials=address.credentials_file,
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
            why = str(error) or "; ".join(faults)
            why = why or f"no answer within {_CONNECT_TIMEOUT_SECONDS:g} s"
            raise BusError(f"no connection to nats-server at {address.url}: {why}") from None
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def connect_once(
    url: str, seed: str, *, inbox: str, on_lost: Callable[[], None]
) -> AsyncIterator[Client]:
    """Connect to another replica's server; *on_lost* is called when that connection ends.

    *seed* is the nkey that signs for us; answers are awaited below the subject *inbox*.

    :raises BusError: if no connection can be made within 2 s.
    """
    client = Client()
    faults: list[str] = []
    connected = False

    async def on_error(error: Exception) -> None:
        faults.append(str(error) or type(error).__name__)

    async def on_close() -> None:
        if connected:
            on_lost()

    try:
        try:
            async with asyncio.timeout(_ONCE_TIMEOUT_SECONDS):
                await client.connect(
                    url,
                    name="falco-talon",
                    nkeys_seed_str=seed,
                    inbox_prefix=inbox,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    error_cb=on_error,
                    closed_cb=on_close,
                )
        except (OSError, nats.errors.Error, TimeoutError) as error:
            why = faults[-1] if faults else str(error) or "no answer"
            raise BusError(f"no connection to nats-server at {url}: {why}") from None
        except (AttributeError, AssertionError, LookupError, TypeError, ValueError) as error:
            # nats-py takes for granted that it talks to a nats-server.
            raise BusError(f"no nats-server at {url}: {type(error).__name__}") from None
        connected = True
        yield client
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close()
