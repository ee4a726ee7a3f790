"""How to reach a Kubernetes API server, and who we are there: read by kubernetes_asyncio.

The SDK reads the kubeconfig or the service account, verifies the server and keeps the connections.
What it leaves to its users is done here: renewing a token file or an exec plugin when its time has
come or a token was refused, and one clear line when something cannot be used.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException, kube_config
from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader

from falco_talon.errors import TalonError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_BEARER: Final = "BearerToken"
_TOKEN_FILE_SECONDS: Final = 60.0
_PLUGIN_SECONDS: Final = 60.0
_SHOWN: Final = 1024


class Renewal(Protocol):
    """Keeps the credentials of a configuration fresh."""

    async def __call__(self, configuration: Configuration, *, refused: bool) -> bool:
        """Renew them if their time has come, or if they were *refused*.

        :returns: whether they are presented when connecting, so that connections must be new.
        :raises TalonError: if they cannot be had.
        """


class Access:
    """The SDK's client, whose connections and credentials :class:`Kubernetes` uses.

    Make it inside the running loop.
    """

    def __init__(
        self, configuration: Configuration, renewal: Renewal | None = None, namespace: str = ""
    ) -> None:
        self.namespace = namespace
        """The namespace that we run in; empty outside of the cluster."""
        self._configuration = configuration
        self._renewal = renewal
        self._renewing = asyncio.Lock()
        self._clients: list[ApiClient] = []
        self._connect()

    @property
    def server(self) -> str:
        """The URL that paths are appended to."""
        return str(self._configuration.host)

    @property
    def session(self) -> Any:
        """The aiohttp session that knows the server's certificate and ours."""
        return self._clients[-1].rest_client.pool_manager

    @property
    def options(self) -> dict[str, Any]:
        """What each request of the session must be given beside its own."""
        rest = self._clients[-1].rest_client
        options = {"proxy": rest.proxy, "server_hostname": rest.server_hostname}
        return {name: value for name, value in options.items() if value}

    async def headers(self, refused: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the headers that say who we are; other ones than those that were *refused*.

        :raises TalonError: if they cannot be had; no text holds a secret.
        """
        if self._renewal:
            async with self._renewing:
                # Of many requests refused at once, the first to come here renews for all.
                stale = refused is not None and refused == await self._current()
                if await self._renewal(self._configuration, refused=stale):
                    self._connect()
        return await self._current()

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.close()

    def _connect(self) -> None:
        """Connect anew from now on; the requests under way keep their connections."""
        try:
            self._clients.append(ApiClient(self._configuration))
        finally:
            # What OpenSSL reads from files only, keys too: the SDK would keep it until we end.
            kube_config._cleanup_temp_files()

    async def _current(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        try:
            await self._clients[-1].update_params_for_auth(headers, [], [_BEARER])
        except (ConfigException, OSError) as error:
            raise TalonError(f"the token file cannot be read: {error}") from None
        return headers


async def open_access(
    kubeconfig: Path | None,
    *,
    connections: int = 100,
    environ: Mapping[str, str] | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """Read how to reach the cluster, from *kubeconfig* if given, else from inside the cluster.

    :raises TalonError: in one line, if the file cannot be read or says something unusable.
    """
    configuration = Configuration(host="")
    configuration.connection_pool_maxsize = connections
    # Many clusters' authorities leave out the key identifiers that Python 3.13 asks for.
    configuration.disable_strict_ssl_verification = True
    if kubeconfig is None:
        found = dict(os.environ if environ is None else environ)
        return _in_cluster(configuration, found, service_account)
    where = f"kubeconfig '{kubeconfig}'"
    try:
        return await _from_file(configuration, kubeconfig)
    except ConfigException as error:
        text = " ".join(str(error).split())[:_SHOWN]
        raise TalonError(f"{where}: {text}") from None
    except TalonError as error:
        raise TalonError(f"{where}: {error}") from None
    except OSError as error:
        if isinstance(error, ssl.SSLError):
            raise TalonError(f"{where}: a certificate or key in it is unusable") from None
        if error.filename == str(kubeconfig):
            raise TalonError(f"{where} cannot be read: {error.strerror}") from None
        name = f"'{error.filename}': " if error.filename else ""
        raise TalonError(f"{where}: {name}{error.strerror or error}") from None
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The SDK takes the types of what it reads for granted. Their texts may quote a token.
        raise TalonError(f"{where}: something in it is unusable ({type(error).__name__})") from None


def _in_cluster(configuration: Configuration, environ: dict[str, str], folder: Path) -> Access:
    if not environ.get("KUBERNETES_SERVICE_HOST"):
        raise TalonError("no Kubernetes cluster: 'kubeconfig' is not set and this is not a pod")
    loader = InClusterConfigLoader(
        token_filename=str(folder / "token"),
        cert_filename=str(folder / "ca.crt"),
        environ=environ,
    )
    try:
        loader.load_and_set(configuration)
        own = environ.get("NAMESPACE") or (folder / "namespace").read_text().strip()
        return Access(configuration, _ServiceAccount(loader), own)
    except (ConfigException, OSError) as error:
        raise TalonError(f"the service account in '{folder}' cannot be used: {error}") from None


async def _from_file(configuration: Configuration, path: Path) -> Access:
    folder = path.parent
    document = await asyncio.to_thread(_parse, path)
    # Not load_kube_config: it splits the path at colons and says nothing about an absent file.
    loader = kube_config.KubeConfigLoader(document, config_base_path=str(folder))
    user = loader._user.value if loader._user else {}
    if user.get("as"):
        raise TalonError("'as' of a user is not supported: leave it out")
    renewal: Renewal | None = None
    if user.get("tokenFile"):
        # Like client-go, and unlike the SDK: before 'token', without the newline, read again.
        renewal = _TokenFile(Path(folder, str(user.pop("tokenFile"))))
        await renewal(configuration, refused=False)
    elif "exec" in user:
        renewal = _ExecPlugin(loader)
    try:
        async with asyncio.timeout(_PLUGIN_SECONDS):
            await loader.load_and_set(configuration)
        _check(configuration, loader, user)
        return Access(configuration, renewal)
    except TimeoutError:
        raise TalonError(f"the exec plugin did not end in {_PLUGIN_SECONDS:g} s") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        # The parser's text quotes the line, and that may be a token.
        raise TalonError("it is not valid YAML") from None
    if not isinstance(document, dict):
        raise TalonError("it is not a mapping")
    return document


def _check(configuration: Configuration, loader: Any, user: Mapping[str, Any]) -> None:
    if not str(configuration.host).startswith(("https://", "http://")):
        raise TalonError("'server' must start with https:// or http://")
    if not str(configuration.proxy or "http://").startswith(("https://", "http://")):
        raise TalonError("'proxy-url' must start with http:// or https://")
    if "exec" in user and not (getattr(loader, "token", "") or getattr(loader, "cert_file", "")):
        raise TalonError("the exec plugin printed neither a token nor a client certificate")
    header = str(configuration.api_key.get(_BEARER, "none"))
    if not header.isascii() or not header.isprintable():
        raise TalonError("the token holds characters that no token has")


class _ServiceAccount:
    """The token that the kubelet renews. The SDK reads it again every minute."""

    def __init__(self, loader: InClusterConfigLoader) -> None:
        self._loader = loader

    async def __call__(self, configuration: Configuration, *, refused: bool) -> bool:
        if refused:
            self._loader.token_expires_at = datetime.min
        return False


class _TokenFile:
    """A token in a file that somebody else renews: read again every minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = float("-inf")

    async def __call__(self, configuration: Configuration, *, refused: bool) -> bool:
        if refused or time.monotonic() - self._read_at >= _TOKEN_FILE_SECONDS:
            try:
                token = (await asyncio.to_thread(self._path.read_text)).strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no text"
                text = f"the token file '{self._path}' cannot be read: {reason}"
                if _BEARER not in configuration.api_key:
                    raise TalonError(text) from None
            else:
                configuration.api_key[_BEARER] = f"Bearer {token}"
            self._read_at = time.monotonic()
        return False


class _ExecPlugin:
    """A program that prints a token or a client certificate, run again when that expires.

    The SDK runs it once, and leaves the rest to a task that would look every minute.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    async def __call__(self, configuration: Configuration, *, refused: bool) -> bool:
        loader = self._loader
        expiry = getattr(loader, "exec_plugin_expiry", None)
        if not refused and (expiry is None or not kube_config._is_expired(expiry)):
            return False
        if expiry is not None:
            del loader.exec_plugin_expiry
        try:
            async with asyncio.timeout(_PLUGIN_SECONDS):
                await loader.load_and_set(configuration)
        except TimeoutError:
            raise TalonError(f"the exec plugin did not end in {_PLUGIN_SECONDS:g} s") from None
        except (ConfigException, OSError, LookupError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())[:_SHOWN]
            raise TalonError(f"the exec plugin failed: {text}") from None
        return bool(getattr(loader, "cert_file", None))
