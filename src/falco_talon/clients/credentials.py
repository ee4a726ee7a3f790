"""Who we are at a Kubernetes API server, renewed while we run."""

import asyncio
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from falco_talon.errors import TalonError

_TOKEN_FILE_SECONDS: Final = 60.0
_EXPIRY_MARGIN_SECONDS: Final = 60.0
_PLUGIN_SECONDS: Final = 60.0
_SHOWN: Final = 1024


class Credentials(Protocol):
    """What says who we are."""

    async def header(self, *, renew: bool = False) -> str | None:
        """Return the value of the ``Authorization`` header, if there is one.

        With *renew* the last one was refused: get another if possible.

        :raises TalonError: if it cannot be had; no text holds a secret.
        """


class FixedCredentials:
    """A header that never changes, or none: a client certificate then says who we are."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    async def header(self, *, renew: bool = False) -> str | None:
        """Return the header."""
        return self._header


def bearer(token: str) -> str:
    """Return the header that presents *token*.

    :raises TalonError: if it is none: what it is does not show.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise TalonError("the token is empty or holds characters that no token has")
    return f"Bearer {token}"


class TokenFile:
    """A token in a file that somebody else (the kubelet) renews: read again every minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = ""
        self._read_at = float("-inf")

    async def header(self, *, renew: bool = False) -> str | None:
        """Return the token; the last one if the file cannot be read just now."""
        if renew or time.monotonic() - self._read_at >= _TOKEN_FILE_SECONDS:
            try:
                text = await asyncio.to_thread(self._path.read_text)
            except (OSError, UnicodeDecodeError) as error:
                if not self._header:
                    reason = error.strerror if isinstance(error, OSError) else "it is no text"
                    raise TalonError(
                        f"the token file '{self._path}' cannot be read: {reason}"
                    ) from None
            else:
                self._header = bearer(text)
            self._read_at = time.monotonic()
        return self._header


class ExecPlugin:
    """A program that prints a token or a client certificate; run again when that expires."""

    def __init__(self, settings: dict[str, Any], tls: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._tls = tls
        self._running = asyncio.Lock()
        self._header: str | None = None
        self._ran = False
        self._expires: datetime | None = None

    async def header(self, *, renew: bool = False) -> str | None:
        """Return the token, if the program gives tokens; its certificates are put to use."""
        before = self._header
        async with self._running:
            # Of many requests refused at once, the first to come here renews for all.
            if not self._ran or self._expired() or (renew and self._header == before):
                await self._run()
        return self._header

    def _expired(self) -> bool:
        if self._expires is None:
            return False
        return (self._expires - datetime.now(UTC)).total_seconds() < _EXPIRY_MARGIN_SECONDS

    async def _run(self) -> None:
        status = await self._status()
        token = status.get("token")
        self._header = bearer(str(token)) if token else None
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        if certificate and key and self._tls:
            pair = (str(certificate).encode(), str(key).encode())
            try:
                await asyncio.to_thread(load_client_certificate, self._tls, *pair)
            except ssl.SSLError:
                raise TalonError("the exec plugin printed an unusable certificate") from None
        elif not token:
            raise TalonError("the exec plugin printed neither a token nor a client certificate")
        self._expires = _time(status.get("expirationTimestamp"))
        self._ran = True

    async def _status(self) -> dict[str, Any]:
        config = await asyncio.to_thread(_import_sdk)
        try:
            node = config.kube_config.ConfigNode("exec", self._settings)
            async with asyncio.timeout(_PLUGIN_SECONDS):
                status = await config.exec_provider.ExecProvider(node).run()
        except TimeoutError:
            raise TalonError(f"the exec plugin did not end in {_PLUGIN_SECONDS:g} s") from None
        except config.ConfigException as error:
            raise TalonError(" ".join(str(error).split())[:_SHOWN]) from None
        except (LookupError, TypeError, ValueError):
            raise TalonError("the exec plugin is set up wrongly or printed no text") from None
        except OSError as error:
            name = self._settings.get("command")
            raise TalonError(f"the exec plugin '{name}' does not start: {error.strerror}") from None
        if not isinstance(status, dict):
            raise TalonError("the exec plugin printed no status")
        return status


def load_client_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Present this client certificate (both PEM) from now on.

    :raises ssl.SSLError: if they are no certificate and its key.
    """
    # OpenSSL takes them from files only; these are ours (0700) and gone at once.
    with TemporaryDirectory(prefix="falco-talon-") as folder:
        certificate_file, key_file = Path(folder, "certificate"), Path(folder, "key")
        certificate_file.write_bytes(certificate)
        key_file.write_bytes(key)
        tls.load_cert_chain(certificate_file, key_file)


def _import_sdk() -> Any:
    import kubernetes_asyncio.config.exec_provider
    import kubernetes_asyncio.config.kube_config

    return kubernetes_asyncio.config


def _time(value: object) -> datetime | None:
    if not value:
        return None
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise TalonError(f"the exec plugin printed '{value}' for a time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
