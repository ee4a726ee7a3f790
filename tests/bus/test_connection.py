"""The ways into a NATS that somebody else runs, on a real nats-server."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest

from falco_talon.bus import Address, connect
from falco_talon.bus.binary import find_binary
from falco_talon.config import Config
from falco_talon.errors import BusError
from tests.bus.cluster import free_ports
from tests.cluster.certificates import Authority

Serve = Callable[..., Any]


@asynccontextmanager
async def server(folder: Path, *, port: int = 0, **settings: Any) -> AsyncIterator[int]:
    """Run a nats-server with these settings; gives its port."""
    port = port or free_ports(1)[0]
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


def key_pair(prefix: int) -> tuple[str, nkeys.KeyPair]:
    """Make a seed and its pair of keys."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), prefix)
    return seed.decode(), nkeys.from_seed(bytearray(seed))


def jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, **claims: Any) -> str:
    """Return what *issuer* says of *subject*, signed as NATS wants it."""

    def encoded(part: bytes) -> bytes:
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    body = {
        "jti": secrets.token_hex(16),
        "iat": 1767225600,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": kind,
        "nats": {"type": kind, "version": 2, **claims},
    }
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = b".".join(encoded(json.dumps(part).encode()) for part in (header, body))
    return (text + b"." + encoded(issuer.sign(text))).decode()


async def test_an_nkey(tmp_path: Path) -> None:
    """The seed in a file lets in; that of somebody else does not, and is not shown."""
    seed, pair = key_pair(nkeys.PREFIX_BYTE_USER)
    other, _ = key_pair(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_text(f"{seed}\n")
    (tmp_path / "other").write_text(other)
    users = [{"nkey": pair.public_key.decode()}]
    async with server(tmp_path, authorization={"users": users}) as port:
        url = f"nats://127.0.0.1:{port}"
        async with connect(address(url=[url], nkey_seed_file=tmp_path / "seed")) as client:
            assert client.is_connected
        bad = address(url=[url], nkey_seed_file=tmp_path / "other")
        with pytest.raises(BusError, match="Authorization Violation") as caught:
            async with connect(bad):
                pass
    assert other not in str(caught.value) + repr(bad)


async def test_a_credentials_file(tmp_path: Path) -> None:
    """A user of an account of an operator comes in with the file that `nsc` makes."""
    _, operator = key_pair(nkeys.PREFIX_BYTE_OPERATOR)
    _, account = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, user = key_pair(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": -1, "data": -1, "payload": -1}
    more = {"imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    public = account.public_key.decode()
    settings: dict[str, Any] = {
        "operator": jwt(operator, operator, "operator"),
        "resolver": "MEMORY",
        "resolver_preload": {public: jwt(operator, account, "account", limits=limits | more)},
    }
    file = tmp_path / "user.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt(account, user, 'user', **limits)}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    async with server(tmp_path, **settings) as port:
        url = f"nats://127.0.0.1:{port}"
        async with connect(address(url=[url], credentials_file=file)) as client:
            assert client.is_connected


@pytest.mark.parametrize("key", ["nkey_seed_file", "credentials_file"])
@pytest.mark.parametrize("text", [None, "", "SUABC", f"SU{'A' * 50}"], ids=str)
def test_files_that_hold_no_seed(tmp_path: Path, key: str, text: str | None) -> None:
    """The error names the key and the file, and shows nothing of what it holds."""
    file = tmp_path / "seed"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BusError, match=f"nats.{key} '{file}'") as caught:
        address(url=["nats://x"], **{key: file})
    assert not text or text not in str(caught.value)


async def test_a_lost_connection_is_made_anew(tmp_path: Path) -> None:
    """However long the server is away."""
    async with server(tmp_path) as port:
        url = f"nats://127.0.0.1:{port}"
        stack = AsyncExitStack()
        client = await stack.enter_async_context(connect(address(url=[url])))
    async with stack:
        await asyncio.sleep(3)
        assert not client.is_connected
        async with server(tmp_path, port=port), asyncio.timeout(5):
            while not client.is_connected:
                await asyncio.sleep(0.05)
