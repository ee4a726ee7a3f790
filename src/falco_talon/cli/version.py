"""``talon version``"""

import json
import platform
import sys

import typer

from falco_talon.cli.options import ConfigFile, OutputFormat, RulesFiles

BUILD_FILE = "build.json"
"""What an image build leaves in the package: an object with the keys of ``_BUILD``."""

_BUILD = ("GitCommit", "GitTreeState", "BuildDate")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def version(
    format_: OutputFormat = "text", config: ConfigFile = None, rules: RulesFiles = None
) -> None:
    """Print the version.

    \b
    Examples:
      talon version
      talon version --format json
    """
    facts = describe()
    if format_ == "json":
        typer.echo(json.dumps(facts, indent=2))
        return
    column = max(len(key) for key in facts) + 2
    for key, value in facts.items():
        typer.echo(f"{key + ':':<{column}}{value}")
    typer.echo()


def describe() -> dict[str, str]:
    """Return the facts, by name. What an installation does not know is ``unknown``."""
    # Slow to load, and no other command needs them.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version
    from importlib.resources import files

    try:
        release = "v" + installed_version("falco-talon")
    except PackageNotFoundError:  # run from the sources, not installed
        release = "devel"
    build = files("falco_talon").joinpath(BUILD_FILE)
    known = json.loads(build.read_bytes()) if build.is_file() else {}
    machine = platform.machine()
    return {
        "GitVersion": release,
        **{key: str(known.get(key) or "unknown") for key in _BUILD},
        "PythonVersion": platform.python_version(),
        "Compiler": platform.python_implementation(),
        "Platform": f"{sys.platform}/{_ARCHITECTURES.get(machine, machine)}",
    }
