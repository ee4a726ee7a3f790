"""Credentials that are renewed while we run, tried on the real API server."""

import asyncio
import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falco_talon.clients.access import open_access
from falco_talon.clients.kubernetes import Kubernetes
from falco_talon.errors import TalonError
from tests.clients.conftest import who
from tests.cluster.cluster import Cluster


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
    assert (await who(write({"exec": _plugin(tmp_path, status)}))).endswith(":robot")
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
    expected = await who(write(user))
    assert await who(write({"exec": _plugin(tmp_path, status)})) == expected


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param([], "neither a token", id="no status"),
        pytest.param({}, "neither a token nor a client certificate", id="nothing"),
        pytest.param({"token": "s3cret\nb"}, "characters that no token has", id="no token"),
        pytest.param({"token": "a", "expirationTimestamp": "soon"}, "is unusable", id="no time"),
        pytest.param(
            {"clientCertificateData": "s3cret", "clientKeyData": "s3cret"},
            "certificate or key in it is unusable",
            id="no certificate",
        ),
    ],
)
async def test_unusable_plugins(
    write: Callable[..., Path], status: Any, text: str, tmp_path: Path
) -> None:
    """A plugin that prints something useless is one line that shows nothing of it."""
    with pytest.raises(TalonError, match=text) as raised:
        await open_access(write({"exec": _plugin(tmp_path, status)}))
    assert "s3cret" not in str(raised.value)


async def test_exec_plugin_runs_again(write: Callable[..., Path], tmp_path: Path) -> None:
    """It runs again when what it printed expires or is refused, once for all who ask."""
    expired = {"token": "a", "expirationTimestamp": "2001-01-01T00:00:00Z"}
    access = await open_access(write({"exec": _plugin(tmp_path, expired)}))
    assert await access.headers() == {"authorization": "Bearer a"}
    assert (tmp_path / "runs").read_text() == "run\n" * 2
    _plugin(tmp_path, {"token": "b"})
    before = await access.headers()
    assert before == {"authorization": "Bearer b"}
    _plugin(tmp_path, {"token": "c"})
    assert await access.headers() == before
    renewed = await asyncio.gather(*(access.headers(refused=before) for _ in range(5)))
    assert renewed == [{"authorization": "Bearer c"}] * 5
    assert (tmp_path / "runs").read_text() == "run\n" * 4
    await access.close()


async def test_exec_plugin_renews_its_certificate(
    write: Callable[..., Path], admin: Any, tmp_path: Path
) -> None:
    """A certificate that has expired is replaced: requests after that connect anew."""
    user = admin["users"][0]["user"]
    if "client-key-data" not in user:
        pytest.skip("the administrator of this cluster has no client certificate")
    status = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    access = await open_access(write({"exec": _plugin(tmp_path, status)}))
    client = Kubernetes(access)
    await client.get("/version")
    first = access.session
    await access.headers(refused={})
    assert access.session is not first
    await client.get("/version")
    await client.close()
    assert first.closed


async def test_token_file_is_read_again(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token is good for a minute, then read again; the last one lasts meanwhile."""
    now = 1000.0
    monkeypatch.setattr("falco_talon.clients.access.time.monotonic", lambda: now)
    file = tmp_path / "token"
    file.write_text("a")
    access = await open_access(write({"tokenFile": "token"}))
    first = await access.headers()
    assert first == {"authorization": "Bearer a"}
    file.write_text("b")
    assert await access.headers() == first
    assert await access.headers(refused=first) == {"authorization": "Bearer b"}
    file.unlink()
    now += 61
    assert await access.headers() == {"authorization": "Bearer b"}
    file.write_text("c")
    now += 61
    assert await access.headers() == {"authorization": "Bearer c"}
    await access.close()


async def test_service_account_is_read_again(cluster: Cluster, admin: Any, tmp_path: Path) -> None:
    """The token of the pod is renewed by the kubelet, and read again when it is refused."""
    authority = admin["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
    (tmp_path / "token").write_text("a")
    (tmp_path / "namespace").write_text("here")
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    access = await open_access(None, environ=environ, service_account=tmp_path)
    first = await access.headers()
    (tmp_path / "token").write_text("b")
    assert await access.headers() == first == {"authorization": "Bearer a"}
    assert await access.headers(refused=first) == {"authorization": "Bearer b"}
    await access.close()
