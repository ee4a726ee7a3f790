"""Commands in real containers: the protocol, its faults, and what it leaves behind."""

import asyncio
import os
from pathlib import Path

import pytest

from falco_talon.clients import Clients, pod_exec
from falco_talon.clients.kubernetes import NotFound, path
from falco_talon.clients.pod_exec import PROTOCOLS, Command, Outcome
from falco_talon.errors import PluginError, TransientError
from tests.actionners.conftest import Running
from tests.proxy import proxied


async def run(
    clients: Clients, running: Running, command: Command, *, seconds: float = 20, **options: object
) -> Outcome:
    """Run it in the container `web`."""
    where = path("pods", running.name, namespace=running.namespace, subresource="exec")
    return await pod_exec.run(
        clients.kubernetes, where, "web", command, seconds=seconds, **options  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("protocols", [PROTOCOLS, PROTOCOLS[1:]], ids=["v5", "v4"])
async def test_outcome(protocols: tuple[str, ...], clients: Clients, running: Running) -> None:
    """Exit code, stdout and stderr are told apart, in both protocols."""
    command = Command(("sh", "-c", "echo out; echo err >&2; exit 7"))
    assert await run(clients, running, command, protocols=protocols) == Outcome(
        7, b"out\n", b"err\n"
    )


async def test_stdin_is_closed(clients: Clients, running: Running) -> None:
    """v5: what reads stdin to its end sees that end; every byte arrives, and comes back."""
    data = os.urandom(600_000)
    outcome = await run(clients, running, Command(("cat",), stdin=data, limit=1_000_000))
    assert outcome == Outcome(0, data, b"")


async def test_stdin_without_close(clients: Clients, running: Running) -> None:
    """v4: a shell fed by stdin ends because it is told to."""
    command = Command(("sh",), stdin=b"echo hello; (exit 3)", stdin_end=b"\nexit\n")
    outcome = await run(clients, running, command, protocols=PROTOCOLS[1:])
    assert outcome == Outcome(3, b"hello\n", b"")


async def test_stdin_that_nobody_reads(clients: Clients, running: Running) -> None:
    """A command that ends without reading its stdin ends."""
    outcome = await run(clients, running, Command(("true",), stdin=b"x" * 60_000))
    assert outcome.exit_code == 0


async def test_end_at_limit(clients: Clients, running: Running) -> None:
    """A command that is to end at the limit is gone from the container then."""
    command = Command(("sh", "-c", "yes 4713; true"), limit=100, end_at_limit=True)
    outcome = await run(clients, running, command)
    assert (outcome.truncated, len(outcome.stdout)) == (True, 100)
    assert "4713" not in running.sh("ps -o args")


@pytest.mark.parametrize("protocols", [PROTOCOLS, PROTOCOLS[1:]], ids=["v5", "v4"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo one; exit 3", Outcome(3, b"one\n", b"")),
        ("printf %s 12345678", Outcome(0, b"12345678", b"")),
        ("printf %s 123456789123456789; sleep 4715", Outcome(0, b"12345678", b"", truncated=True)),
        ("cat; true", Outcome(0, b"", b"")),
        ("printf one; kill -s KILL $PPID", Outcome(137, b"one", b"", lost=True)),
    ],
    ids=["exit code", "as long as allowed", "longer", "no stdin", "killed"],
)
async def test_sealed(
    text: str, expected: Outcome, protocols: tuple[str, ...], clients: Clients, running: Running
) -> None:
    """A sealed command ends when its output is here; that is known to be all of it, or not."""
    command = Command(("sh", "-c", text), limit=8, end_at_limit=True, seal="0f3c")
    assert await run(clients, running, command, protocols=protocols) == expected
    assert "4715" not in running.sh("ps -o args")


async def test_sealed_output_is_whole(running: Running, tmp_path: Path) -> None:
    """However slowly it is read, nothing is lost at the end of a long output."""
    command = Command(("head", "-c", "20000000", "/dev/zero"), limit=30_000_000, seal="0f3c")
    async with (
        proxied(running.cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        proxy.delay_seconds = 0.005
        outcome = await run(clients, running, command)
    assert (len(outcome.stdout), outcome.lost) == (20_000_000, False)


async def test_refused(clients: Clients, running: Running) -> None:
    """What the API refuses is told in its words."""
    where = path("pods", "absent", namespace=running.namespace, subresource="exec")
    with pytest.raises(NotFound, match='pods "absent" not found'):
        await pod_exec.run(clients.kubernetes, where, "web", Command(("true",)), seconds=9)
    where = path("pods", running.name, namespace=running.namespace, subresource="exec")
    with pytest.raises(PluginError, match="container absent is not valid"):
        await pod_exec.run(clients.kubernetes, where, "absent", Command(("true",)), seconds=9)


async def test_lost_connection(running: Running, tmp_path: Path) -> None:
    """A connection that is reset half-way is final, and the command does not go on alone."""
    async with (
        proxied(running.cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(
                _raises(run(clients, running, Command(("sh", "-c", "sleep 4714; true"))))
            )
            while "4714" not in await asyncio.to_thread(running.sh, "ps -o args"):
                assert not task.done()
            proxy.cut()
        assert "connection to the container was lost" in str(task.result())
        assert type(task.result()) is PluginError
    assert "4714" not in running.sh("ps -o args")


async def test_slow_api(running: Running, tmp_path: Path) -> None:
    """A slow API server delays the command, no more."""
    async with (
        proxied(running.cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        proxy.delay_seconds = 0.2
        assert await run(clients, running, Command(("echo", "a"))) == Outcome(0, b"a\n", b"")


async def test_unreachable_api(running: Running, unused_url: str, tmp_path: Path) -> None:
    """An API server that is away may come back: nothing was run."""
    kubeconfig = tmp_path / "kubeconfig"
    text = running.cluster.kubeconfig.read_text()
    folder = running.cluster.kubeconfig.parent
    for line in text.splitlines():
        if line.strip().startswith("server:"):
            text = text.replace(line, line.partition("server:")[0] + f"server: {unused_url}")
    for name in ("certificate-authority", "client-certificate", "client-key"):
        text = text.replace(f"{name}: ", f"{name}: {folder}/")
    kubeconfig.write_text(text)
    async with Clients(kubeconfig=kubeconfig) as clients:
        await clients.ready({"kubernetes"})
        with pytest.raises(TransientError, match="cannot be reached"):
            await run(clients, running, Command(("true",)))


async def _raises(running: object) -> Exception:
    with pytest.raises(PluginError) as raised:
        await running  # type: ignore[misc]
    return raised.value
