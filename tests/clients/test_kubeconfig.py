"""Every way into a cluster, tried on the real API server; and what cannot be used, in one line."""

import asyncio
import base64
import json
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from falco_talon.clients.credentials import ExecPlugin, TokenFile
from falco_talon.clients.kubeconfig import load_access
from falco_talon.clients.kubernetes import Kubernetes
from falco_talon.errors import TalonError
from tests.cluster.cluster import Cluster
from tests.endpoint import Answer, Endpoint

READ_VERSION = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]


async def _who(kubeconfig: Path) -> str:
    """Return who the API server takes us for."""
    client = Kubernetes(await load_access(kubeconfig))
    try:
        review = await client.post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        )
    finally:
        await client.close()
    return str(review["status"]["userInfo"]["username"])


@pytest.fixture
def admin(cluster: Cluster) -> dict[str, Any]:
    """The administrator's kubeconfig, with the content of every file in it."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    folder = cluster.kubeconfig.parent
    for section in (document["clusters"][0]["cluster"], document["users"][0]["user"]):
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if name := section.pop(key, None):
                section[f"{key}-data"] = base64.b64encode((folder / name).read_bytes()).decode()
    return dict(document)


@pytest.fixture
def token(cluster: Cluster, namespace: str, tmp_path: Path) -> str:
    """A token of the service account `robot`."""
    path = tmp_path / "robot.kubeconfig"
    cluster.service_account_kubeconfig(namespace, "robot", READ_VERSION, path)
    return str(yaml.safe_load(path.read_text())["users"][0]["user"]["token"])


@pytest.fixture
def write(tmp_path: Path, admin: dict[str, Any]) -> Callable[..., Path]:
    """Write a kubeconfig with this user and, in its cluster, these settings."""

    def write(user: dict[str, Any], **settings: Any) -> Path:
        admin["users"][0]["user"] = user
        admin["clusters"][0]["cluster"] |= settings
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(admin))
        return path

    return write


async def test_client_certificate_as_data(write: Callable[..., Path], admin: Any) -> None:
    """A certificate in the kubeconfig says who we are, and no key stays in a file."""
    before = set(Path("/tmp").glob("falco-talon-*"))
    user = admin["users"][0]["user"]
    if "client-key-data" not in user:
        pytest.skip("the administrator of this cluster has no client certificate")
    assert await _who(write(user))
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
    assert await _who(write(files, **{"certificate-authority": authority}))


async def test_token(write: Callable[..., Path], token: str) -> None:
    """A token in the kubeconfig says who we are."""
    assert (await _who(write({"token": token}))).endswith(":robot")


async def test_token_file(write: Callable[..., Path], token: str, tmp_path: Path) -> None:
    """A token file goes before a token, as in client-go, and its newline is no part of it."""
    (tmp_path / "token").write_text(f"{token}\n")
    assert (await _who(write({"tokenFile": "token", "token": "old"}))).endswith(":robot")


async def test_insecure(write: Callable[..., Path], token: str, admin: Any) -> None:
    """Verification of the server can be turned off."""
    admin["clusters"][0]["cluster"].pop("certificate-authority-data")
    kubeconfig = write({"token": token}, **{"insecure-skip-tls-verify": True})
    assert (await _who(kubeconfig)).endswith(":robot")


async def test_server_name(write: Callable[..., Path], token: str) -> None:
    """The name in the certificate can be another than the one in the URL."""
    kubeconfig = write({"token": token}, **{"tls-server-name": "kubernetes.default.svc"})
    assert (await _who(kubeconfig)).endswith(":robot")


async def test_in_cluster(cluster: Cluster, token: str, admin: Any, tmp_path: Path) -> None:
    """In a pod the service account is used, without a kubeconfig."""
    authority = admin["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
    (tmp_path / "token").write_text(token)
    host, port = cluster.server.removeprefix("https://").rsplit(":", 1)
    access = await load_access(
        None,
        environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
        service_account=tmp_path,
    )
    client = Kubernetes(access)
    assert (await client.get("/api/v1/namespaces/default"))["kind"] == "Namespace"
    await client.close()
    assert token not in repr(access)


async def test_neither_kubeconfig_nor_pod() -> None:
    """Without any way into a cluster the error says what is missing."""
    with pytest.raises(TalonError, match="'kubeconfig' is not set and this is not a pod"):
        await load_access(None, environ={})


async def test_pod_without_service_account(tmp_path: Path) -> None:
    """A pod that mounts no token is told so."""
    environ = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(TalonError, match="the service account in .* cannot be read: No such file"):
        await load_access(None, environ=environ, service_account=tmp_path)


def _plugin(folder: Path, status: Any) -> dict[str, Any]:
    """Return the settings of an exec plugin that prints *status* and counts its runs."""
    version = "client.authentication.k8s.io/v1"
    printed = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    (folder / "printed").write_text(json.dumps(printed))
    script = folder / "plugin"
    script.write_text(f"#!/bin/sh\necho run >> {folder}/runs\ncat {folder}/printed\n")
    script.chmod(stat.S_IRWXU)
    return {"apiVersion": version, "command": str(script), "interactiveMode": "Never"}


async def test_exec_plugin_token(write: Callable[..., Path], token: str, tmp_path: Path) -> None:
    """A program can print the token; it runs once for as long as the token holds."""
    status = {"token": token, "expirationTimestamp": "2999-01-01T00:00:00Z"}
    assert (await _who(write({"exec": _plugin(tmp_path, status)}))).endswith(":robot")
    assert (tmp_path / "runs").read_text() == "run\n"


async def test_exec_plugin_certificate(
    write: Callable[..., Path], admin: Any, tmp_path: Path
) -> None:
    """A program can print a client certificate."""
    user = admin["users"][0]["user"]
    if "client-key-data" not in user:
        pytest.skip("the administrator of this cluster has no client certificate")
    status = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    who = await _who(write(user))
    assert await _who(write({"exec": _plugin(tmp_path, status)})) == who


async def test_exec_plugin_runs_again(tmp_path: Path) -> None:
    """It runs again when what it printed has expired or was refused, once for all who ask."""
    expired = {"token": "a", "expirationTimestamp": "2001-01-01T00:00:00Z"}
    plugin = ExecPlugin(_plugin(tmp_path, expired), None)
    for _ in range(2):
        assert await plugin.header() == "Bearer a"
    assert (tmp_path / "runs").read_text() == "run\n" * 2
    _plugin(tmp_path, {"token": "b"})
    assert await plugin.header() == "Bearer b"
    _plugin(tmp_path, {"token": "c"})
    assert await plugin.header() == "Bearer b"
    renewed = await asyncio.gather(*(plugin.header(renew=True) for _ in range(5)))
    assert renewed == ["Bearer c"] * 5
    assert (tmp_path / "runs").read_text() == "run\n" * 4


@pytest.mark.parametrize(
    ("user", "text"),
    [
        pytest.param({"exec": {"command": "/absent"}}, "missing key 'apiVersion'", id="malformed"),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "/absent"}}, "'/absent' does not", id="absent"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "false"}}, "process returned 1", id="failed"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "echo"}}, "failed to decode", id="no JSON"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "true", "args": [1]}}, "wrongly", id="args"
        ),
        pytest.param(
            {"exec": {"apiVersion": "v1", "command": "printf", "args": ["\\200"]}},
            "failed to decode",
            id="binary",
        ),
        pytest.param({"token": "a\nb"}, "characters that no token has", id="token"),
        pytest.param({"tokenFile": "absent"}, "absent' cannot be read: No such", id="token file"),
        pytest.param({"auth-provider": {"name": "gcp"}}, "use an exec plugin", id="provider"),
        pytest.param({"as": "admin"}, "'as' of a user is not supported", id="impersonation"),
        pytest.param({"client-certificate-data": "?"}, "is not base64", id="base64"),
        pytest.param(
            {"client-certificate-data": "YQ==", "client-key-data": "YQ=="}, "do not fit", id="PEM"
        ),
        pytest.param({"client-certificate": "absent"}, "absent' No such file", id="certificate"),
    ],
)
async def test_unusable_users(write: Callable[..., Path], user: dict[str, Any], text: str) -> None:
    """A user who cannot be used is one line that names the kubeconfig."""
    with pytest.raises(TalonError, match=f"^kubeconfig '.*/kubeconfig'.*{text}") as raised:
        await load_access(write(user))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param([], "printed no status", id="no status"),
        pytest.param({}, "neither a token nor a client certificate", id="nothing"),
        pytest.param({"token": "s3cret\nb"}, "characters that no token has", id="no token"),
        pytest.param(
            {"token": "a", "expirationTimestamp": "soon"}, "'soon' for a time", id="no time"
        ),
        pytest.param(
            {"clientCertificateData": "s3cret", "clientKeyData": "s3cret"},
            "an unusable certificate",
            id="no certificate",
        ),
    ],
)
async def test_unusable_plugins(
    write: Callable[..., Path], status: Any, text: str, tmp_path: Path
) -> None:
    """A plugin that prints something useless is one line that shows nothing of it."""
    with pytest.raises(TalonError, match=text) as raised:
        await load_access(write({"exec": _plugin(tmp_path, status)}))
    assert "s3cret" not in str(raised.value)


async def test_password(write: Callable[..., Path], endpoint: Endpoint) -> None:
    """A name and a password are sent as basic authentication."""
    endpoint.answers = [Answer(200, b"{}")]
    access = await load_access(write({"username": "me", "password": "é"}, server=endpoint.url))
    client = Kubernetes(access)
    await client.get("/version")
    await client.close()
    sent = endpoint.received[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "me:é"


async def test_proxy(write: Callable[..., Path], endpoint: Endpoint) -> None:
    """Requests go through the proxy of the kubeconfig."""
    endpoint.answers = [Answer(200, b"{}")]
    settings = {"server": "http://cluster.invalid:80", "proxy-url": endpoint.url}
    client = Kubernetes(await load_access(write({"token": "abc"}, **settings)))
    assert await client.get("/version") == {}
    await client.close()
    assert endpoint.received[0].headers["Host"] == "cluster.invalid"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        pytest.param({"server": ""}, "'server' is missing", id="no server"),
        pytest.param({"server": "ftp://x"}, "must start with https", id="scheme"),
        pytest.param({"certificate-authority-data": "YQ=="}, "no PEM certificate", id="authority"),
        pytest.param({"proxy-url": "socks5://x"}, "'proxy-url' must start", id="proxy"),
    ],
)
async def test_unusable_clusters(
    write: Callable[..., Path], settings: dict[str, Any], text: str
) -> None:
    """A cluster that cannot be reached as described is one line."""
    with pytest.raises(TalonError, match=text):
        await load_access(write({"token": "abc"}, **settings))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(None, "cannot be read: No such file or directory", id="absent"),
        pytest.param(b"", "it is not a mapping", id="empty"),
        pytest.param(b"\x80\x81\x82", "it is not valid YAML", id="binary"),
        pytest.param(b"token: [s3cret", "it is not valid YAML", id="YAML"),
        pytest.param(b"a: 1", "'current-context' is missing", id="no context"),
        pytest.param(b"current-context: x\ncontexts: 7", "'contexts' is no list", id="no list"),
        pytest.param(b"current-context: x", "there is no 'x' in 'contexts'", id="other context"),
    ],
)
async def test_unusable_files(tmp_path: Path, content: bytes | None, text: str) -> None:
    """A file that is no kubeconfig is one line that names it and shows nothing of it."""
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TalonError, match=text) as raised:
        await load_access(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


async def test_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is good for a minute, then read again; the last one lasts meanwhile."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    path = tmp_path / "token"
    path.write_text("a")
    credentials = TokenFile(path)
    assert await credentials.header() == "Bearer a"
    path.write_text("b")
    assert await credentials.header() == "Bearer a"
    assert await credentials.header(renew=True) == "Bearer b"
    path.unlink()
    now += 61
    assert await credentials.header() == "Bearer b"
    path.write_text("c")
    now += 61
    assert await credentials.header() == "Bearer c"


def test_the_sdk_is_only_for_exec_plugins(cluster: Cluster) -> None:
    """Its models cost 36 MB and a third of a second: nobody pays who has no exec plugin."""
    program = (
        "import asyncio, sys; from pathlib import Path;"
        "from falco_talon.clients.kubeconfig import load_access;"
        f"asyncio.run(load_access(Path({str(cluster.kubeconfig)!r})));"
        "sys.exit('kubernetes_asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_lenient_verification(cluster: Cluster) -> None:
    """Authorities without key identifiers, as kind and k3d make them, are accepted."""
    access = await load_access(cluster.kubeconfig)
    assert access.tls
    assert not access.tls.verify_flags & ssl.VERIFY_X509_STRICT
