"""``talon demo``: three events, one real reaction, on this machine and nowhere else."""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientSession, web

from falco_talon.cli.demo_cluster import demo_pod
from falco_talon.errors import TalonError

_TITLE, _GREEN, _GREY = "\x1b[36m\x1b[1m", "\x1b[32m", "\x1b[90m"
_UP = re.compile(r"up and listening on [^ ]*:(\d+)")
_START_SECONDS = 20.0
_REACTION_SECONDS = 10.0


@dataclass(slots=True)
class Receiver:
    """The other side: a ticket system and a chat, played by one small HTTP server."""

    port: int = 0
    tickets: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take what the action or the notifier sends."""
        body = await request.json()
        if request.path == "/tickets":
            self.tickets.append(body)
            answer = {"ticket": len(self.tickets), "about": body["rule"]}
        else:
            self.messages.append(body)
            answer = {}
        self.changed.set()
        return web.json_response(answer)

    async def wait_for(self, tickets: int, messages: int) -> None:
        """Wait until that many came.

        :raises TalonError: if they do not come in time.
        """
        try:
            async with asyncio.timeout(_REACTION_SECONDS):
                while len(self.tickets) < tickets or len(self.messages) < messages:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise TalonError("the demo failed: no reaction came, see the log above") from None


async def demo(kubeconfig: str | None) -> None:
    """Start a daemon, post three events, show what it does with them, stop it.

    :raises TalonError: if any of that does not work.
    """
    _say("Falco Talon demo", f"a daemon, a receiver and {'a pod' if kubeconfig else 'no cluster'}")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="talon-demo-")))
        receiver = await enter(_receiving())
        pod = await enter(demo_pod(kubeconfig)) if kubeconfig else None
        rules = _rules(receiver.port, folder, label=pod is not None)
        (folder / "rules.yaml").write_text(rules)
        (folder / "config.yaml").write_text(yaml.safe_dump(_config(receiver.port, folder)))
        _say("1. The rule", "what to do when a shell is spawned in a container")
        print(_indent(rules))

        _say("2. The daemon", "with a NATS server of its own")
        port = await enter(_daemon(folder, kubeconfig))
        post = _poster(await enter(ClientSession()), port)
        where = (pod.namespace, pod.name) if pod else ("demo", "web-5d4f8c7b9-x2x7k")
        shell = _event("Terminal shell in container", "A shell was spawned", where)

        _say("3. A Falco event", "the rule matches: the actions run, the reply is stored")
        trace_id = await post(shell)
        await receiver.wait_for(tickets=1, messages=3 if pod else 2)
        await asyncio.sleep(0.2)  # for the last lines of the log
        _say("4. The same event again", "a duplicate within 5 s: nothing happens")
        await post(shell)
        _say("5. Another event", "no rule matches: nothing happens")
        await post(_event("Read sensitive file untrusted", "/etc/shadow was read", where))
        await asyncio.sleep(0.5)  # were there a second reaction, it would show by now

        _say("What happened", f"everything under the trace id {trace_id}")
        await _show_results(receiver, folder, trace_id)
        if pod is not None:
            print(f"  the pod {pod.name}: labels {json.dumps(await pod.labels())}")
        _say("Stopping", "the daemon ends what is under way and leaves nothing behind")
    print(f"{_paint('Done.', _GREEN)} Next: talon rules check --help, or the README.")


async def _show_results(receiver: Receiver, folder: Path, trace_id: str) -> None:
    tickets, traces = receiver.tickets, {ticket["trace_id"] for ticket in receiver.tickets}
    if len(tickets) != 1 or traces != {trace_id}:
        raise TalonError(f"the demo failed: {len(tickets)} reactions where one was right")
    print(f"  http:request  the receiver got the event of {tickets[0]['hostname']}, once")
    for file in await asyncio.to_thread(lambda: sorted(folder.glob("artifacts/*"))):
        print(f"  local:file    {file.name}: {await asyncio.to_thread(file.read_text)}")
    for message in receiver.messages:
        step = f"{message['stage']} {message['action']}: {message['status']}"
        print(f"  webhook       {step} {_paint(message['output'], _GREY)}")


@asynccontextmanager
async def _receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.handle, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _daemon(folder: Path, kubeconfig: str | None) -> AsyncIterator[int]:
    """Run ``talon server``; gives its port, once it is ready."""
    environ = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    if kubeconfig:
        environ["FALCO_TALON_KUBECONFIG"] = kubeconfig
    command = [sys.executable, "-m", "falco_talon", "server", "-c", str(folder / "config.yaml")]
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE
    )
    listening = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_relay(process, listening))
        try:
            async with asyncio.timeout(_START_SECONDS):
                yield await listening
        finally:
            if process.returncode is None:
                process.terminate()
            if await process.wait() != 0 and not listening.cancelled():
                raise TalonError("the demo failed: the daemon did not end well, see above")


async def _relay(process: asyncio.subprocess.Process, listening: asyncio.Future[int]) -> None:
    """Show the daemon's lines as they come; the one that names the port makes it known."""
    if process.stdout is None:
        return
    async for raw in process.stdout:
        line = raw.decode(errors="replace").rstrip()
        print(f"  {line}", flush=True)
        match = _UP.search(line)
        if match and not listening.done():
            listening.set_result(int(match[1]))
    if not listening.done():
        listening.set_exception(TalonError("the demo failed: the daemon did not start, see above"))


