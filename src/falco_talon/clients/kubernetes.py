"""The Kubernetes API in raw JSON: dictionaries in and out, over connections that are kept."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Final

import msgspec

from falco_talon.clients.answers import Conflict as Conflict
from falco_talon.clients.answers import NotFound as NotFound
from falco_talon.clients.answers import Object as Object
from falco_talon.clients.answers import abandon, decode, faults, lines, refusal
from falco_talon.clients.http import Reply
from falco_talon.errors import PluginError, TalonError, TransientError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientTimeout, ClientWebSocketResponse
    from yarl import URL

    from falco_talon.clients.access import Access

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
_DISCOVERY: Final = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for version in ("v2", "v2beta1")
)


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
    (with the wait asked for), 410, 5xx, a lost or refused connection and a timeout, and
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
            return decode(await response.read())

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
            async for line in lines(response):
                change = decode(line)
                if change.get("type") == "ERROR":  # 410: the resource version is too old
                    raise TransientError(f"the watch has ended: {change['object'].get('message')}")
                yield change

    async def connect(
        self, path: str, query: Query, protocols: Sequence[str]
    ) -> "ClientWebSocketResponse":
        """Open a WebSocket that speaks one of the *protocols*. The caller closes it and answers its
        pings: aiohttp's own answer raises if the server has closed, though there is more to read.
        """
        import aiohttp

        who = await self._who()
        for last in (False, True):
            try:
                with faults():
                    async with asyncio.timeout(self._timeout.total):
                        socket: ClientWebSocketResponse = await self._access.session.ws_connect(
                            self._url(path, query),
                            headers=who,
                            protocols=protocols,
                            autoping=False,
                            **self._access.options,
                        )
                        return socket
            except aiohttp.WSServerHandshakeError as error:
                if error.status == 401 and not last:
                    who = await self._who(refused=who)
                    continue
                refused = refusal(Reply(error.status, "", error.headers or {}, b""))
                if isinstance(refused, TransientError):
                    raise refused from None
                # aiohttp drops the sentence; the same request without the upgrade gets it again.
                async with self._answer("GET", path, query=query):
                    raise refused from None
        raise AssertionError("the second try returns or raises")

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
            return decode(await response.read())

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
        with faults():
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
                            abandon(response)
                        return
                    answer = await response.read()
                    status, reason = response.status, response.reason or ""
                    reply = Reply(status, reason, response.headers, answer)
                if status != 401 or last:  # else a token that has been replaced, most likely
                    raise refusal(reply)
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
