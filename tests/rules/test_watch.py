"""The watch sees every way in which rule files change, on a real file system."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from falco_talon.rules.watch import Watch

QUIET = 0.05
POLL = 0.5


class Seen:
    """Counts the changes that the watch tells of."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        self.count += 1
        self._changed.set()

    async def next(self) -> None:
        async with asyncio.timeout(5):
            await self._changed.wait()
        self._changed.clear()

    async def none(self, seconds: float = 3 * POLL) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


@asynccontextmanager
async def watching(*files: Path, poll_seconds: float = POLL) -> AsyncIterator[Seen]:
    seen = Seen()
    watch = Watch(files, seen.changed, quiet_seconds=QUIET, poll_seconds=poll_seconds)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch.run())
        yield seen
        running.cancel()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text("[]")
    return file


@pytest.fixture
def config_map(tmp_path: Path) -> "ConfigMap":
    return ConfigMap(tmp_path / "mounted")


class ConfigMap:
    """A ConfigMap as the kubelet mounts it: ``..data`` leads to the folder of one version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.version = 0
        self.file = folder / "rules.yaml"
        self.publish("[]")
        self.file.symlink_to("..data/rules.yaml")

    def publish(self, text: str) -> None:
        """Do what the kubelet does: a new folder, a new link renamed over the old, cleaning up."""
        self.version += 1
        new = self.folder / f"..2026_{self.version}"
        new.mkdir()
        (new / "rules.yaml").write_text(text)
        link, data = self.folder / "..data_tmp", self.folder / "..data"
        old = data.resolve() if data.is_symlink() else None
        link.symlink_to(new.name)
        link.rename(data)
        if old:
            (old / "rules.yaml").unlink()
            old.rmdir()


async def test_written_in_place(file: Path) -> None:
    async with watching(file) as seen:
        for text in ("a", "b", "c"):
            file.write_text(text)
            await seen.next()


async def test_signs_of_the_file_system_are_enough(file: Path) -> None:
    """Polling has no part in it, once the watch stands."""
    async with watching(file, poll_seconds=60) as seen:
        for number in range(50):
            file.write_text("x" * number)
            await asyncio.sleep(0.1)
            if seen.count:
                break
        for text in ("a", "b"):
            await seen.next()
            file.write_text(text)
        await seen.next()


async def test_another_file_renamed_over_it(file: Path) -> None:
    async with watching(file) as seen:
        for text in ("a", "b", "c"):
            new = file.with_name(f".{file.name}.swp")  # names that watchfiles filters by default
            new.write_text(text)
            new.rename(file)
            await seen.next()


async def test_removed_and_written_anew(file: Path) -> None:
    async with watching(file) as seen:
        file.unlink()
        await seen.next()
        file.write_text("b")
        await seen.next()


async def test_config_map_swapped_three_times(config_map: ConfigMap) -> None:
    async with watching(config_map.file) as seen:
        for text in ("a", "b", "c"):
            config_map.publish(text)
            await seen.next()
            assert config_map.file.read_text() == text


async def test_a_link_to_a_file_elsewhere_is_followed(tmp_path: Path, file: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    target, link = tmp_path / "there" / "real.yaml", tmp_path / "here" / "rules.yaml"
    target.write_text("a")
    link.symlink_to("../there/real.yaml")

    async with watching(link) as seen:
        target.write_text("bb")
        await seen.next()
        link.unlink()
        link.symlink_to(file)
        await seen.next()
        file.write_text("elsewhere")
        await seen.next()


async def test_many_writes_are_one_change(file: Path) -> None:
    async with watching(file) as seen:
        file.write_text("first")
        await seen.next()
        before = seen.count
        for number in range(20):
            file.write_text("x" * number)
            await asyncio.sleep(QUIET / 10)
        await seen.next()
        await seen.none()
        assert seen.count <= before + 3


async def test_other_files_of_the_folder_do_not_count(tmp_path: Path, file: Path) -> None:
    async with watching(file) as seen:
        file.write_text("first")
        await seen.next()
        (tmp_path / "other.yaml").write_text("x")
        (tmp_path / "sub").mkdir()
        await seen.none()


async def test_a_change_before_the_watch_runs_is_not_lost(file: Path) -> None:
    seen = Seen()
    watch = Watch([file], seen.changed, quiet_seconds=QUIET, poll_seconds=POLL)
    file.write_text("while the daemon was starting")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch.run())
        await seen.next()
        running.cancel()


async def test_the_folder_itself_removed_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    file = folder / "rules.yaml"
    file.write_text("a")
    async with watching(file) as seen:
        file.unlink()
        folder.rmdir()
        await seen.next()
        folder.mkdir()
        file.write_text("b")
        await seen.next()
        file.write_text("cc")
        await seen.next()


async def test_relative_paths_survive_a_change_of_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    async with watching(Path(file.name)) as seen:
        os.chdir("/")
        file.write_text("a")
        await seen.next()


async def test_without_signs_looking_is_enough(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine has no inotify handles left."""

    async def no_handles(*_: Path, **__: object) -> AsyncIterator[None]:
        raise OSError("no space left on device")
        yield

    monkeypatch.setattr("falco_talon.rules.watch.awatch", no_handles)
    async with watching(file) as seen:
        for text in ("a", "b"):
            file.write_text(text)
            await seen.next()
