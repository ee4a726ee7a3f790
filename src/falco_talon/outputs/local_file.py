"""local:file"""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

from pydantic import Field

from falco_talon.errors import CheckError, PluginError
from falco_talon.outputs._key import object_key
from falco_talon.plugin import Artifact, BaseParameters, Output, Result


class LocalFile(Output):
    """Store the artifact as a file in a folder of the machine that Falco Talon runs on.

    Its name is made of the time (UTC), the namespace, the pod and the name of the artifact. Only
    the user that Falco Talon runs as can read it; nothing is ever overwritten. The folder must
    exist and is taken as it is written: variables and `~` are not expanded.
    """

    name = "local:file"
    example = """
      output:
        target: local:file
        parameters:
          destination: /var/lib/falco-talon
    """

    class Parameters(BaseParameters):
        """Where to."""

        destination: Path = Field(description="Folder for the files. It must exist.")

    parameters: Parameters

    async def check(self) -> None:
        """See that the folder exists.

        :raises CheckError: if it does not.
        """
        destination = self.parameters.destination
        if not await asyncio.to_thread(destination.is_dir):
            raise CheckError(f"folder '{destination}' does not exist")

    async def run(self, artifact: Artifact) -> Result:
        """Write the file; it has its name only when it is complete.

        :raises PluginError: if it cannot be written.
        """
        destination = self.parameters.destination
        file = destination / object_key(artifact)
        try:
            await asyncio.to_thread(_write, file, artifact.data)
        except FileNotFoundError:
            raise CheckError(f"folder '{destination}' does not exist") from None
        except OSError as error:
            raise PluginError(f"cannot write to '{destination}': {error.strerror}") from None
        shown = artifact.name.rpartition("/")[2]
        return Result(
            f"the file '{shown}' has been copied to '{file}'",
            {**artifact.objects, "file": artifact.name, "destination": str(file)},
        )


def _write(file: Path, data: bytes) -> None:
    partial = file.with_name(f".{uuid4().hex}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        partial.rename(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
