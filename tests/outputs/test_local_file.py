"""local:file"""

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.outputs.local_file import LocalFile
from falco_talon.plugin import Artifact

POD = {"namespace": "ns", "pod": "web"}


def local_file(destination: Path | str) -> LocalFile:
    """Return the output for this folder."""
    return LocalFile(LocalFile.Parameters.model_validate({"destination": destination}), Clients())


async def test_stored(tmp_path: Path) -> None:
    """The bytes are in the folder, for us alone, and the result tells where."""
    output = local_file(f"{tmp_path}/")
    await output.check()
    result = await output.run(Artifact("/var/log/a.log", b"\x00\xff\n", POD))
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == b"\x00\xff\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.name.endswith("Z-" + file.name[21:29] + "_ns_web__var_log_a.log")
    assert result.text == f"the file 'a.log' has been copied to '{file}'"
    assert result.objects == POD | {"file": "/var/log/a.log", "destination": str(file)}


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\nb",
        "a\0b",
        "\ud800",
        "x" * 4096,
        "日本語" * 1000,
        "~root",
        "$HOME",
        "-rf",
    ],
    ids=lambda name: ascii(name)[:20],
)
async def test_hostile_names(tmp_path: Path, name: str) -> None:
    """Whatever the artifact and its objects are called, the file is in the folder and complete."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    objects = {"namespace": name, "pod": name}
    await local_file(folder).run(Artifact(name, b"data", objects))
    (file,) = folder.iterdir()
    assert file.read_bytes() == b"data"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [file]


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """ON-16: equal artifacts of one second are as many files."""
    output = local_file(tmp_path)
    for _ in range(20):
        await output.run(Artifact("log", b"data", POD))
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("data", [b"", b"x" * 20_000_000], ids=["empty", "20 MB"])
async def test_sizes(tmp_path: Path, data: bytes) -> None:
    """An artifact of any size is stored whole."""
    await local_file(tmp_path).run(Artifact("log", data, POD))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == len(data)


@pytest.mark.parametrize("destination", ["absent", "file", "$HOME", "~"])
async def test_no_folder(tmp_path: Path, destination: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ON-15: a folder that is not there, by the very name that is written to, is an error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    output = local_file(destination)
    with pytest.raises(CheckError, match=r"^folder '.*' does not exist$"):
        await output.check()
    with pytest.raises(PluginError):
        await output.run(Artifact("log", b"data", POD))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


async def test_no_descriptor_leaks(tmp_path: Path) -> None:
    """ON-15: neither checking nor writing leaves a file open."""
    output = local_file(tmp_path)
    await output.check()  # starts the thread that the loop works files with
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        await output.check()
        await output.run(Artifact("log", b"data", POD))
    assert len(os.listdir("/proc/self/fd")) == before


async def test_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written whole leaves nothing behind, and the error says why."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PluginError, match=r"cannot write to '.*': No space left on device"):
        await local_file(tmp_path).run(Artifact("log", b"data", POD))
    assert list(tmp_path.iterdir()) == []


def test_destination_is_required() -> None:
    """Without a destination the rules do not load."""
    with pytest.raises(ValidationError, match="destination"):
        LocalFile.Parameters.model_validate({})
