"""What comes back from the API server: objects, lines of a watch, and what a refusal means."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from falco_talon.clients.http import Reply, printable, reason
from falco_talon.errors import PluginError, TransientError

if TYPE_CHECKING:
    from aiohttp import ClientResponse

Object = dict[str, Any]
"""An object of the API, as its JSON has it."""

_SHOWN = 1024
_LINE_BYTES = 16 * 1024 * 1024


class NotFound(PluginError):  # noqa: N818 - called as the API calls it
    """There is no such object (404), or its name is none that an object can have."""


class Conflict(PluginError):  # noqa: N818 - called as the API calls it
    """The object is not what the request says it is, or it exists already (409)."""


async def lines(response: "ClientResponse") -> AsyncIterator[bytes]:
    """Yield line by line. aiohttp's own lines end at 128 KiB; objects go up to some megabytes."""
    begun = bytearray()
    async for chunk in response.content.iter_any():
        begun += chunk
        if b"\n" in chunk:
            *lines, rest = bytes(begun).split(b"\n")
            begun = bytearray(rest)
            for line in lines:
                yield line
        elif len(begun) > _LINE_BYTES:
            raise PluginError(f"the Kubernetes API sent a line of more than {_LINE_BYTES} bytes")


def abandon(response: "ClientResponse") -> None:
    """Drop the connection of an answer that has not been read to its end, without farewell."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


@contextmanager
def faults() -> Iterator[None]:
    """Say what went wrong on the way to the server."""
    import aiohttp

    try:
        yield
    except TimeoutError:
        raise TransientError("the Kubernetes API did not answer in time") from None
    except aiohttp.WSServerHandshakeError:  # it did answer
        raise
    except aiohttp.ClientConnectorCertificateError as error:
        text = f"the certificate of the Kubernetes API is not trusted: {error}"
        raise PluginError(text) from None
    except ValueError:  # a host that is no name of one
        raise PluginError("the URL of the Kubernetes API is invalid") from None
    except (aiohttp.ClientError, OSError) as error:
        text = f"the Kubernetes API cannot be reached: {reason(error)}"
        raise TransientError(text) from None


def decode(answer: bytes) -> Object:
    """Return the object; raises PluginError if it is none."""
    try:
        document = msgspec.json.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise PluginError("the Kubernetes API answered with something else than a JSON object")
    return document


def refusal(reply: Reply) -> PluginError:
    """Return what the status of *reply* means, with the sentence the server gave."""
    try:
        status = decode(reply.body)
    except PluginError:
        status = {}
    given = status.get("reason") or reply.reason or _phrase(reply.status)
    line = f"{reply.status} {given}".rstrip()
    message = printable(str(status.get("message") or ""))[:_SHOWN]
    text = f"{message} ({line})" if message else f"the Kubernetes API answered {line}"
    if reply.status == 404:
        return NotFound(text)
    if reply.status == 409:
        return Conflict(text)
    if reply.transient or reply.status == 410:  # what was listed has changed: list it again
        return TransientError(text, retry_after=reply.retry_after)
    return PluginError(text)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
