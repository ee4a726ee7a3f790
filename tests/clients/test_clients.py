"""Opening, sharing and closing the clients."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from falco_talon.clients import Clients, open_clients
from falco_talon.config import Config
from falco_talon.errors import PluginError, TalonError
from tests.cluster.cluster import Cluster


@pytest.mark.parametrize("name", ["http", "kubernetes"])
async def test_a_client_is_refused_before_it_is_ready(name: str) -> None:
    """Using a client too early is an error of the plugin, never a None."""
    with pytest.raises(PluginError, match=f"the client '{name}' is not ready"):
        getattr(Clients(), name)


async def test_opening_happens_once() -> None:
    """However often and from however many tasks a client is asked for, there is one."""
    async with Clients() as clients:
        await asyncio.gather(*(clients.ready({"http"}) for _ in range(5)))
        session = clients.http
        await clients.ready({"http"})
        assert clients.http is session
    assert session.closed


async def test_close_twice() -> None:
    """Closing is safe to repeat, and what is closed is not ready."""
    clients = Clients()
    await clients.ready({"http"})
    await clients.close()
    await clients.close()
    with pytest.raises(PluginError, match="not ready"):
        _ = clients.http


async def test_ac_29_an_error_is_remembered(tmp_path: Path) -> None:
    """After a failed opening the client says why, each time; the others are open."""
    async with Clients(kubeconfig=tmp_path / "absent") as clients:
        for _ in range(2):
            with pytest.raises(TalonError, match="absent' cannot be read: No such file"):
                await clients.ready({"kubernetes", "http"})
            with pytest.raises(PluginError, match="absent' cannot be read: No such file"):
                _ = clients.kubernetes
        assert not clients.http.closed


async def test_a_mended_kubeconfig_is_taken(tmp_path: Path, cluster: Cluster) -> None:
    """A client that could not be opened can be once the cause is gone."""
    kubeconfig = tmp_path / "kubeconfig"
    async with Clients(kubeconfig=kubeconfig) as clients:
        with pytest.raises(TalonError):
            await clients.ready({"kubernetes"})
        kubeconfig.write_bytes(cluster.kubeconfig.read_bytes())
        await clients.ready({"kubernetes"})
        assert (await clients.kubernetes.get("/version"))["major"]


async def test_from_configuration(cluster: Cluster) -> None:
    """The configuration says which cluster."""
    async with open_clients(Config(kubeconfig=str(cluster.kubeconfig))) as clients:
        await clients.ready({"kubernetes"})
        assert (await clients.kubernetes.get("/version"))["major"]


async def test_unknown_client() -> None:
    """A plugin that asks for a client that is none is told which there are."""
    async with Clients() as clients:
        with pytest.raises(TalonError, match="unknown client 'ftp': there are 'http' and"):
            await clients.ready({"ftp"})


def test_making_clients_is_cheap(tmp_path: Path) -> None:
    """A rules check makes them: no file is read and neither aiohttp nor the SDK is imported."""
    program = (
        "import sys, falco_talon.catalog, falco_talon.clients as c;"
        f"c.Clients(kubeconfig={str(tmp_path / 'absent')!r});"
        "sys.exit(bool({'aiohttp', 'kubernetes_asyncio', 'yarl'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
