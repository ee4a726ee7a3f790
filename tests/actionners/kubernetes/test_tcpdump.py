"""kubernetes:tcpdump, in a real ephemeral container."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes.tcpdump import Tcpdump
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Result
from tests.actionners.conftest import Running, about
from tests.cluster.cluster import Resource
from tests.proxy import proxied


async def tcpdump(clients: Clients, event: Event, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Tcpdump(Tcpdump.Parameters.model_validate(parameters), clients)
    await plugin.check(event)
    return await plugin.run(event)


def ephemeral(running: Running) -> dict[str, tuple[Resource, Resource]]:
    """Return specification and state of each ephemeral container of the pod."""
    pod = running.cluster.pod(running.namespace, running.name)
    states = {
        each["name"]: each["state"] for each in pod["status"].get("ephemeralContainerStatuses", [])
    }
    specs = pod["spec"].get("ephemeralContainers") or []
    return {each["name"]: (each, states.get(each["name"], {})) for each in specs}


def packets(data: bytes, file: Path) -> str:
    """Return what tcpdump reads in the capture."""
    program = shutil.which("tcpdump")
    if not program:
        pytest.skip("needs tcpdump")
    file.write_bytes(data)
    words = [program, "-n", "-A", "-r", str(file)]
    return subprocess.run(
        words, capture_output=True, text=True, check=True, errors="replace"
    ).stdout


async def _talk(running: Running, text: str) -> None:
    """Send datagrams with this text (a name to resolve), until cancelled."""
    while True:
        send = f"timeout 1 nslookup {text} 127.0.0.1 2>&1; true"
        await asyncio.to_thread(running.sh, send)
        await asyncio.sleep(0.1)


async def test_ac_23_capture(clients: Clients, running: Running, tmp_path: Path) -> None:
    """The capture holds a packet that was sent meanwhile; the container had few
    capabilities, and ends with the capture.
    """
    async with asyncio.TaskGroup() as tasks:
        talk = tasks.create_task(_talk(running, "talon-was-here"))
        result = await tcpdump(clients, running.about(), duration=3, filter="udp port 53")
        talk.cancel()
    assert result.text == "a tcpdump 'tcpdump.pcap' has been created"
    assert result.objects == {"pod": "web", "namespace": running.namespace}
    assert result.artifact
    assert result.artifact.name == "tcpdump.pcap"
    assert "talon-was-here" in packets(result.artifact.data, tmp_path / "pcap")
    (name, (spec, _)), *_ = ephemeral(running).items()
    assert re.fullmatch(r"falco-talon-tcpdump-[0-9a-f]{5}", name)
    assert spec["securityContext"]["capabilities"] == {
        "drop": ["ALL"], "add": ["NET_RAW", "NET_ADMIN", "SETUID", "SETGID", "KILL"],
    }  # fmt: skip
    assert "privileged" not in spec["securityContext"]
    assert "targetContainerName" not in spec
    running.cluster.wait_for(
        lambda: "terminated" in ephemeral(running)[name][1], timeout=10, what="its end"
    )


async def test_count(clients: Clients, running: Running, tmp_path: Path) -> None:
    """After so many packets the capture ends before its time."""
    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        talk = tasks.create_task(_talk(running, "counted"))
        result = await tcpdump(clients, running.about(), duration=60, filter="udp", count=2)
        talk.cancel()
    assert time.monotonic() - started < 30
    assert result.artifact
    assert len(re.findall(" IP ", packets(result.artifact.data, tmp_path / "pcap"))) == 2


async def test_nothing_captured(clients: Clients, running: Running, tmp_path: Path) -> None:
    """A capture without packets is a capture."""
    result = await tcpdump(clients, running.about(), duration=1, filter="port 9")
    assert result.artifact
    assert packets(result.artifact.data, tmp_path / "pcap") == ""


async def test_wrong_filter(clients: Clients, running: Running) -> None:
    """A filter that tcpdump refuses is an error in its words."""
    with pytest.raises(PluginError, match=r"exit code 1: .*syntax error"):
        await tcpdump(clients, running.about(), filter="no such expression")


async def test_fault_while_it_starts(running: Running, tmp_path: Path) -> None:
    """A watch that fails is begun again; no second container is made."""
    async with (
        proxied(running.cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        proxy.answer("watch=true", 500)
        await tcpdump(clients, running.about(), duration=1)
    assert len([each for each in proxy.requests if each.startswith("PATCH")]) == 1


async def test_limit(clients: Clients, running: Running, tmp_path: Path) -> None:
    """A capture ends at its size, which the result tells, and what is there can be read."""
    async with asyncio.TaskGroup() as tasks:
        talk = tasks.create_task(_talk(running, "limited"))
        result = await tcpdump(clients, running.about(), duration=60, max_bytes=300)
        talk.cancel()
    assert result.text == "a tcpdump 'tcpdump.pcap' has been created (truncated to 300 bytes)"
    assert result.artifact
    assert len(result.artifact.data) == 300


async def test_shared_processes(clients: Clients, running: Running) -> None:
    """Where the pod shares its processes, process 1 is the pod itself: that is not ended."""
    cluster, namespace = running.cluster, running.namespace
    cluster.create_pod(namespace, "shared", shareProcessNamespace=True)
    before = cluster.pod_running(namespace, "shared")
    result = await tcpdump(clients, about(namespace, "shared"), duration=1)
    assert result.text == "a tcpdump 'tcpdump.pcap' has been created"
    shared = Running(cluster, namespace, "shared")

    def ended() -> bool:
        return all("terminated" in state for _, state in ephemeral(shared).values())

    cluster.wait_for(ended, timeout=10, what="the end of the container")
    after = cluster.pod_running(namespace, "shared")
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    assert after["status"]["podIP"] == before["status"]["podIP"]


async def test_security_context(clients: Clients, running: Running) -> None:
    """Where the default one is not enough, or not allowed, another one can be given."""
    before = ephemeral(running)
    await tcpdump(clients, running.about(), duration=1, security_context={"privileged": True})
    ((spec, _),) = [each for name, each in ephemeral(running).items() if name not in before]
    assert spec["securityContext"] == {"privileged": True}


PROGRAM = """
import asyncio, sys
from falco_talon.actionners.kubernetes.tcpdump import Tcpdump
from falco_talon.clients import Clients
from falco_talon.event import Event
async def main():
    async with Clients(kubeconfig=sys.argv[1]) as clients:
        await clients.ready({"kubernetes"})
        plugin = Tcpdump(Tcpdump.Parameters(duration=3, margin_seconds=4), clients)
        fields = {"k8s.ns.name": sys.argv[2], "k8s.pod.name": "web"}
        await plugin.run(Event(output_fields=fields))
