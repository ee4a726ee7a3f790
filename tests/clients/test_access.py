"""Every way into a cluster, tried on the real API server; and what cannot be used, in one line."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falco_talon.clients.access import open_access
from falco_talon.clients.kubernetes import Kubernetes
from falco_talon.errors import TalonError
from tests.clients.conftest import who
from tests.cluster.cluster import Cluster
from tests.endpoint import Answer, Endpoint


async def test_client_certificate_as_data(write: Callable[..., Path], admin: Any) -> None:
    """A certificate in the kubeconfig says who we are, and no key stays in a file."""
    before = set(Path("/tmp").glob("falco-talon-*"))
    user = admin["users"][0]["user"]
    if "client-key-data" not in user:
        pytest.skip("the administrator of this cluster has no client certificate")
    assert await who(write(user))
    assert set(Path("/tmp").glob("falco-talon-*")) == before


async def test_client_certificate_in_files(
    write: Callable[..., Path], admin: Any, tmp_path: Path
) -> None:
    """Paths of files are relative to the kubeconfig."""
    user, section = admin["users"][0]["user"], admin["clusters"][0]["cluster"]
    if "client-key-data" not in user:
        pytest.skip("the administrator of this cluster has no client certificate")
    files = {}
    for source, key in (
        (user, "client-certificate"),
        (user, "client-key"),
        (section, "certificate-authority"),
    ):
        (tmp_path / key).write_bytes(base64.b64decode(source.pop(f"{key}-data")))
        files[key] = key
    authority = files.pop("certificate-authority")
    assert await who(write(files, **{"certificate-authority": authority}))


async def test_token(write: Callable[..., Path], token: str) -> None:
    """A token in the kubeconfig says who we are."""
    assert (await who(write({"token": token}))).endswith(":robot")


async def test_token_file(write: Callable[..., Path], token: str, tmp_path: Path) -> None:
    """A token file goes before a token, as in client-go, and its newline is no part of it."""
    (tmp_path / "token").write_text(f"{token}\n")
    assert (await who(write({"tokenFile": "token", "token": "old"}))).endswith(":robot")


async def test_insecure(write: Callable[..., Path], token: str, admin: Any) -> None:
    """Verification of the server can be turned off."""
    admin["clusters"][0]["cluster"].pop("certificate-authority-data")
    kubeconfig = write({"token": token}, **{"insecure-skip-tls-verify": True})
    assert (await who(kubeconfig)).endswith(":robot")


async def test_server_name(write: Callable[..., Path], token: str) -> None:
    """The name in the certificate can be another than the one in the URL."""
    kubeconfig = write({"token": token}, **{"tls-server-name": "kubernetes.default.svc"})
    assert (await who(kubeconfig)).endswith(":robot")


async def test_in_cluster(cluster: Cluster, token: str, admin: Any, tmp_path: Path) -> None:
    """In a pod the service account is used, without a kubeconfig."""
    authority = admin["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
    (tmp_path / "token").write_text(token)
    (tmp_path / "namespace").write_text("here")
    host, port = cluster.server.removeprefix("https://").rsplit(":", 1)
    access = await open_access(
        None,
        environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
        service_account=tmp_path,
    )
    client = Kubernetes(access)
    assert client.own_namespace == "here"
    assert (await client.get("/api/v1/namespaces/default"))["kind"] == "Namespace"
    await client.close()
    assert token not in repr(access)


async def test_neither_kubeconfig_nor_pod() -> None:
    """Without any way into a cluster the error says what is missing."""
    with pytest.raises(TalonError, match="'kubeconfig' is not set and this is not a pod"):
        await open_access(None, environ={})


async def test_pod_without_service_account(tmp_path: Path) -> None:
    """A pod that mounts no token is told so."""
    environ = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(TalonError, match="the service account in .* cannot be used: Service token"):
        await open_access(None, environ=environ, service_account=tmp_path)


@pytest.mark.parametrize(
    ("user", "text"),
    [
        pytest.param({"exec": {"command": "/absent"}}, "missing key 'apiVersion'", id="malformed"),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "/absent"}},
            "'/absent': No such file",
            id="absent",
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "false"}}, "process returned 1", id="failed"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "echo"}}, "failed to decode", id="no JSON"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "true", "args": [1]}}, "is unusable", id="args"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "printf", "args": ["\\200"]}},
            "failed to decode",
            id="binary",
        ),
        pytest.param({"token": "a\nb"}, "characters that no token has", id="token"),
        pytest.param({"tokenFile": "absent"}, "absent' cannot be read: No such", id="token file"),
        pytest.param({"auth-provider": {"name": "oidc"}}, "is unusable", id="provider"),
        pytest.param({"as": "admin"}, "'as' of a user is not supported", id="impersonation"),
        pytest.param({"client-certificate-data": "?"}, "is unusable", id="base64"),
        pytest.param(
            {"client-certificate-data": "YQ==", "client-key-data": "YQ=="}, "is unusable", id="PEM"
        ),
        pytest.param(
            {"client-certificate": "absent"}, "does not exists: .*/absent", id="certificate"
        ),
    ],
)
async def test_unusable_users(write: Callable[..., Path], user: dict[str, Any], text: str) -> None:
    """A user who cannot be used is one line that names the kubeconfig."""
    with pytest.raises(TalonError, match=f"^kubeconfig '.*/kubeconfig'.*{text}") as raised:
        await open_access(write(user))
    assert "\n" not in str(raised.value)


async def test_password(write: Callable[..., Path], endpoint: Endpoint) -> None:
    """A name and a password are sent as basic authentication."""
    endpoint.answers = [Answer(200, b"{}")]
    access = await open_access(write({"username": "me", "password": "é"}, server=endpoint.url))
    client = Kubernetes(access)
    await client.get("/version")
    await client.close()
    sent = endpoint.received[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "me:é"


async def test_proxy(write: Callable[..., Path], endpoint: Endpoint) -> None:
    """Requests go through the proxy of the kubeconfig."""
    endpoint.answers = [Answer(200, b"{}")]
    settings = {"server": "http://cluster.invalid:80", "proxy-url": endpoint.url}
    client = Kubernetes(await open_access(write({"token": "abc"}, **settings)))
    assert await client.get("/version") == {}
    await client.close()
    assert endpoint.received[0].headers["Host"] == "cluster.invalid"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        pytest.param({"server": ""}, "Expected key server|must start with", id="no server"),
        pytest.param({"server": "ftp://x"}, "must start with https", id="scheme"),
        pytest.param(
            {"certificate-authority-data": "YQ=="},
            "certificate or key in it is unusable",
            id="authority",
        ),
        pytest.param({"proxy-url": "socks5://x"}, "'proxy-url' must start", id="proxy"),
    ],
)
async def test_unusable_clusters(
    write: Callable[..., Path], settings: dict[str, Any], text: str
) -> None:
    """A cluster that cannot be reached as described is one line."""
    with pytest.raises(TalonError, match=text):
        await open_access(write({"token": "abc"}, **settings))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(None, "cannot be read: No such file or directory", id="absent"),
        pytest.param(b"", "it is not a mapping", id="empty"),
        pytest.param(b"\x80\x81\x82", "it is not valid YAML", id="binary"),
        pytest.param(b"token: [s3cret", "it is not valid YAML", id="YAML"),
        pytest.param(b"a: 1", "Expected key current-context", id="no context"),
        pytest.param(b"current-context: x\ncontexts: 7", "is unusable", id="no list"),
        pytest.param(b"current-context: x", "Expected key contexts", id="other context"),
    ],
)
async def test_unusable_files(tmp_path: Path, content: bytes | None, text: str) -> None:
    """A file that is no kubeconfig is one line that names it and shows nothing of it."""
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TalonError, match=text) as raised:
        await open_access(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)
