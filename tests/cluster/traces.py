"""What the node needs and leaves outside its folder: address, firewall rules, mounts, cgroups."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster import packages
from tests.cluster.errors import SetupError
from tests.cluster.node import ADDRESS, BRIDGE, NETWORK, PODS

CONTAINER_LOGS = Path("/var/log/containers")
NETWORK_RESULTS = Path("/var/lib/cni/results")
CGROUPS = Path("/sys/fs/cgroup")

# Pods reach the world under the machine's address; and where a container engine lets nothing be
# forwarded, our bridge is an exception.
RULES = (
    ("nat", ("POSTROUTING", "-s", PODS, "!", "-d", PODS, "-j", "MASQUERADE")),
    ("filter", ("FORWARD", "-i", BRIDGE, "-j", "ACCEPT")),
    ("filter", ("FORWARD", "-o", BRIDGE, "-j", "ACCEPT")),
)


def prepare_network(folder: Path) -> None:
    """Add the node's address and the firewall rules, unless they are there."""
    if not _has_address():
        # first the note that it is ours, so that it is removed after a crash too
        (folder / "address-added").touch()
        _run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"])
    for table, rule in RULES:
        if not _has_rule(table, rule):
            _run(["iptables", "-w", "-t", table, "-A", *rule])


def is_network_prepared() -> bool:
    return _has_address() and all(_has_rule(table, rule) for table, rule in RULES)


def remove_network(folder: Path) -> None:
    """Take away what `prepare_network` added and the bridge of the pods."""
    note = folder / "address-added"
    if note.exists():
        if _has_address():
            _run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"])
        note.unlink()
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        _run(["ip", "link", "del", BRIDGE])
    for table, rule in RULES:
        while _has_rule(table, rule):
            _run(["iptables", "-w", "-t", table, "-D", *rule])


def unmount_below(folder: Path) -> None:
    """Unmount whatever the containers and kubelet left mounted, the innermost first."""
    for mounted in reversed(mounts_below(folder)):
        # lazily: a process that dies just now may still be in it
        _run(["umount", "--lazy", str(mounted)], check=False)


def remove_below(folder: Path) -> None:
    """Remove what is in the folder but the logs; raises SetupError while anything is mounted."""
    if mounted := mounts_below(folder):
        # a mounted folder may be one of the machine's own, which a pod saw: never delete in there
        raise SetupError(f"still mounted, so nothing is deleted: {mounted[0]}")
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.suffix != ".log":
            entry.unlink()


def mounts_below(folder: Path) -> list[Path]:
    """In the order in which they were mounted."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounted = [Path(_unescape(line.split()[1])) for line in lines]
    return [path for path in mounted if path.is_relative_to(folder)]


def shims(socket: Path) -> list[int]:
    """The processes that hold the containers of the containerd at `socket`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/containerd-shim-runc-v2") and os.fsencode(socket) in words:
                    found.append(int(entry.name))
    return found


def remove_cgroups() -> None:
    """Remove the empty control groups of the pods; those of another kubelet are not empty."""
    # one hierarchy in the second version of cgroups, one a controller in the first
    for top in [CGROUPS / "kubepods", *CGROUPS.glob("*/kubepods")]:
        for group, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(group).rmdir()


def remove_strays(folder: Path) -> None:
    """Remove our files from the folders that kubelet and containerd let nobody choose."""
    for link in CONTAINER_LOGS.glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(folder):
            link.unlink()
    for result in NETWORK_RESULTS.glob(f"{NETWORK}-*-eth0"):
        sandbox = result.name.removeprefix(f"{NETWORK}-").removesuffix("-eth0")
        result.unlink()
        (NETWORK_RESULTS / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)


def _has_address() -> bool:
    shown = _run(["ip", "-oneline", "address", "show", "to", f"{ADDRESS}/32"])
    return ADDRESS in shown.stdout


def _has_rule(table: str, rule: Sequence[str]) -> bool:
    return _run(["iptables", "-w", "-t", table, "-C", *rule], check=False).returncode == 0


def _run(argv: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [packages.program(argv[0]), *argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise SetupError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done


def _unescape(path: str) -> str:
    """The kernel writes spaces and the like as octal numbers."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), path)
