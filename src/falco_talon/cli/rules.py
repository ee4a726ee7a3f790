"""``talon rules check|print|schema``: the rules, judged and shown, without a cluster."""

import gc
import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from falco_talon.cli.options import ConfigFile, RulesFiles, read_config, remember

if TYPE_CHECKING:
    from falco_talon.config import Config
    from falco_talon.rules.model import Fault, RuleSet

rules = typer.Typer(
    name="rules", help="Check and show the rules.", no_args_is_help=True, callback=remember
)

_CheckFormat = Annotated[
    Literal["text", "json", "github"],
    typer.Option("--format", help="Layout of the findings; github: workflow annotations."),
]
_PrintFormat = Annotated[Literal["yaml", "json"], typer.Option("--format", help="Layout.")]
_Strict = Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")]


@rules.command()
def check(
    context: typer.Context,
    config: ConfigFile = None,
    rules: RulesFiles = None,
    strict: _Strict = False,
    format_: _CheckFormat = "text",
) -> None:
    """Check the rules: exit code 0 if they can be used, else 1. Needs neither cluster nor network.

    \b
    Examples:
      talon rules check -r rules.yaml
      talon rules check -r rules.yaml -r override.yaml --strict
      talon rules check -c config.yaml --format github
    """
    _start_quickly()
    settings = read_config(context, config, rules)
    from falco_talon.cli.findings import as_annotations, as_json, as_lines
    from falco_talon.rules.load import read

    rule_set = read(settings.rules_files)
    faults = _faults(rule_set, settings, strict=strict)
    valid = all(fault.severity != "error" for fault in faults)
    if format_ == "json":
        typer.echo(as_json(faults, len(rule_set.rules), valid=valid))
    elif format_ == "github":
        for line in (*as_annotations(faults), *as_lines((), "text", valid=valid)):
            typer.echo(line)
    else:
        typer.echo("\n".join(as_lines(faults, settings.log_format, valid=valid)))
    if not valid:
        raise typer.Exit(1)


@rules.command("print")
def print_rules(
    context: typer.Context,
    config: ConfigFile = None,
    rules: RulesFiles = None,
    format_: _PrintFormat = "yaml",
) -> None:
    """Print the rules as merged from all files, action blocks applied: a rule file again.

    \b
    Examples:
      talon rules print -r rules.yaml -r override.yaml > merged.yaml
      talon rules print -c config.yaml --format json
    """
    settings = read_config(context, config, rules)
    import json

    from falco_talon.cli.findings import as_lines
    from falco_talon.rules.load import read
    from falco_talon.rules.printing import to_plain, to_yaml

    rule_set = read(settings.rules_files)
    if not rule_set.valid:
        typer.echo("\n".join(as_lines(rule_set.faults, settings.log_format, valid=False)), err=True)
        raise typer.Exit(1)
    if format_ == "json":
        typer.echo(json.dumps(to_plain(rule_set.rules), indent=2, ensure_ascii=False))
    else:
        typer.echo(to_yaml(rule_set.rules), nl=False)


@rules.command()
def schema() -> None:
    """Print the JSON Schema of a rule file: editors then complete and check it.

    \b
    Examples:
      talon rules schema > talon-rules.schema.json
      # first line of a rule file, for editors that use yaml-language-server:
      # yaml-language-server: $schema=talon-rules.schema.json
    """
    import json

    from falco_talon.catalog import Catalog
    from falco_talon.rules.schema import rules_schema

    typer.echo(json.dumps(rules_schema(Catalog.load()), indent=2, ensure_ascii=False))


def _start_quickly() -> None:
    """Leave out what only a long-lived process needs; people wait for this one."""
    gc.disable()
    # Else pydantic looks for plugins of its own in every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _faults(rule_set: "RuleSet", settings: "Config", *, strict: bool) -> "tuple[Fault, ...]":
    """Return every finding about the rules and about the notifiers that the configuration names."""
    from falco_talon.catalog import Catalog
    from falco_talon.clients import Clients
    from falco_talon.rules.binding import bind
    from falco_talon.rules.blocks import nearest
    from falco_talon.rules.model import Fault, RulesError

    catalog = Catalog.load()
    try:
        faults = bind(rule_set, catalog, Clients(), strict=strict).warnings
    except RulesError as error:
        faults = error.faults
    unknown = (
        Fault(
            "unknown notifier",
            key="default_notifiers",
            value=name,
            allowed=tuple(catalog.notifiers),
            nearest=nearest(name, catalog.notifiers),
        )
        for name in settings.default_notifiers
        if name.lower() not in catalog.notifiers
    )
    return (*faults, *unknown)
