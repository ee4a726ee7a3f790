"""Commands in containers: ``v5.channel.k8s.io`` over a WebSocket, in bytes.

The SDK speaks v4 only, which cannot close stdin, and in text. Closing the socket ends nothing in
the container; so the first line that comes back is the id of the process, and what must not go on
is ended by a second command.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec

from falco_talon.clients.http import printable
from falco_talon.errors import PluginError

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

    from falco_talon.clients.kubernetes import Kubernetes

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")

_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_CLOSE: Final = 255
_CHUNK_BYTES: Final = 32 * 1024
_END_SECONDS: Final = 10.0
_PROCESS_ID: Final = re.compile(rb"(\d{1,10})\n")
_SHOWN: Final = 1024

# Values are arguments, "$1" and so on: the shell takes them as they are, whatever is in them.
_START: Final = (
    'echo "$$"; n=$1; shift; while [ "$n" -gt 0 ]; do export "$1"; shift; n=$((n-1)); done; '
)
_GO_ON: Final = 'exec "$@"'
# It ends when we have everything: what is under way when it ends may be dropped on the way.
_SEALED: Final = 's=$1; shift; "$@" </dev/null; c=$?; printf %s "$s"; read -r s; exit "$c"'
# The runtime makes each command a session of its own: its children are in its process group.
_END: Final = 'kill -s KILL -- "-$1" || kill -s KILL "$1"'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended; ``truncated`` says that it wrote more than was kept.

    ``lost`` says that a sealed command was ended by somebody else: its stdout may lack an end.
    """

    exit_code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    truncated: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What to run in a container that has a POSIX *shell*.

    *variables* are added to the environment that the container gives it. At most *limit* bytes
    each of stdout and stderr are kept; with *end_at_limit* it is ended there, else it goes on.
    """

    arguments: Sequence[str]
    stdin: bytes = field(default=b"", repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    shell: str = "/bin/sh"
    limit: int = 1024 * 1024
    end_at_limit: bool = False
    stdin_end: bytes = b""
    """What ends stdin where it cannot be closed (v4): ``exit`` for a shell."""
    seal: str = ""
    """What is to follow its stdout, so that all of that arrives: some ASCII that cannot be guessed.
    It ends when we confirm that. Else, under load, the end of a long output may be lost on the way
    and the status be success. It has no stdin of its own, and ``end_at_limit`` goes with it.
    """

    @property
    def started(self) -> list[str]:
        """The words that are really run: they tell the process id, set the variables and go on."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        words = [str(len(variables)), *variables]
        words += [self.seal, *self.arguments] if self.seal else self.arguments
        return [self.shell, "-c", _START + (_SEALED if self.seal else _GO_ON), "sh", *words]


async def run(
    kubernetes: "Kubernetes",
    path: str,
    container: str,
    command: Command,
    *,
    seconds: float,
    protocols: Sequence[str] = PROTOCOLS,
) -> Outcome:
    """Run *command* in a container of the pod whose ``exec`` subresource is at *path*.

    It is ended in the container if it takes longer than *seconds*, or if we are cancelled.

    :raises PluginError: if it cannot start (the API's sentence), took too long, or the connection
        was lost; a command that ends with whatever exit code is no error.
    """
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    if command.stdin or command.seal:
        query.append(("stdin", "true"))
    query += [("command", word) for word in command.started]
    process = _Process(command)
    try:
        async with (
            asyncio.timeout(seconds),
            _socket(kubernetes, path, query, protocols) as socket,
        ):
            await _exchange(socket, process)
    except TimeoutError:
        await _end(kubernetes, path, container, process)
        raise PluginError(
            f"the command did not end within {seconds:g} s and has been killed{process.said}"
        ) from None
    except BaseException:
        await _end(kubernetes, path, container, process)
        raise
    if process.status is None and not process.full:
        await _end(kubernetes, path, container, process)
        raise PluginError("the connection to the container was lost while the command ran")
    if process.full:
        await _end(kubernetes, path, container, process)
    return process.outcome()


