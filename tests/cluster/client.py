"""A small synchronous Kubernetes client: what the tests use to look at the cluster.

It shares no code with the product, so that a fault of the product cannot hide behind itself.
"""

import base64
import http.client
import json
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster.errors import ClusterError, SetupError

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Client:
    """Where the API server is, and who we are."""

    server: str
    context: ssl.SSLContext | None
    headers: dict[str, str]
    cluster: dict[str, Any]
    """The cluster's section of the kubeconfig, for kubeconfigs of other users."""

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Client":
        """For the current context; certificates, tokens and passwords are understood.

        Raises SetupError if the file is not usable.
        """
        try:
            content = yaml.safe_load(path.read_text())
            context = _named(content, "contexts", content["current-context"])["context"]
            cluster = _named(content, "clusters", context["cluster"])["cluster"]
            user = _named(content, "users", context["user"])["user"] or {}
            server = str(cluster["server"]).rstrip("/")
            if "exec" in user or "auth-provider" in user:
                raise SetupError(f"{path}: wants a plugin, not a certificate or a token")
            tls = _tls(path.parent, cluster, user) if server.startswith("https:") else None
            if authority := cluster.get("certificate-authority"):
                cluster["certificate-authority"] = str(path.parent.resolve() / authority)
            return cls(server, tls, _authorization(path.parent, user), cluster)
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise SetupError(f"{path}: not a usable kubeconfig ({error!r})") from error

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        """Ask the API server; a body that is not bytes is sent as JSON.

        Returns the decoded JSON, or the text if the answer is none (logs).
        Raises ClusterError for a status of 400 and above, and for a server out of reach.
        """
        headers = {**self.headers, "Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = content_type
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = urlsplit(self.server)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(
                host, parts.port, timeout=TIMEOUT_SECONDS, context=self.context
            )
            if self.context
            else http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
        )
        try:
            connection.request(method, parts.path + path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(0, "Unreachable", f"{self.server}: {error}") from error
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        decoded = json.loads(answer) if is_json else answer.decode(errors="replace")
        if response.status >= 400:
            status = decoded if isinstance(decoded, dict) else {"message": decoded}
            reason = status.get("reason") or response.reason
            raise ClusterError(response.status, reason, status.get("message", ""))
        return decoded


def _named(content: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in content[kind]:
        if entry["name"] == name:
            return dict(entry)
    raise KeyError(f"{kind}: {name}")


def _content(folder: Path, section: dict[str, Any], key: str) -> bytes | None:
    """A value that stands in the file itself, or in another file relative to it."""
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data)
    if name := section.get(key):
        return (folder / str(name)).read_bytes()
    return None


def _tls(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authority = _content(folder, cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    # the authorities of kind and k3d lack extensions that Python 3.13 asks for by default
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _content(folder, user, "client-certificate")
    key = _content(folder, user, "client-key")
    if certificate and key:
        # OpenSSL reads a chain from a file only
        descriptor, name = tempfile.mkstemp(prefix="talon-test-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(certificate + b"\n" + key)
            context.load_cert_chain(name)
        finally:
            Path(name).unlink()
    return context


def _authorization(folder: Path, user: dict[str, Any]) -> dict[str, str]:
    token = user.get("token")
    if not token and (name := user.get("tokenFile")):
        token = (folder / name).read_text().strip()
    if token:
        return {"Authorization": f"Bearer {token}"}
    if "username" in user:
        pair = base64.b64encode(f"{user['username']}:{user.get('password', '')}".encode())
        return {"Authorization": f"Basic {pair.decode()}"}
    return {}
