"""What the embedded nats-server is told: where to listen and to store, who may do what."""

from pathlib import Path
from typing import Any, Final

from falco_talon.bus.peers import PEER_INBOX, Peers

USER: Final = "talon"
_OURS: Final = "TALON"
_EVENTS: Final = "EVENTS.*"


def server_config(
    store_dir: Path,
    *,
    port: int,
    password: str,
    peers: Peers | None,
    max_payload_bytes: int,
    always_sync: bool,
) -> dict[str, Any]:
    """Return the configuration: for ourselves on loopback, with *peers* on all interfaces."""
    accounts: dict[str, Any] = {
        _OURS: {"jetstream": "enabled", "users": [{"user": USER, "password": password}]}
    }
    if peers is not None:
        # An account of their own, without JetStream: whatever they do, all that reaches ours is
        # a request to store an event, and all that comes back is its answer.
        accounts[_OURS]["exports"] = [{"service": _EVENTS, "accounts": ["PEERS"]}]
        allowed = {"publish": [_EVENTS], "subscribe": [f"{PEER_INBOX}.>"]}
        user = {"nkey": peers.public_key, "permissions": allowed}
        imports = [{"service": {"account": _OURS, "subject": _EVENTS}}]
        accounts["PEERS"] = {"users": [user], "imports": imports}
    return {
        "server_name": "falco-talon",
        "listen": f"0.0.0.0:{peers.port}" if peers else f"127.0.0.1:{port}",
        "max_payload": max_payload_bytes,
        "ports_file_dir": str(store_dir),
        "jetstream": {
            "store_dir": str(store_dir),
            "sync_interval": "always" if always_sync else "2m",
        },
        "accounts": accounts,
    }
