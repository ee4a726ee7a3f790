"""The Kubernetes API in raw JSON: dictionaries in and out, over connections that are kept."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from falco_talon.clients.http import Reply, printable, proxied, reason
from falco_talon.errors import PluginError, TalonError, TransientError

if TYPE_CHECKING:
    from falco_talon.clients.kubeconfig import Access

Object = dict[str, Any]
"""An object of the API, as its JSON has it."""

MERGE_PATCH: Final = "application/merge-patch+json"
"""RFC 7386: ``null`` removes a key, whether it is there or not."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RBAC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,253}")
_RBAC = frozenset(("roles", "rolebindings", "clusterroles", "clusterrolebindings"))
_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_SHOWN = 1024


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
    after *seconds*; at most *concurrency* are under way at once, the others wait their turn.

    All raise :class:`NotFound` and :class:`Conflict` for 404 and 409, ``TransientError`` for 429
    (with the wait asked for), 5xx, a lost or refused connection and a timeout, and
    ``PluginError`` for the other refusals, each with the server's sentence, status and reason.
    A lost connection may have carried the request out: repeat only what may happen twice.
    """

    def __init__(
        self, access: "Access", *, concurrency: int = 32, seconds: float = _REQUEST_SECONDS
    ) -> None:
        import aiohttp

        self._access = access
        self._options: dict[str, Any] = {"proxy": access.proxy, "allow_redirects": False}
        if access.server_name:
            self._options["server_hostname"] = access.server_name
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=concurrency, ssl=access.tls if access.tls else True, keepalive_timeout=60
            ),
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "falco-talon", "Accept": "application/json"},
            trust_env=proxied(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, path: str, **query: str) -> Object:
        """Return an object, or the list of a collection."""
        return await self._request("GET", path, query=query)

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

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | list[Object] | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content_type} if data is not None else {}
        reply = await self._send(method, path, data, headers | await self._who(), query)
        if reply.status == 401:  # a token that has been replaced, most likely
            headers |= await self._who(renew=True)
            reply = await self._send(method, path, data, headers, query)
        if reply.status >= 300:
            raise _refusal(reply)
        return _decode(reply.body)

    async def _who(self, *, renew: bool = False) -> dict[str, str]:
        """Return the header that says who we are, if one does."""
        try:
            value = await self._access.credentials.header(renew=renew)
        except TalonError as error:
            raise PluginError(f"no credentials for the Kubernetes API: {error}") from None
        return {"Authorization": value} if value else {}

    async def _send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        headers: dict[str, str],
        query: Mapping[str, str] | None,
    ) -> Reply:
        import aiohttp
        from yarl import URL

        url = URL(self._access.server + path, encoded=True)
        try:
            async with self._session.request(
                method, url, params=query or None, data=data, headers=headers, **self._options
            ) as response:
                body = await response.read()
                return Reply(response.status, response.reason or "", response.headers, body)
        except TimeoutError:
            raise TransientError("the Kubernetes API did not answer in time") from None
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
