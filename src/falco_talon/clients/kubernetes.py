"""The Kubernetes API in raw JSON: dictionaries in and out, over connections that are kept."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec

from falco_talon.clients.http import Reply, printable, reason
from falco_talon.errors import PluginError, TalonError, TransientError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientTimeout, ClientWebSocketResponse
    from yarl import URL

    from falco_talon.clients.access import Access

Object = dict[str, Any]
"""An object of the API, as its JSON has it."""

Query = Sequence[tuple[str, str]]
"""Names and values, unescaped; a name may come twice."""

MERGE_PATCH: Final = "application/merge-patch+json"
"""RFC 7386: ``null`` removes a key, whether it is there or not."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RBAC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,253}")
_RBAC = frozenset(("roles", "rolebindings", "clusterroles", "clusterrolebindings"))
_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_SHOWN = 1024
_DISCOVERY: Final = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for version in ("v2", "v2beta1")
)


class NotFound(PluginError):  # noqa: N818 - called as the API calls it
    """There is no such object (404), or its name is none that an object can have."""


class Conflict(PluginError):  # noqa: N818 - called as the API calls it
    """The object is not what the request says it is, or it exists already (409)."""


def path(
    resource: str,
    name: str | None = None,
    *,
    namespace: str | None = None,
    api: str = "v1",
    subresource: str = "",
) -> str:
    """Return the path of an object, or without *name* of a collection.

    *resource* is the plural (``pods``), *api* the ``apiVersion`` (``apps/v1``); both are ours.
    *name* and *namespace* may come from an attacker: only what Kubernetes itself allows passes,
    so nothing in them can lead to another path or into the query.

    :raises NotFound: if they are no names that an object can have.
    """
    parts = ["/apis" if "/" in api else "/api", api]
    if namespace is not None:
        if not _NAMESPACE.fullmatch(namespace):
            raise NotFound("no namespace can have such a name")
        parts += ["namespaces", namespace]
    parts.append(resource)
    if name is not None:
        if not (_RBAC_NAME if resource in _RBAC else _NAME).fullmatch(name):
            raise NotFound(f"no {resource.removesuffix('s')} can have such a name")
        parts.append(name)
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


