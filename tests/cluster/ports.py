"""Which ports the cluster listens on: the usual ones, or free ones where they are taken."""

import json
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Ports:
    """The defaults are what Kubernetes documents, so that people find them."""

    etcd: int = 2379
    etcd_peer: int = 2380
    apiserver: int = 6443
    controller_manager: int = 10257
    scheduler: int = 10259
    registry: int = 5000
    kubelet: int = 10250
    kubelet_health: int = 10248

    @classmethod
    def free(cls) -> "Ports":
        """Only free ports, for clusters that live side by side."""
        return cls(**_choose({field.name: 0 for field in fields(cls)}))

    @classmethod
    def kept_in(cls, file: Path) -> "Ports":
        """Those of the cluster that runs, chosen when it first came up."""
        if file.exists():
            return cls(**json.loads(file.read_text()))
        ports = cls(**_choose(asdict(cls())))
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(asdict(ports)))
        unfinished.replace(file)
        return ports


def _choose(wanted: dict[str, int]) -> dict[str, int]:
    # all stay bound until the last is chosen: else the kernel may hand out one port twice
    bound: list[socket.socket] = []
    try:
        chosen = {}
        for name, port in wanted.items():
            held = _bind(port) or _bind(0)
            if held is None:
                raise OSError("no free port")
            bound.append(held)
            chosen[name] = int(held.getsockname()[1])
        return chosen
    finally:
        for held in bound:
            held.close()


def _bind(port: int) -> socket.socket | None:
    # the wildcard address, because some of the servers listen on an address other than loopback
    candidate = socket.socket()
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind(("", port))
    except OSError:
        candidate.close()
        return None
    return candidate
