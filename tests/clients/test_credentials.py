"""What says who we are, tried on the real API server, and renewed."""

import asyncio
import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falco_talon.clients.credentials import ExecPlugin, TokenFile
from falco_talon.clients.kubeconfig import load_access
from falco_talon.errors import TalonError
from tests.clients.conftest import who


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
