"""The built-in outputs, in the order they are listed."""

from falco_talon.outputs.local_file import LocalFile
from falco_talon.plugin import Output

OUTPUTS: tuple[type[Output], ...] = (LocalFile,)
