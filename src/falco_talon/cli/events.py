"""``talon events dead``: the accepted events that were given up."""

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from falco_talon.cli.options import ConfigFile, OutputFormat, RulesFiles, read_config, remember
from falco_talon.errors import TalonError

if TYPE_CHECKING:
    from falco_talon.bus.graveyard import Graveyard, Letter

events = typer.Typer(
    name="events", help="Events on the bus.", no_args_is_help=True, callback=remember
)
dead = typer.Typer(
    name="dead",
    help="Dead letters: accepted events that were given up, with the reason.\n\n"
    "\b\nExamples:\n  talon events dead list\n  talon events dead show 3\n"
    "  talon events dead replay 3 4\n  talon events dead drop --all",
    no_args_is_help=True,
    callback=remember,
)
events.add_typer(dead)

_DEFAULT_CONFIG = Path("/etc/falco-talon/config.yaml")
"""What the daemon reads as well, if it is there."""

_Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="NUMBER", help="Of the list.", show_default=False)
]
_Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Of the list.")]
_All = Annotated[bool, typer.Option("--all", help="Every dead letter there is now.")]


@dead.command("list")
def list_letters(
    context: typer.Context,
    format_: OutputFormat = "text",
    config: ConfigFile = None,
    rules: RulesFiles = None,
) -> None:
    """List the dead letters, oldest first.

    \b
    Examples:
      talon events dead list
      talon events dead list -c config.yaml --format json
    """

    async def show(graveyard: "Graveyard") -> None:
        letters = [letter async for letter in graveyard.letters()]
        if format_ == "json":
            typer.echo(json.dumps([letter.summary() for letter in letters], indent=2))
            return
        for letter in letters:
            typer.echo(_line(letter))
        if not letters:
            typer.echo("there are no dead letters")

    _run(context, config, rules, show)


@dead.command("show")
def show_letter(
    context: typer.Context,
    number: _Number,
    format_: OutputFormat = "text",
    config: ConfigFile = None,
    rules: RulesFiles = None,
) -> None:
    """Show a dead letter with its event.

    \b
    Examples:
      talon events dead show 3
      talon events dead show 3 --format json
    """

    async def show(graveyard: "Graveyard") -> None:
        letter = await graveyard.letter(number)
        if format_ == "json":
            typer.echo(json.dumps(letter.summary() | {"event": letter.event()}, indent=2))
            return
        for name, value in letter.summary().items():
            typer.echo(f"{name + ':':12}{_inert(str(value))}")
        typer.echo(json.dumps(letter.event(), indent=2))

    _run(context, config, rules, show)


@dead.command("replay")
def replay_letters(
    context: typer.Context,
    numbers: _Numbers = None,
    every: _All = False,
    config: ConfigFile = None,
    rules: RulesFiles = None,
) -> None:
    """Put dead letters on the bus again, as new events that nothing counts as repeats.

    All their actions run, those of earlier runs as well.

    \b
    Examples:
      talon events dead replay 3 4
      talon events dead replay --all
    """

    async def replay(graveyard: "Graveyard") -> None:
        for number in await _chosen(graveyard, numbers, every):
            await graveyard.replay(number)
            typer.echo(f"dead letter {number} is on the bus again")

    _run(context, config, rules, replay)


@dead.command("drop")
def drop_letters(
    context: typer.Context,
    numbers: _Numbers = None,
    every: _All = False,
    config: ConfigFile = None,
    rules: RulesFiles = None,
) -> None:
    """Delete dead letters for good.

    \b
    Examples:
      talon events dead drop 3 4
      talon events dead drop --all
    """

    async def drop(graveyard: "Graveyard") -> None:
        for number in await _chosen(graveyard, numbers, every):
            await graveyard.drop(number)
            typer.echo(f"dead letter {number} is gone")

    _run(context, config, rules, drop)


async def _chosen(graveyard: "Graveyard", numbers: list[int] | None, every: bool) -> list[int]:
    """Return the numbers that are meant.

    :raises TalonError: if none is, or one does not exist.
    """
    if every == bool(numbers):
        raise TalonError("say which dead letters: their numbers, or --all")
    if every:
        return [letter.number async for letter in graveyard.letters()]
    for number in numbers or ():  # all or none
        await graveyard.letter(number)
    return list(dict.fromkeys(numbers or ()))


def _run(
    context: typer.Context,
    config: Any,
    rules: Any,
    work: Callable[["Graveyard"], Coroutine[Any, Any, None]],
) -> None:
    """Connect to the bus of the configuration and do the work."""
    default = _DEFAULT_CONFIG if _DEFAULT_CONFIG.is_file() else None
    settings = read_config(context, config, rules, default=default)
    # The libraries of the bus take half a second to load: not for the help page.
    import asyncio

    from falco_talon.bus.graveyard import open_graveyard

    async def main() -> None:
        async with open_graveyard(settings) as graveyard:
            await work(graveyard)

    asyncio.run(main())


def _line(letter: "Letter") -> str:
    facts = letter.summary()
    said = f"{facts['accepted']} {facts['reason']} attempts={facts['attempts']}"
    return _inert(f"{letter.number} {said} rule={facts['rule']!r} {facts['error']}").rstrip()


def _inert(text: str) -> str:
    """Escape what would move the cursor of a terminal: events are data from an attacker."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
