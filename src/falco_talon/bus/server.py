"""The embedded nats-server: a child process that keeps the stream in a folder."""

import asyncio
import ctypes
import fcntl
import os
import re
import secrets
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec
import structlog

from falco_talon.bus.binary import find_binary
from falco_talon.bus.connection import Address
from falco_talon.bus.peers import Peers
from falco_talon.bus.server_config import USER, server_config
from falco_talon.errors import BusError

log = structlog.get_logger()

_START_TIMEOUT_SECONDS = 10.0
_STOP_TIMEOUT_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 0.1, 5.0
_LOG_LINE = re.compile(r"^\[\d+\] \S+ \S+ \[(?P<level>[A-Z]{3})\] ?(?P<text>.*)$")
_EXPECTED = "Plaintext passwords detected"  # made anew at each start, in a file of mode 0600
_DISK_FAULT = re.compile(r"[Cc]ritical write error|no space left on device")
_PROBE_SECONDS = 0.5
_PROBE_BYTES = 1024 * 1024
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """A nats-server of our own: started, supervised, stopped with us, killed if we die.

    It listens on 127.0.0.1 only, on a free port, with a password made at each start, which lies
    beside the stream in ``connection.json`` (mode 0600) for ``talon`` commands to find. If there
    are *peers*, it listens on all interfaces, on their port: with the key they share, they may
    store events, and nothing else.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        store_dir: Path,
        *,
        binary: str | None,
        max_payload_bytes: int,
        always_sync: bool,
        peers: Peers | None = None,
    ) -> None:
        self._tasks = tasks
        self._peers = peers
        self.store_dir = store_dir
        self._wanted_binary = binary
        self._max_payload_bytes = max_payload_bytes
        self._always_sync = always_sync
        self._password = secrets.token_urlsafe(32)
        self._port = -1
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._last_lines: list[str] = []
        self._disk_fault = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def address(self) -> Address:
        """Where it listens, from the first start on; a restart keeps the port."""
        return Address(f"nats://127.0.0.1:{self._port}", USER, self._password)

    @property
    def fault(self) -> str:
        """Why it cannot store anything now; empty if it can."""
        return "the disk of nats-server is full" if self._disk_fault.is_set() else ""

    @property
    def pid(self) -> int | None:
        """Its process, if one runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process and running else None

    async def __aenter__(self) -> Self:
        """Start it.

        :raises BusError: with one line on what is missing or in the way.
        """
        self._binary = await find_binary(self._wanted_binary)
        self._lock = _lock(self.store_dir)
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self._supervisor = self._tasks.create_task(self._supervise(), name="nats-server")
        where = "all interfaces, port " if self._peers else "127.0.0.1:"
        log.info("nats", result=f"nats-server is listening on {where}{self._port}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, with its stream safe on disk."""
        await self._stop()

    async def _start(self) -> None:
        self._last_lines.clear()
        process = await asyncio.create_subprocess_exec(
            self._binary,
            "--config",
            str(self._write_config()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for us, not for the server
            preexec_fn=_die_with(os.getpid()),
        )
        self._process = process
        logs = self._tasks.create_task(self._read_logs(process), name="nats-server log")
        try:
            async with asyncio.timeout(_START_TIMEOUT_SECONDS):
                self._port = await self._wait_for_port(process)
                if process.returncode is not None:
                    await logs  # its last words
                    raise BusError(f"nats-server ({self._binary}) ended at once{self._why()}")
        except TimeoutError:
            raise BusError(
                f"nats-server ({self._binary}) did not start within {_START_TIMEOUT_SECONDS:.0f} s"
                f"{self._why()}"
            ) from None
        self._write("connection.json", msgspec.json.encode(self._connection_facts(process.pid)))

    def _connection_facts(self, pid: int) -> dict[str, str | int]:
        address = self.address
        return {
            "url": address.url,
            "user": address.user,
            "password": address.password,
            "pid": pid,
        }

    async def _wait_for_port(self, process: asyncio.subprocess.Process) -> int:
        ports_file = self.store_dir / f"{Path(self._binary).name}_{process.pid}.ports"
        while process.returncode is None:
            try:
                facts = msgspec.json.decode(ports_file.read_bytes())
                port = int(facts["nats"][0].rpartition(":")[2])
            except (FileNotFoundError, msgspec.DecodeError):
                await asyncio.sleep(0.01)
            else:
                return port  # the server removes the file when it ends
        return self._port

    def _why(self) -> str:
        return f": {self._last_lines[-1]}" if self._last_lines else ""

    def _write_config(self) -> Path:
        config = server_config(
            self.store_dir,
            port=self._port,
            password=self._password,
            peers=self._peers,
            max_payload_bytes=self._max_payload_bytes,
            always_sync=self._always_sync,
        )
        # The server's configuration language is a superset of JSON.
        return self._write("nats-server.json", msgspec.json.encode(config))

    def _write(self, name: str, data: bytes) -> Path:
        path = self.store_dir / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return path

    async def _read_logs(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            match = _LOG_LINE.match(line)
            level, text = match["level"] if match else "ERR", match["text"] if match else line
            if level in {"ERR", "FTL"}:
                self._note_error(text)
            elif level == "WRN" and not text.startswith(_EXPECTED):
                log.warning("nats", result=text)
            else:
                log.debug("nats", result=text)

    def _note_error(self, text: str) -> None:
        self._last_lines = [*self._last_lines[-4:], text]
        if _DISK_FAULT.search(text):
            if self._disk_fault.is_set():  # it says so for every message it refuses
                return
            self._disk_fault.set()
        log.error("nats", error=text)

    async def _supervise(self) -> None:
        """Start the server again whenever it ends by itself, ever more patiently."""
        backoff = _FIRST_BACKOFF_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            if self._process is not None:
                started = clock()
                code = await self._end_of(self._process)
                log.error("nats", error=f"nats-server ended with code {code}, starting it again")
                if clock() - started > _LAST_BACKOFF_SECONDS:
                    backoff = _FIRST_BACKOFF_SECONDS
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)
            try:
                await self._start()
            except (BusError, OSError) as error:
                log.error("nats", error=str(error))
                await self._kill()

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        """Wait until the server ends, or end it: after a full disk it refuses for ever."""
        async with asyncio.TaskGroup() as tasks:
            relief = tasks.create_task(self._relieve(process), name="nats-server disk")
            code = await process.wait()
            relief.cancel()
        return code

    async def _relieve(self, process: asyncio.subprocess.Process) -> None:
        """Once the disk was full and has room again, let the server start anew."""
        await self._disk_fault.wait()
        while not self._has_room():  # noqa: ASYNC110 - nobody tells that files were deleted
            await asyncio.sleep(_PROBE_SECONDS)
        log.info("nats", result="there is room on the disk again")
        process.terminate()
        self._disk_fault.clear()

    def _has_room(self) -> bool:
        probe = self.store_dir / "probe"
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)
        return True

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                    await process.wait()
            except TimeoutError:
                log.warning("nats", result="nats-server does not stop, killing it")
                await self._kill()
        if self._lock is not None:
            (self.store_dir / "connection.json").unlink(missing_ok=True)
            self._lock.close()


def _lock(store_dir: Path) -> IO[str]:
    """Take the folder for this process; the lock goes with us, however we end."""
    try:
        store_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (store_dir / "lock").open("w")
    except OSError as error:
        raise BusError(
            f"nats.store_dir '{store_dir}' cannot be written: {error.strerror}"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise BusError(
            f"nats.store_dir '{store_dir}' is in use by another falco-talon: "
            "stop that one or set another folder"
        ) from None
    return lock


def _die_with(parent: int):  # type: ignore[no-untyped-def]
    """Return what makes a child die with *parent*, even if that is killed by -9 (Linux)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask_for_death() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask_for_death