class Kubernetes:
    """A client of one API server. Make it inside the running loop; :meth:`close` ends it.

    Every method takes a path of :func:`path` and returns the decoded answer. A request ends
    after *seconds*; of too many at once the last ones wait their turn.

    All raise :class:`NotFound` and :class:`Conflict` for 404 and 409, ``TransientError`` for 429
    (with the wait asked for), 5xx, a lost or refused connection and a timeout, and
    ``PluginError`` for the other refusals, each with the server's sentence, status and reason.
    A lost connection may have carried the request out: repeat only what may happen twice.
    """

    def __init__(self, access: "Access", *, seconds: float = _REQUEST_SECONDS) -> None:
        import aiohttp

        self._access = access
        self._timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)

    @property
    def own_namespace(self) -> str:
        """The namespace that we run in; empty outside of the cluster."""
        return self._access.namespace

    async def close(self) -> None:
        """Close the connections."""
        await self._access.close()

    async def get(self, path: str, **query: str) -> Object:
        """Return an object, or the list of a collection."""
        return await self._request("GET", path, query=tuple(query.items()))

    async def discover(self) -> Object:
        """Return what the API groups hold, in one list (``APIGroupDiscoveryList``)."""
        async with self._answer("GET", "/apis", accept=_DISCOVERY) as response:
            return _decode(await response.read())

    async def post(self, path: str, body: Object) -> Object:
        """Create *body* in a collection and return it as stored."""
        return await self._request("POST", path, body=body)

    async def put(self, path: str, body: Object) -> Object:
        """Replace an object and return it as stored."""
        return await self._request("PUT", path, body=body)

    async def patch(
        self, path: str, body: Object | list[Object], *, content_type: str = MERGE_PATCH
    ) -> Object:
        """Change an object and return it as stored."""
        return await self._request("PATCH", path, body=body, content_type=content_type)

    async def delete(self, path: str, body: Object | None = None) -> Object:
        """Delete an object, with *body* as its ``DeleteOptions``."""
        return await self._request("DELETE", path, body=body)

    async def read(self, path: str, limit: int, **query: str) -> tuple[bytes, bool]:
        """Return up to *limit* bytes of an answer that is no JSON, and whether there was more."""
        async with self._answer("GET", path, query=tuple(query.items())) as response:
            body = BytesIO()  # it gives its bytes away without a copy of them
            async for chunk in response.content.iter_any():
                left = limit - body.tell()
                body.write(chunk[:left])
                if len(chunk) > left:
                    return body.getvalue(), True
            return body.getvalue(), False

    async def watch(self, path: str, **query: str) -> AsyncGenerator[Object]:
        """Yield the changes of a collection, until the server ends it.

        Use it with ``aclosing``, and give it the ``resourceVersion`` of a list.
        """
        import aiohttp

        endless = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS)
        since = (*query.items(), ("watch", "true"))
        async with self._answer("GET", path, query=since, limit=endless) as response:
            async for line in response.content:
                change = _decode(line)
                if change.get("type") == "ERROR":  # 410: the resource version is too old
                    raise TransientError(f"the watch has ended: {change['object'].get('message')}")
                yield change

    async def connect(
        self, path: str, query: Query, protocols: Sequence[str]
    ) -> "ClientWebSocketResponse":
        """Open a WebSocket that speaks one of the *protocols*. The caller closes it."""
        import aiohttp

        url = self._url(path, query)
        headers: dict[str, str] = await self._who()
        try:
            with _faults():
                async with asyncio.timeout(self._timeout.total):
                    socket: ClientWebSocketResponse = await self._access.session.ws_connect(
                        url, headers=headers, protocols=protocols, **self._access.options
                    )
                    return socket
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                await self._who(refused=headers)
            # aiohttp drops the sentence; the same request without the upgrade is refused with it.
            async with self._answer("GET", path, query=query):
                raise PluginError(f"the Kubernetes API opens no stream: {error.status}") from None

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | list[Object] | None = None,
        content_type: str = "application/json",
        query: Query = (),
    ) -> Object:
        async with self._answer(method, path, body, content_type, query) as response:
            return _decode(await response.read())

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        content_type: str = "application/json",
        query: Query = (),
        limit: "ClientTimeout | None" = None,
        accept: str = "application/json, */*",
    ) -> "AsyncIterator[ClientResponse]":
        """Send a request and yield the answer if it is none of the refusals."""
        data = None if body is None else msgspec.json.encode(body)
        own = {"Accept": accept, "User-Agent": "falco-talon"}
        if data is not None:
            own["Content-Type"] = content_type
        who = await self._who()
        with _faults():
            for last in (False, True):
                async with self._access.session.request(
                    method,
                    self._url(path, query),
                    data=data,
                    headers=own | who,
                    timeout=limit or self._timeout,
                    allow_redirects=False,
                    **self._access.options,
                ) as response:
                    if response.status < 300:
                        try:
                            yield response
                        finally:
                            _abandon(response)
                        return
                    answer = await response.read()
                    status, reason = response.status, response.reason or ""
                    reply = Reply(status, reason, response.headers, answer)
                if status != 401 or last:  # else a token that has been replaced, most likely
                    raise _refusal(reply)
                who = await self._who(refused=who)

    def _url(self, path: str, query: Query) -> "URL":
        from yarl import URL

        url = URL(self._access.server + path, encoded=True)
        return url.with_query(query) if query else url

    async def _who(self, refused: dict[str, str] | None = None) -> dict[str, str]:
        """Return the headers that say who we are, if any do."""
        try:
            return await self._access.headers(refused)
        except TalonError as error:
            raise PluginError(f"no credentials for the Kubernetes API: {error}") from None


def _abandon(response: "ClientResponse") -> None:
    """Drop the connection of an answer that has not been read to its end, without farewell."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


@contextmanager
def _faults() -> Iterator[None]:
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


def _decode(answer: bytes) -> Object:
    try:
        document = msgspec.json.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise PluginError("the Kubernetes API answered with something else than a JSON object")
    return document


def _refusal(reply: Reply) -> PluginError:
    """Return what the status of *reply* means, with the sentence the server gave."""
    try:
        status = _decode(reply.body)
    except PluginError:
        status = {}
    line = f"{reply.status} {status.get('reason') or reply.reason}".rstrip()
    message = printable(str(status.get("message") or ""))[:_SHOWN]
    text = f"{message} ({line})" if message else f"the Kubernetes API answered {line}"
    if reply.status == 404:
        return NotFound(text)
    if reply.status == 409:
        return Conflict(text)
    if reply.transient:
        return TransientError(text, retry_after=reply.retry_after)
    return PluginError(text)
