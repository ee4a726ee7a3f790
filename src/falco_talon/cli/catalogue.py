"""``talon actionners|outputs|notifiers list``: the plugins, as they describe themselves."""

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer

from falco_talon.cli.entries import actionner_entry, notifier_entry, output_entry
from falco_talon.cli.options import ConfigFile, OutputFormat, RulesFiles, remember
from falco_talon.errors import TalonError

_Plugin = TypeVar("_Plugin")

_Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Only these.", show_default=False)
]


def _group(noun: str, purpose: str, example: str, entry: Callable[[Any], dict[str, Any]]) -> Any:
    """Make the command group of one kind of plugin."""
    group = typer.Typer(name=f"{noun}s", help=purpose, no_args_is_help=True, callback=remember)
    examples = (
        f"\b\nExamples:\n  talon {noun}s list\n  talon {noun}s list {example}\n"
        f"  talon {noun}s list --format json"
    )

    @group.command("list", help=f"List the {noun}s with their parameters.\n\n{examples}")
    def list_plugins(
        context: typer.Context,
        names: _Names = None,
        format_: OutputFormat = "text",
        config: ConfigFile = None,
        rules: RulesFiles = None,
    ) -> None:
        # The plugins bring pydantic along: not for the help page.
        from falco_talon.catalog import Catalog

        plugins = _chosen(noun, getattr(Catalog.load(), f"{noun}s"), names)
        entries = {name: entry(plugin) for name, plugin in plugins.items()}
        typer.echo(_json(entries) if format_ == "json" else _text(entries), nl=False)

    return group


actionners: typer.Typer = _group(
    "actionner", "What can be done when a rule matches.", "kubernetes:label", actionner_entry
)
outputs: typer.Typer = _group(
    "output", "Where what an actionner brings back can be stored.", "local:file", output_entry
)
notifiers: typer.Typer = _group(
    "notifier", "Who can be told what was done.", "webhook", notifier_entry
)


def _chosen(
    noun: str, plugins: Mapping[str, _Plugin], names: list[str] | None
) -> Mapping[str, _Plugin]:
    """Return the plugins of these names, or all.

    :raises TalonError: if there is none of such a name.
    """
    if not names:
        return plugins
    for name in names:
        if name not in plugins:
            close = difflib.get_close_matches(name, plugins, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(plugins)}"
            raise TalonError(f"there is no {noun} '{name}', {hint}")
    return {name: plugins[name] for name in names}


def _json(entries: Mapping[str, Mapping[str, Any]]) -> str:
    return (
        json.dumps([{"full_name": name, **entry} for name, entry in entries.items()], indent=2)
        + "\n"
    )


def _text(entries: Mapping[str, Mapping[str, Any]]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Indents the items of lists, and keeps the lines of a text."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: Dumper, value: str) -> yaml.Node:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def mapping(dumper: Dumper, value: dict[str, Any]) -> yaml.Node:
        flow = "apiGroups" in value  # a policy rule: one line
        return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=flow)

    Dumper.add_representer(str, text)
    Dumper.add_representer(dict, mapping)
    parts = []
    for name, entry in entries.items():
        body = yaml.dump(
            entry, Dumper=Dumper, indent=4, sort_keys=False, allow_unicode=True, width=100
        )
        parts.append(f"--- {name} ---\n\n{body}\n")
    return "".join(parts)
