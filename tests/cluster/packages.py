"""The programs of the node that come from the system: Debian packages."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.errors import SetupError
from tests.cluster.processes import PATH
from tests.cluster.progress import Progress

# what must be there afterwards, by the package that brings it
PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "docker-registry": "docker-registry",
    "iptables": "iptables",
    "iproute2": "ip",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "mount": "mount",
    "tcpdump": "tcpdump",
}
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")


def program(name: str) -> str:
    """The path of a program that `install_missing` has seen; raises SetupError without it."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise SetupError(f"no {name} on PATH: run `make cluster`")
    return found


def cni_folder() -> Path:
    """Where the network plugins are."""
    for folder in CNI_FOLDERS:
        if all((folder / plugin).is_file() for plugin in CNI_PLUGINS):
            return folder
    raise SetupError(f"no network plugins ({', '.join(CNI_PLUGINS)}) in {CNI_FOLDERS[0]}")


def busybox() -> Path | None:
    """A busybox that needs no libraries, so that it runs alone in an image."""
    for candidate in (Path("/bin/busybox"), Path("/usr/bin/busybox-static")):
        # the program interpreter's name stands near the start of a program that wants libraries
        if candidate.is_file() and b"ld-linux" not in candidate.read_bytes()[:4096]:
            return candidate
    return None


def install_missing(progress: Progress) -> None:
    """Install with apt-get what is missing; raises SetupError where that cannot be done."""
    missing = _missing()
    if not missing:
        return
    apt = shutil.which("apt-get")
    if apt is None:
        raise SetupError(f"no apt-get here: install the like of {' '.join(missing)} by hand")
    environment = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    progress.say(f"apt-get install {' '.join(missing)}")
    install = [apt, "install", "--yes", "--no-install-recommends", *missing]
    try:
        progress.run([apt, "update", "-qq"], environment=environment)
        progress.run(install, environment=environment)
    except SetupError as error:
        raise SetupError(f"cannot install {' '.join(missing)}: {error}") from error
    if still := _missing():
        raise SetupError(f"apt-get brought no usable {' '.join(still)}")


def _missing() -> list[str]:
    missing = [
        package for package, name in PROGRAMS.items() if shutil.which(name, path=PATH) is None
    ]
    if busybox() is None:
        missing.append("busybox-static")
    try:
        cni_folder()
    except SetupError:
        missing.append("containernetworking-plugins")
    return missing


def libraries(executable: str) -> list[Path]:
    """The shared libraries a program needs, with its loader, as the loader names them."""
    done = subprocess.run(["ldd", executable], capture_output=True, text=True, check=True)
    words = (word for line in done.stdout.splitlines() for word in line.split())
    return [Path(word) for word in words if word.startswith("/") and not word.endswith(":")]