def _poster(session: ClientSession, port: int) -> Callable[[dict[str, Any]], Awaitable[str]]:
    """Return what posts an event as Falco does, and gives the trace id that we chose for it."""

    async def post(event: dict[str, Any]) -> str:
        trace_id = os.urandom(16).hex()
        headers = {"traceparent": f"00-{trace_id}-{os.urandom(8).hex()}-01"}
        async with session.post(f"http://127.0.0.1:{port}/", json=event, headers=headers) as reply:
            print(f"  POST / {event['rule']!r} → {reply.status}", flush=True)
            reply.raise_for_status()
        return trace_id

    return post


def _event(rule: str, output: str, pod: tuple[str, str]) -> dict[str, Any]:
    namespace, name = pod
    return {
        "hostname": "node-1",
        "output": f"12:00:00.000000000: Notice {output} (user=root k8s.ns={namespace} pod={name})",
        "output_fields": {
            "evt.time": 1763719933123456789,
            "k8s.ns.name": namespace,
            "k8s.pod.name": name,
            "proc.name": "bash",
            "user.name": "root",
        },
        "priority": "Notice",
        "rule": rule,
        "source": "syscall",
        "tags": ["container", "shell"],
        "time": datetime.now(UTC).isoformat(),
    }


def _rules(port: int, folder: Path, *, label: bool) -> str:
    (folder / "artifacts").mkdir()
    labelling = (
        ""
        if not label
        else """\
    - action: Label the pod
      actionner: kubernetes:label
      parameters:
        labels: {suspicious: "true"}
"""
    )
    return f"""\
- rule: Shell in a container
  match:
    rules: [Terminal shell in container]
  actions:
{labelling}    - action: Open a ticket
      actionner: http:request
      parameters:
        url: http://127.0.0.1:{port}/tickets
      output:
        target: local:file
        parameters:
          destination: {folder}/artifacts
"""


def _config(port: int, folder: Path) -> dict[str, Any]:
    return {
        "listen_address": "127.0.0.1",
        "listen_port": 0,
        "rules_files": [f"{folder}/rules.yaml"],
        "log_format": "text" if os.environ.get("NO_COLOR") else "color",
        "default_notifiers": ["webhook"],
        "notifiers": {"webhook": {"url": f"http://127.0.0.1:{port}/chat"}},
        "nats": {"store_dir": f"{folder}/store"},
    }


def _say(title: str, text: str) -> None:
    print(f"\n{_paint(title, _TITLE)} {_paint(text, _GREY)}", flush=True)


def _paint(text: str, colour: str) -> str:
    return text if os.environ.get("NO_COLOR") else f"{colour}{text}\x1b[0m"


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
