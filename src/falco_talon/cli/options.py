"""Options that several commands share, and the configuration they lead to."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from falco_talon.config import Config

_CONFIG = "falco_talon.config"
_RULES = "falco_talon.rules"

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Configuration file.", show_default=False),
]
RulesFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--rules",
        "-r",
        metavar="FILE",
        help="Rule file, in place of those of the configuration. May be given several times.",
        show_default=False,
    ),
]
OutputFormat = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Layout of the answer.")
]


def remember(context: typer.Context, config: ConfigFile = None, rules: RulesFiles = None) -> None:
    """Accept ``-c`` and ``-r`` before the command as well as after it (a typer callback)."""
    if config is not None:
        context.meta[_CONFIG] = config
    if rules:
        context.meta[_RULES] = [*context.meta.get(_RULES, ()), *rules]


def read_config(
    context: typer.Context,
    config: Path | None,
    rules: list[Path] | None,
    *,
    default: Path | None = None,
) -> "Config":
    """Read the configuration that the command line asks for.

    *config* and *rules* are what the command itself was given; the nearest ``-c`` wins, every
    ``-r`` counts. Without a file, it is *default*, or no file at all.

    :raises ConfigError: with every fault, one a line.
    """
    # Commands that need no configuration do not pay for pydantic.
    from falco_talon.config import Config

    remember(context, config, rules)
    return Config.load(
        context.meta.get(_CONFIG, default),
        rules=context.meta.get(_RULES),
        environ=os.environ,
        notifiers=_notifier_settings(),
    )


def _notifier_settings() -> dict[str, tuple[str, ...]]:
    """Return the settings of each notifier, if a variable may set one."""
    if not any("NOTIFIERS_" in name for name in os.environ):
        return {}
    from falco_talon.catalog import Catalog

    return {
        name: tuple(field.alias or key for key, field in notifier.Parameters.model_fields.items())
        for name, notifier in Catalog.load().notifiers.items()
    }
