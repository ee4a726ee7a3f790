"""The command line: ``talon``."""

import os
import sys
from pathlib import Path

import typer

from falco_talon.cli import catalogue, completion, events, rbac, rules, version
from falco_talon.cli.options import ConfigFile, RulesFiles, read_config, remember
from falco_talon.errors import TalonError

DEFAULT_CONFIG = Path("/etc/falco-talon/config.yaml")

app = typer.Typer(
    name="talon",
    help="Falco Talon: reacts to the alerts of Falco, by rules without code.\n\n"
    "\b\n"
    "Examples:\n"
    "  talon rules check -r rules.yaml\n"
    "  talon server -c config.yaml -r rules.yaml\n"
    "  talon actionners list",
    no_args_is_help=True,
    callback=remember,
    rich_markup_mode=None,  # plain text: examples stay as they are, and it starts faster
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("server")
def run_server(context: typer.Context, config: ConfigFile = None, rules: RulesFiles = None) -> None:
    """Run the daemon, until SIGTERM or SIGINT.

    \b
    Examples:
      talon server
      talon server -c config.yaml -r rules.yaml -r override.yaml
      FALCO_TALON_LOG_FORMAT=json talon server
    """
    settings = read_config(context, config, rules, default=DEFAULT_CONFIG)
    # The daemon's libraries take a second to load; no other command needs them.
    from falco_talon.cli.server import serve

    serve(settings)


@app.command()
def demo() -> None:
    """Show a reaction: a daemon, three events, an HTTP receiver, all on this machine.

    With KUBECONFIG set it also labels a pod, in a namespace that it makes and removes.

    \b
    Examples:
      talon demo
      KUBECONFIG=~/.kube/config talon demo
    """
    import asyncio

    from falco_talon.cli.demo import demo as show

    asyncio.run(show(os.environ.get("KUBECONFIG")))


rules.rules.command()(rbac.rbac)
app.add_typer(rules.rules)
app.add_typer(catalogue.actionners)
app.add_typer(catalogue.outputs)
app.add_typer(catalogue.notifiers)
app.add_typer(events.events)
app.command()(version.version)
app.command()(completion.completion)


def main() -> None:
    """Run the command line. What goes wrong is said in plain words: exit code 1, wrong usage 2."""
    # pydantic looks for plugins of its own in every installed package; none is meant for us.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app()
    except TalonError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        sys.exit(1)