asyncio.run(main())
"""


def test_ac_23_it_ends_without_us(running: Running) -> None:
    """When we are killed during a capture, it ends all the same, and its container too."""
    before = ephemeral(running)
    words = [sys.executable, "-c", PROGRAM, str(running.cluster.kubeconfig), running.namespace]

    def new() -> list[str]:
        return [name for name in ephemeral(running) if name not in before]

    def state(kind: str) -> bool:
        return bool(new()) and kind in ephemeral(running)[new()[0]][1]

    with subprocess.Popen(words) as process:
        running.cluster.wait_for(lambda: state("running"), what="the container")
        name = new()[0]
        running.cluster.wait_for(
            lambda: "tcpdump -n" in running.sh("ps -o args", name), what="tcpdump"
        )
        process.kill()
    running.cluster.wait_for(
        lambda: "tcpdump -n" not in running.sh("ps -o args", name), timeout=6, what="its end"
    )
    running.cluster.wait_for(lambda: state("terminated"), timeout=12, what="the container's end")


async def test_missing_image(clients: Clients, running: Running) -> None:
    """An image that cannot be had is an error with the reason, long before the time is up."""
    started = time.monotonic()
    with pytest.raises(PluginError, match=r"container for the tcpdump .* not ready: Err\w*Pull"):
        await tcpdump(clients, running.about(), image="absent:latest", image_pull_policy="Never")
    assert time.monotonic() - started < 20


async def test_missing_pod(clients: Clients, running: Running) -> None:
    """A pod that is not there is an error of the event."""
    with pytest.raises(CheckError, match="the pod 'absent' .* doesn't exist"):
        await tcpdump(clients, about(running.namespace, "absent"))


@pytest.mark.parametrize(
    "text", ["-w /x", "port 80; id", "$(id)", "host `id`", "(port 80", "a\nb", "x" * 2000]
)
def test_wrong_filters(text: str) -> None:
    """What can be no filter stops the load of the rules."""
    with pytest.raises(ValidationError, match="is no capture filter"):
        Tcpdump.Parameters.model_validate({"filter": text})


@pytest.mark.parametrize(
    "text", ["", "tcp port 443", "host 10.0.0.1 and not (port 22 or port 53)", "ip[8] < 5", "!arp",
             "net fd00::/8", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0"]
)  # fmt: skip
def test_filters(text: str) -> None:
    """What tcpdump understands passes."""
    assert Tcpdump.Parameters.model_validate({"filter": text}).filter == text


def test_ac_23_defaults() -> None:
    """AC-3: the listed defaults are those in effect, and the time limit fits the capture."""
    plugin = Tcpdump(Tcpdump.Parameters(), Clients())
    assert (plugin.parameters.duration, plugin.parameters.snaplen) == (5, 4096)
    longer = Tcpdump(Tcpdump.Parameters(duration=90, ready_timeout_seconds=20), Clients())
    assert longer.duration_seconds == 110
    zero = Tcpdump(Tcpdump.Parameters(duration=0), Clients())
    assert zero.duration_seconds == 65
