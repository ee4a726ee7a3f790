"""HTTP for the plugins: the shared session, one exchange, and what its outcome means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError

from falco_talon.errors import PluginError, TransientError

if TYPE_CHECKING:
    from aiohttp import ClientSession

# A rules check imports this file and sends nothing: what it costs to send is imported then.

SUCCESS = (200, 201, 202, 204)
"""The statuses by which a service says that it took what it was sent."""

_CONNECT_SECONDS = 5.0
_EXCHANGE_SECONDS = 10.0
_READING = ("GET", "HEAD", "OPTIONS")
_SHOWN = 256
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ANSWERS = {
    401: "authentication error",
    403: "access denied",
    404: "resource not found",
    422: "wrong request",
    429: "exceeding post rate limit",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request; ``truncated`` says that ``body`` was longer than asked for."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    truncated: bool = False

    @property
    def line(self) -> str:
        """Status and reason, as in ``503 Service Unavailable``."""
        return f"{self.status} {self.reason}".rstrip()

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status == 429 or self.status >= 500

    @property
    def retry_after(self) -> float | None:
        """Seconds that the service asks to wait, if it does."""
        return retry_after(self.headers)


def open_session(concurrency: int) -> "ClientSession":
    """Make the session that plugins share, inside the running loop.

    It connects within 5 s and ends a request after 10 s unless the request says otherwise.
    """
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        timeout=aiohttp.ClientTimeout(total=_EXCHANGE_SECONDS, sock_connect=_CONNECT_SECONDS),
        # One plugin's session must not show in another's requests.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "falco-talon"},
        trust_env=proxied(),
    )


def proxied() -> bool:
    """Whether the environment names a proxy. Without one aiohttp need not look at each request."""
    from urllib.request import getproxies

    return any(scheme != "no" for scheme in getproxies())


async def exchange(
    session: "ClientSession",
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    seconds: float = _EXCHANGE_SECONDS,
    limit: int = 4096,
) -> Reply:
    """Send one request, follow no redirect, and read up to *limit* bytes of the answer.

    :raises TransientError: if there is no connection, or it is reset.
    :raises PluginError: if there is no answer within *seconds*, unless the request only reads and
        can do no harm twice (``TransientError``), or if there never will be one. No text shows
        more of the URL than its host, since tokens live in paths and queries.
    """
    import aiohttp
    from yarl import URL

    # Shorter than the whole: a request that was never sent shall not look like one that was.
    connect_seconds = min(seconds / 2, _CONNECT_SECONDS)
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=connect_seconds)
    try:
        # As written: decoding and encoding it again would break the signed URLs of some services.
        target = URL(url, encoded=url.isascii())
        async with session.request(
            method, target, headers=headers, data=body, timeout=timeout, allow_redirects=False
        ) as response:
            data, truncated = await _read(response.content, limit)
            return Reply(response.status, response.reason or "", response.headers, data, truncated)
    except aiohttp.ConnectionTimeoutError:
        text = f"no connection to '{host(url)}' within {connect_seconds:g} s"
        raise TransientError(text) from None
    except TimeoutError:
        fault = TransientError if method in _READING else PluginError
        raise fault(f"no answer from '{host(url)}' within {seconds:g} s") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise PluginError(f"the certificate of '{host(url)}' is not trusted: {error}") from None
    except ValueError:  # a host that is no name of one
        raise PluginError("invalid url") from None
    except aiohttp.ClientResponseError:  # its text shows the whole URL
        raise TransientError(f"'{host(url)}' answered with something else than HTTP") from None
    except (aiohttp.ClientError, OSError) as error:
        raise TransientError(f"no answer from '{host(url)}': {reason(error)}") from None


def require_success(reply: Reply) -> None:
    """See that the service took what it was sent.

    :raises TransientError: for 429 and 5xx; :raises PluginError: for anything else not in
        :data:`SUCCESS`.
    """
    if reply.status in SUCCESS:
        return
    if reply.status == 400:
        shown = reply.body[:_SHOWN].decode(errors="replace")
        text = f"bad request: {printable(shown)}"
    else:
        text = _ANSWERS.get(reply.status, reply.line)
    if reply.transient:
        raise TransientError(text, retry_after=reply.retry_after)
    raise PluginError(text)


def host(url: str) -> str:
    """Return the host and port of *url*, which is all of it that may be shown."""
    return urlsplit(url).netloc.rpartition("@")[2]


def reason(error: BaseException) -> str:
    """Return the text of *error*, or what it is called when it has none."""
    return str(error) or type(error).__name__


def printable(text: str) -> str:
    """Return *text* with every control character as a space: it came from elsewhere."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a ``Retry-After`` header, given as a number or as a date."""
    from email.utils import parsedate_to_datetime

    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


async def _read(content: Any, limit: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            return bytes(body[:limit]), True
    return bytes(body), False


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        raise PydanticCustomError("url", "invalid url")
    return url


def _as_text(value: object) -> object:
    """Take the unquoted scalars of YAML for what is written there."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise PydanticCustomError("header", "'{name}' is no header name", {"name": name})
        text = value.get_secret_value()
        if not text.isprintable() and any(ord(char) < 32 and char != "\t" for char in text):
            raise PydanticCustomError(
                "header", "the value of header '{name}' holds a control character", {"name": name}
            )
    return headers


HttpUrl = Annotated[str, AfterValidator(_check_url)]
"""An ``http://`` or ``https://`` URL with a host, kept as it is written."""

Headers = Annotated[
    dict[str, Annotated[SecretStr, BeforeValidator(_as_text)]], AfterValidator(_check_headers)
]
"""Headers of a request. Their values may be credentials, so they are never shown."""
