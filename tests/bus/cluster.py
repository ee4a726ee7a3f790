"""Three real nats-servers on loopback that form a JetStream cluster."""

import asyncio
import json
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from falco_talon.bus.binary import find_binary

USER, PASSWORD = "talon", "cluster-s3cret"


def free_ports(number: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Node:
    """One of the servers."""

    def __init__(self, binary: str, folder: Path, name: str, ports: dict[str, int]) -> None:
        self.name = name
        self.url = f"nats://127.0.0.1:{ports['client']}"
        self.monitor = f"http://127.0.0.1:{ports['monitor']}"
        self._command = [binary, "--config", str(folder / f"{name}.json")]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, or start again."""
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """End it by -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def get(self, path: str) -> dict[str, Any]:
        """Ask the monitoring endpoint."""
        with urllib.request.urlopen(self.monitor + path, timeout=2) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer


class NatsCluster:
    """The servers."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def config(self) -> dict[str, Any]:
        """Return the section ``nats`` of the configuration that leads here."""
        return {
            "url": [node.url for node in self.nodes],
            "user": USER,
            "password": PASSWORD,
            "replicas": 3,
            "max_bytes": "64MiB",
        }

    def leader(self, stream: str = "") -> Node | None:
        """Return the leader of the stream, or of the cluster itself."""
        for node in self.nodes:
            try:
                facts = node.get("/jsz?streams=true")
            except OSError:
                continue
            if not stream:
                name = (facts.get("meta_cluster") or {}).get("leader", "")
            else:
                streams = [s for a in facts.get("account_details", ()) for s in a["stream_detail"]]
                found = [s for s in streams if s["name"] == stream]
                name = found[0]["cluster"].get("leader", "") if found else ""
            if name:
                return next((each for each in self.nodes if each.name == name), None)
        return None


@pytest.fixture
async def nats_cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """Run three servers, ready to serve."""
    binary = await find_binary(None)
    routes = free_ports(3)
    nodes = []
    for number, route in enumerate(routes):
        client, monitor = free_ports(2)
        name = f"node-{number}"
        config = {
            "server_name": name,
            "listen": f"127.0.0.1:{client}",
            "http": f"127.0.0.1:{monitor}",
            "jetstream": {"store_dir": str(tmp_path / name)},
            "authorization": {"user": USER, "password": PASSWORD},
            "cluster": {
                "name": "test",
                "listen": f"127.0.0.1:{route}",
                "routes": [f"nats://127.0.0.1:{port}" for port in routes],
            },
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        nodes.append(Node(binary, tmp_path, name, {"client": client, "monitor": monitor}))
    cluster = NatsCluster(nodes)
    try:
        for node in nodes:
            node.start()
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(cluster.leader):
                await asyncio.sleep(0.1)
        yield cluster
    finally:
        for node in nodes:
            node.kill()
