"""How to reach a Kubernetes API server: a kubeconfig file, or the service account of the pod.

The SDK's loader comes only with all of its models, 0.3 s and 36 MB that raw JSON has no use for.
So the plain kinds of access are read here, and the SDK is imported for exec plugins alone.
"""

import asyncio
import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from falco_talon.clients.credentials import (
    Credentials,
    ExecPlugin,
    FixedCredentials,
    TokenFile,
    bearer,
    load_client_certificate,
)
from falco_talon.errors import TalonError

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, how to trust it, and who we are there."""

    server: str
    credentials: Credentials = field(repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    """The name in the server's certificate, when it is not the one in the URL."""
    proxy: str | None = field(default=None, repr=False)


async def load_access(
    kubeconfig: Path | None,
    *,
    environ: Mapping[str, str] | None = None,
    service_account: Path = _SERVICE_ACCOUNT,
) -> Access:
    """Read how to reach the cluster, from *kubeconfig* if given, else from inside the cluster.

    :raises TalonError: in one line, if the file cannot be read or says something unusable.
    """
    if kubeconfig is None:
        return await asyncio.to_thread(
            _in_cluster, os.environ if environ is None else environ, service_account
        )
    where = f"kubeconfig '{kubeconfig}'"
    try:
        access = await asyncio.to_thread(_from_file, kubeconfig)
        # The first use tells whether a token file or plugin works at all.
        await access.credentials.header()
    except OSError as error:
        name = f" '{error.filename}'" if error.filename not in (None, str(kubeconfig)) else ""
        raise TalonError(f"{where} cannot be read:{name} {error.strerror or error}") from None
    except TalonError as error:
        raise TalonError(f"{where}: {error}") from None
    return access


def _in_cluster(environ: Mapping[str, str], folder: Path) -> Access:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise TalonError("no Kubernetes cluster: 'kubeconfig' is not set and this is not a pod")
    try:
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        (folder / "token").read_bytes()
    except OSError as error:
        raise TalonError(
            f"the service account in '{folder}' cannot be read: {error.strerror or error}"
        ) from None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, TokenFile(folder / "token"), _lenient(tls))


def _from_file(path: Path) -> Access:
    document = _parse(path)
    context = _named(document, "contexts", _text(document, "current-context"), "context")
    cluster = _named(document, "clusters", _text(context, "cluster"), "cluster")
    user_name = context.get("user")
    user = _named(document, "users", user_name, "user") if user_name else {}
    server = _text(cluster, "server").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise TalonError("'server' must start with https:// or http://")
    tls = _tls(cluster, user, path.parent) if server.startswith("https://") else None
    return Access(
        server,
        _credentials(user, path.parent, tls),
        tls,
        cluster.get("tls-server-name"),
        _proxy(cluster.get("proxy-url")),
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        # The parser's text quotes the line, and that may be a token.
        raise TalonError("it is not valid YAML") from None
    if not isinstance(document, dict):
        raise TalonError("it is not a mapping")
    return document


def _named(document: dict[str, Any], section: str, name: object, key: str) -> dict[str, Any]:
    entries = document.get(section) or []
    if not isinstance(entries, list):
        raise TalonError(f"'{section}' is no list")
    for entry in entries:
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(key)
            return found if isinstance(found, dict) else {}
    raise TalonError(f"there is no '{name}' in '{section}'")


def _text(mapping: dict[str, Any], key: str) -> str:
    value = mapping.get(key)
    if not value or not isinstance(value, str):
        raise TalonError(f"'{key}' is missing")
    return value


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _bytes(cluster, "certificate-authority", folder)
    try:
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    except (ssl.SSLError, ValueError):
        raise TalonError("'certificate-authority' holds no PEM certificate") from None
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate, key = (_bytes(user, f"client-{part}", folder) for part in ("certificate", "key"))
    if certificate and key:
        try:
            load_client_certificate(tls, certificate, key)
        except ssl.SSLError:
            raise TalonError("'client-certificate' and 'client-key' do not fit") from None
    return _lenient(tls)


def _lenient(tls: ssl.SSLContext) -> ssl.SSLContext:
    """Accept certificates without the key identifiers that many cluster CAs leave out."""
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _credentials(user: dict[str, Any], folder: Path, tls: ssl.SSLContext | None) -> Credentials:
    for key, remedy in (("as", "leave it out"), ("auth-provider", "use an exec plugin")):
        if user.get(key):
            raise TalonError(f"'{key}' of a user is not supported: {remedy}")
    if isinstance(user.get("exec"), dict):
        return ExecPlugin(user["exec"], tls)
    if user.get("tokenFile"):
        return TokenFile(folder / _text(user, "tokenFile"))
    if user.get("token"):
        return FixedCredentials(bearer(str(user["token"])))
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}"
        return FixedCredentials(f"Basic {base64.b64encode(pair.encode()).decode()}")
    return FixedCredentials(None)


def _bytes(mapping: dict[str, Any], key: str, folder: Path) -> bytes | None:
    """Return what ``<key>-data`` holds, or else the file that ``<key>`` names."""
    if data := mapping.get(f"{key}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise TalonError(f"'{key}-data' is not base64") from None
    name = mapping.get(key)
    return (folder / str(name)).read_bytes() if name else None


def _proxy(url: object) -> str | None:
    if not url:
        return None
    if not str(url).startswith(("http://", "https://")):
        raise TalonError("'proxy-url' must start with http:// or https://")
    return str(url)
