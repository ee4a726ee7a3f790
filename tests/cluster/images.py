"""The container images of the tests, made of Debian's programs and pushed to a local registry."""

import hashlib
import http.client
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import packages
from tests.cluster.errors import SetupError

PAUSE = "library/pause"
TAG = "latest"

USERS = """\
root:x:0:0:root:/root:/bin/sh
tcpdump:x:101:101::/nonexistent:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUPS = "root:x:0:\ntcpdump:x:101:\nnogroup:x:65534:\n"

# As much of sysdig as a capture shows of it: -M seconds, then a file where -w says. A kernel that
# would let the real one load its probe cannot be had everywhere.
SYSDIG = """\
#!/bin/sh
seconds=1
file=/dev/stdout
while [ $# -gt 0 ]; do
  case "$1" in
    -M) seconds=$2; shift ;;
    -w) file=$2; shift ;;
    --cri|-s) shift ;;
  esac
  shift
done
sleep "$seconds"
printf 'stand-in for a capture of %s seconds\\n' "$seconds" | gzip > "$file"
"""


@dataclass
class Image:
    """The files of an image of one layer, by their path in it."""

    name: str
    command: Sequence[str] = ("sh",)
    _layer: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self._tar = tarfile.open(fileobj=self._layer, mode="w")  # noqa: SIM115 - closed by layer()
        self._folders: set[str] = set()

    def folder(self, path: str, mode: int = 0o755) -> None:
        entry = self._entry(path, mode)
        entry.type = tarfile.DIRTYPE
        self._tar.addfile(entry)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        entry = self._entry(path, mode)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def link(self, path: str, target: str) -> None:
        entry = self._entry(path, 0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def layer(self) -> bytes:
        self._tar.close()
        return self._layer.getvalue()

    def _entry(self, path: str, mode: int) -> tarfile.TarInfo:
        # no time stamp: the same files make the same digest, which is pushed and pulled once
        for parent in reversed(Path(path).parents):
            if (name := str(parent)) not in self._folders and name != ".":
                self._folders.add(name)
                self.folder(name)
        self._folders.add(path)
        entry = tarfile.TarInfo(path)
        entry.mode = mode
        return entry


def images() -> list[Image]:
    """What pods of the tests may name: `busybox`, `issif/tcpdump`, `issif/sysdig`."""
    pause = _busybox(PAUSE, ("tail", "-f", "/dev/null"))
    tcpdump = _busybox("issif/tcpdump")
    program = packages.program("tcpdump")
    tcpdump.file("usr/bin/tcpdump", Path(program).read_bytes(), 0o755)
    for library in packages.libraries(program):
        tcpdump.file(str(library).lstrip("/"), library.read_bytes(), 0o755)
    sysdig = _busybox("issif/sysdig")
    sysdig.file("usr/bin/sysdig", SYSDIG.encode(), 0o755)
    return [pause, _busybox("library/busybox"), tcpdump, sysdig]


def _busybox(name: str, command: Sequence[str] = ("sh",)) -> Image:
    image = Image(name, command)
    binary = packages.busybox()
    if binary is None:
        raise SetupError("no static busybox")
    image.file("bin/busybox", binary.read_bytes(), 0o755)
    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            image.link(f"bin/{applet}", "busybox")
    image.link("usr/bin/env", "/bin/env")
    image.file("etc/passwd", USERS.encode())
    image.file("etc/group", GROUPS.encode())
    image.folder("tmp", 0o1777)
    image.folder("root", 0o700)
    for empty in ("dev", "proc", "sys", "home", "var"):
        image.folder(empty)
    return image


def push(image: Image, host: str, port: int) -> None:
    """Push to a registry that asks for no password, over plain HTTP."""
    layer = image.layer()
    configuration = _json(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": list(image.command),
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    base = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": base,
        "config": _reference("application/vnd.docker.container.image.v1+json", configuration),
        "layers": [_reference("application/vnd.docker.image.rootfs.diff.tar", layer)],
    }
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        for blob in (layer, configuration):
            _push_blob(connection, image.name, blob)
        path = f"/v2/{image.name}/manifests/{TAG}"
        _ask(connection, "PUT", path, _json(manifest), {"Content-Type": base})
    finally:
        connection.close()


def _push_blob(connection: http.client.HTTPConnection, name: str, blob: bytes) -> None:
    location = _ask(connection, "POST", f"/v2/{name}/blobs/uploads/")
    separator = "&" if "?" in location else "?"
    url = f"{location}{separator}digest={_digest(blob)}"
    _ask(connection, "PUT", url, blob, {"Content-Type": "application/octet-stream"})


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Returns the location the registry answers with."""
    connection.request(method, url, body, dict(headers or {}))
    response = connection.getresponse()
    answer = response.read()
    if response.status >= 400:
        raise SetupError(f"registry: {method} {url}: {response.status} {answer[:200]!r}")
    return response.headers.get("Location", "")


def _reference(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(content), "digest": _digest(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _architecture() -> str:
    """The machine's, by the name that images go by."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
