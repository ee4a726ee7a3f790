"""``talon completion``"""

import os
from typing import Annotated, Literal

import typer

from falco_talon.cli.options import ConfigFile, RulesFiles


def completion(
    context: typer.Context,
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"],
        typer.Argument(help="The shell to complete in."),
    ],
    config: ConfigFile = None,
    rules: RulesFiles = None,
) -> None:
    """Print the script that completes the commands in a shell.

    \b
    Examples:
      source <(talon completion bash)
      talon completion zsh > "${fpath[1]}/_talon"
      talon completion fish > ~/.config/fish/completions/talon.fish
    """
    root = context.find_root()
    name = root.info_name or ""
    program = name if name.replace("-", "").isalnum() else "talon"  # "python -m falco_talon"
    # The shells themselves ask in this way, each time they complete.
    os.environ[f"_{program.replace('-', '_')}_COMPLETE".upper()] = f"source_{shell}"
    root.command.main(args=[], prog_name=program)