class _Process:
    """What is known of a command so far."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.id = b""
        self.status: dict[str, Any] | None = None
        self.full = False
        self.sealed = False
        """Whether all of a sealed command's stdout has come with the last message."""
        self._seal = command.seal.encode()
        self._truncated = False
        self._head: bytes | None = b""
        # A BytesIO gives its bytes away without a copy of them.
        self._outputs = {_STDOUT: BytesIO(), _STDERR: BytesIO()}

    def take(self, frame: bytes) -> bool:
        """Take a message from the server; false when nothing more is of interest."""
        channel = frame[0]
        if channel == _STATUS:
            self.status = _status(frame[1:])
            return False
        if channel not in self._outputs:
            return True
        data = memoryview(frame)[1:]
        if channel == _STDOUT and self._head is not None:
            data = self._take_id(bytes(data))
        output = self._outputs[channel]
        left = self.command.limit - output.tell()
        if channel == _STDOUT:
            left += len(self.command.seal)
        output.write(data[:left])
        self.sealed = bool(self._seal) and channel == _STDOUT and self._is_sealed()
        if len(data) > left:
            self._truncated = True
            self.full = self.command.end_at_limit
        return not self.full

    def _take_id(self, data: bytes) -> memoryview:
        """Return what follows the process id, which stands in the first line of stdout."""
        head = (self._head or b"") + data
        if found := _PROCESS_ID.match(head):
            self.id, self._head = found[1], None
            return memoryview(head)[found.end() :]
        if not head or head.isdigit():  # there is more of it to come
            self._head = head
            return memoryview(b"")
        self._head = None
        return memoryview(head)

    @property
    def said(self) -> str:
        """What it wrote before it was ended, for an error text."""
        output = (self._outputs[_STDERR].getvalue() or self._outputs[_STDOUT].getvalue())[:_SHOWN]
        return f": {printable(output.decode(errors='replace'))}" if output else ""

    def outcome(self) -> Outcome:
        """How it ended.

        :raises PluginError: if it never began.
        """
        code = _exit_code(self.status) if self.status is not None else 0
        lost = not self._break_seal()
        stdout, stderr = (self._outputs[channel].getvalue() for channel in (_STDOUT, _STDERR))
        return Outcome(code, stdout, stderr, self._truncated, lost and not self._truncated)

    def _is_sealed(self) -> bool:
        with self._outputs[_STDOUT].getbuffer() as written:
            return written[-len(self._seal) :] == self._seal

    def _break_seal(self) -> bool:
        """Take the seal off stdout; false if it is not there."""
        if not self._seal:
            return True
        output, sealed = self._outputs[_STDOUT], self._is_sealed()
        size = output.tell() - len(self._seal) if sealed else output.tell()
        output.truncate(min(size, self.command.limit))
        return sealed


def _status(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {"message": data.decode(errors="replace")}


def _exit_code(status: dict[str, Any]) -> int:
    if status.get("status") == "Success":
        return 0
    causes = (status.get("details") or {}).get("causes") or []
    for cause in causes:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    text = printable(str(status.get("message") or status.get("reason") or "no reason given"))
    raise PluginError(f"the command did not start: {text[:_SHOWN]}")


@asynccontextmanager
async def _socket(
    kubernetes: "Kubernetes",
    path: str,
    query: Sequence[tuple[str, str]],
    protocols: Sequence[str],
) -> "AsyncIterator[ClientWebSocketResponse]":
    socket = await kubernetes.connect(path, query, protocols)
    try:
        yield socket
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await socket.close()


async def _exchange(socket: "ClientWebSocketResponse", process: _Process) -> None:
    """Send stdin and take what comes, both at once, until the command has ended."""
    import aiohttp

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(_send(socket, process.command))
        async for message in socket:
            if message.type is aiohttp.WSMsgType.PING:
                with suppress(ConnectionError):  # closed by the server; there may be more to read
                    await socket.pong(message.data)
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            if not process.take(message.data):
                break
            if process.sealed:
                with suppress(ConnectionError):
                    await socket.send_bytes(bytes([_STDIN]) + b"\n")
        sending.cancel()


async def _send(socket: "ClientWebSocketResponse", command: Command) -> None:
    if not command.stdin:
        return
    closes = socket.protocol == PROTOCOLS[0]
    data = command.stdin if closes else command.stdin + command.stdin_end
    with suppress(ConnectionError):  # it has ended without reading all of it
        for start in range(0, len(data), _CHUNK_BYTES):
            await socket.send_bytes(bytes([_STDIN]) + data[start : start + _CHUNK_BYTES])
        if closes:
            await socket.send_bytes(bytes([_CLOSE, _STDIN]))


async def _end(kubernetes: "Kubernetes", path: str, container: str, process: _Process) -> None:
    """End the command in the container, as far as that can be done."""
    if not process.id or process.status is not None:
        return
    words = [process.command.shell, "-c", _END, "sh", process.id.decode()]
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in words]
    ender = _Process(Command(()))
    with suppress(PluginError, TimeoutError):
        async with (
            asyncio.timeout(_END_SECONDS),
            _socket(kubernetes, path, query, PROTOCOLS) as socket,
        ):
            await _exchange(socket, ender)
