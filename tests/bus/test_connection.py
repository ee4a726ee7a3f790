"""The ways into a NATS that somebody else runs, on a real nats-server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from falco_talon.bus import Address, connect
from falco_talon.bus.binary import find_binary
from falco_talon.config import Config
from falco_talon.errors import BusError
from tests.bus.cluster import free_ports
from tests.cluster.certificates import Authority

Serve = Callable[..., Any]


@asynccontextmanager
async def server(folder: Path, **settings: Any) -> AsyncIterator[int]:
    """Run a nats-server with these settings; gives its port."""
    (port,) = free_ports(1)
    config = folder / "server.json"
    config.write_text(json.dumps({"listen": f"127.0.0.1:{port}", **settings}))
    command = [await find_binary(None), "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                break
        yield port
    finally:
        process.terminate()
        await process.wait()


def address(**nats: Any) -> Address:
    return Address.external(Config.model_validate({"nats": nats}))


async def test_a_token(tmp_path: Path) -> None:
    """The token lets in; another one does not, and neither is shown."""
    async with server(tmp_path, authorization={"token": "t0ken"}) as port:
        url = f"nats://127.0.0.1:{port}"
        good, bad = address(url=[url], token="t0ken"), address(url=[url], token="wr0ng")
        async with connect(good) as client:
            assert client.is_connected
        with pytest.raises(BusError, match=f"no connection to nats-server at {url}") as caught:
            async with connect(bad):
                pass
    assert "wr0ng" not in str(caught.value) + repr(bad)


async def test_tls_on_both_sides(tmp_path: Path) -> None:
    """We trust only the authority that is named, and show our certificate."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("server", "server", hosts=["127.0.0.1"])
    own_cert, own_key = authority.issue("client", "talon")
    tls = {
        "cert_file": str(cert),
        "key_file": str(key),
        "ca_file": str(authority.certificate),
        "verify": True,
    }
    async with server(tmp_path, tls=tls) as port:
        url = f"tls://127.0.0.1:{port}"
        async with connect(
            address(url=[url], ca_file=authority.certificate, cert_file=own_cert, key_file=own_key)
        ) as client:
            assert client.is_connected
        with pytest.raises(BusError, match="no connection"):
            async with connect(address(url=[url])):
                pass


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    """The error names the files."""
    with pytest.raises(BusError, match="TLS to NATS cannot be set up .*absent.pem"):
        address(url=["tls://x"], ca_file=tmp_path / "absent.pem")


async def test_the_next_server_is_tried(tmp_path: Path) -> None:
    """One server of the list is enough."""
    (unused,) = free_ports(1)
    async with server(tmp_path) as port:
        both = [f"nats://127.0.0.1:{unused}", f"nats://127.0.0.1:{port}"]
        async with connect(address(url=both)) as client:
            assert client.is_connected
