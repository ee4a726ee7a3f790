"""kubernetes:download, from real containers."""

import io
import subprocess
import sys
import tarfile
from typing import Any

import pytest

from falco_talon.actionners.kubernetes.download import Download
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, Result
from tests.actionners.conftest import Running

MEGABYTE = 1024 * 1024


async def fetch(clients: Clients, event: Event, file: str, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Download(Download.Parameters.model_validate({"file": file, **parameters}), clients)
    await plugin.check(event)
    return await plugin.run(event)


def data_of(result: Result) -> bytes:
    """Return what was fetched."""
    assert result.artifact
    return result.artifact.data


async def test_file(clients: Clients, running: Running) -> None:
    """Every byte arrives, and the artifact has the path for a name."""
    running.sh("printf '\\000\\377\\r\\n1234\\n' >/tmp/binary")
    objects = {"pod": "web", "namespace": running.namespace, "container": "web"}
    objects["file"] = "/tmp/binary"
    result = await fetch(clients, running.about(), "/tmp/binary")
    artifact = Artifact("/tmp/binary", b"\x00\xff\r\n1234\n", objects)
    assert result == Result("the file '/tmp/binary' has been downloaded", objects, artifact)


async def test_numbers(clients: Clients, running: Running) -> None:
    """A file that looks like a process id is the file."""
    running.sh("printf '12\\n34' >/tmp/numbers")
    assert data_of(await fetch(clients, running.about(), "/tmp/numbers")) == b"12\n34"


async def test_ac_32_empty_file(clients: Clients, running: Running) -> None:
    """An empty file is a file."""
    running.sh("true >/tmp/empty")
    assert data_of(await fetch(clients, running.about(), "/tmp/empty")) == b""


@pytest.mark.parametrize("name", ["-n", "-", "a b", "$(id)", "'", "a\nb", "*", "é", ";id"])
async def test_ac_08_ac_32_names(name: str, clients: Clients, running: Running) -> None:
    """A name from the event is a name: no option, no pattern, no command."""
    quoted = name.replace("'", "'\\''")
    running.sh(f"mkdir -p /tmp/names; printf right >'/tmp/names/{quoted}'")
    event = running.about(**{"fd.name": name, "fd.directory": "/tmp/names"})
    assert data_of(await fetch(clients, event, "${FD_DIRECTORY}/$FD_NAME")) == b"right"
    with pytest.raises(PluginError, match="exit code 1"):
        await fetch(clients, event, "$FD_NAME")  # it is not in the working directory


async def test_folder(clients: Clients, running: Running) -> None:
    """A folder comes as a tar archive."""
    running.sh("mkdir -p /tmp/folder/deep; echo hello >/tmp/folder/deep/file")
    result = await fetch(clients, running.about(), "/tmp/folder/")
    assert result.artifact
    assert result.artifact.name == "/tmp/folder.tar"
    with tarfile.open(fileobj=io.BytesIO(result.artifact.data)) as archive:
        member = archive.extractfile("./deep/file")
        assert member
        assert member.read() == b"hello\n"


async def test_missing_file(clients: Clients, running: Running) -> None:
    """A file that is in no container is an error that says so of each."""
    with pytest.raises(PluginError, match="'web': .*No such file.*; container 'other': .*No such"):
        await fetch(clients, running.about(), "/absent")


async def test_other_container(clients: Clients, running: Running) -> None:
    """A file that only the second container has is found there."""
    running.sh("echo other >/tmp/only-there", "other")
    result = await fetch(clients, running.about(), "/tmp/only-there")
    assert (data_of(result), result.objects["container"]) == (b"other\n", "other")


async def test_ac_07_unknown_variable(clients: Clients, running: Running) -> None:
    """What the event does not say is refused: neither empty nor an earlier event's."""
    await fetch(clients, running.about(**{"fd.name": "/etc/passwd"}), "$FD_NAME")
    values: tuple[Any, ...] = (None, {}, [])
    for value in values:
        with pytest.raises(CheckError, match=r"the event has no value for \$FD_NAME"):
            await fetch(clients, running.about(**{"fd.name": value}), "$FD_NAME")
    with pytest.raises(CheckError, match="no file can have such a name"):
        await fetch(clients, running.about(**{"fd.name": ""}), "$FD_NAME")


async def test_ac_32_endless_file(clients: Clients, running: Running) -> None:
    """Of a file without an end the beginning is kept, and the reading stops."""
    result = await fetch(clients, running.about(), "/dev/zero", max_output_bytes=100_000)
    assert data_of(result) == bytes(100_000)
    assert result.text == "the file '/dev/zero' has been downloaded (truncated to 100000 bytes)"
    assert "/dev/zero" not in running.sh("ps -o args")


async def test_ac_32_200_megabytes(clients: Clients, running: Running) -> None:
    """A file beyond the limit is cut there, and the result says so."""
    running.sh("truncate -s 200M /tmp/large")
    result = await fetch(clients, running.about(), "/tmp/large")
    running.sh("rm /tmp/large")
    assert len(data_of(result)) == 100 * MEGABYTE
    assert result.text.endswith("(truncated to 104857600 bytes)")


PROGRAM = """
import asyncio, re, sys
from pathlib import Path
from falco_talon.actionners.kubernetes.download import Download
from falco_talon.clients import Clients
from falco_talon.event import Event
async def main():
    async with Clients(kubeconfig=sys.argv[1]) as clients:
        await clients.ready({"kubernetes"})
        fields = {"k8s.ns.name": sys.argv[2], "k8s.pod.name": "web"}
        plugin = Download(Download.Parameters(file="/tmp/hundred"), clients)
        result = await plugin.run(Event(output_fields=fields))
        assert len(result.artifact.data) == 100 * 1024 * 1024
asyncio.run(main())
# Not ru_maxrss: that begins with what the parent had.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_memory(running: Running) -> None:
    """A download of 100 MB takes no more than 250 MB of memory, all in all."""
    running.sh("truncate -s 100M /tmp/hundred")
    words = [sys.executable, "-c", PROGRAM, str(running.cluster.kubeconfig), running.namespace]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    running.sh("rm /tmp/hundred")
    assert int(done.stdout) <= 250
