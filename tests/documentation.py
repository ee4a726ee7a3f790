"""The pages of docs/ made from the plugins; ``python -m tests.documentation`` writes them."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from falco_talon.catalog import Catalog
from falco_talon.cli.entries import parameters, policy_rules
from falco_talon.plugin import Actionner, Plugin

DOCS = Path(__file__).parents[1] / "docs"
_NOTE = "<!-- Made from the classes by `make docs`: change those. -->\n"


def pages() -> Mapping[str, str]:
    """Return the text of each page, by file name."""
    catalog = Catalog.load()
    return {
        "actionners.md": _page(
            "Actionners",
            "What an action of a rule can do. `talon actionners list` prints the same.",
            (_plugin(plugin, _actionner(plugin)) for plugin in catalog.actionners.values()),
        ),
        "outputs.md": _page(
            "Outputs",
            "Where an action can store what its actionner brought back: `output.target` and\n"
            "`output.parameters` of the action. `talon outputs list` prints the same.",
            (_plugin(plugin) for plugin in catalog.outputs.values()),
        ),
        "notifiers.md": _page(
            "Notifiers",
            "Who is told of each step: `default_notifiers` of the configuration and `notifiers`\n"
            "of a rule name them, `notifiers.<name>` of the configuration holds their settings.\n"
            "Notifications are sent in the background, tried again after passing faults, and\n"
            "dropped, oldest first, only when a thousand wait. `talon notifiers list` prints the\n"
            "same.",
            (_plugin(plugin) for plugin in catalog.notifiers.values()),
        ),
    }


def _page(title: str, text: str, sections: Iterable[str]) -> str:
    return f"# {title}\n\n{_NOTE}\n{text}\n" + "".join(sections)


def _plugin(plugin: type[Plugin], facts: Iterable[str] = ()) -> str:
    parts = [f"\n## {plugin.name}\n\n{plugin.description()}\n"]
    if listed := [f"* {fact}\n" for fact in facts if fact]:
        parts.append("\n" + "".join(listed))
    if plugin.Parameters.model_fields:
        parts.append("\n| Parameter | Default | Meaning |\n|---|---|---|\n")
        defaults = parameters(plugin.Parameters)
        parts += [_row(name, field, defaults) for name, field in _fields(plugin)]
    for where, own in (("the cluster", False), ("the namespace of Falco Talon alone", True)):
        if rules := policy_rules(each for each in plugin.permissions if each.own_namespace is own):
            text = yaml.safe_dump(rules, sort_keys=False, default_flow_style=None)
            parts.append(f"\nPermissions in {where}:\n\n```yaml\n{text}```\n")
    if plugin.cloud_permissions:
        parts.append(f"\nPermissions: {_codes(plugin.cloud_permissions)}\n")
    if plugin.example:
        parts.append(f"\n```yaml\n{inspect.cleandoc(plugin.example)}\n```\n")
    return "".join(parts)


def _fields(plugin: type[Plugin]) -> Iterable[tuple[str, Any]]:
    for name, field in plugin.Parameters.model_fields.items():
        yield field.alias or name, field


def _row(name: str, field: Any, defaults: Mapping[str, Any]) -> str:
    text, _, said = str(field.description).replace("|", "\\|").partition(" Default: ")
    default = "required" if field.is_required() else _value(defaults[name]) or said.rstrip(".")
    return f"| `{name}` | {default} | {text} |\n"


def _value(default: Any) -> str:
    if default in (None, "", [], {}):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _actionner(plugin: type[Actionner]) -> Iterable[str]:
    yield f"Events: {', '.join(plugin.source)}"
    if plugin.required_output_fields:
        yield f"Output fields that the event must have: {_codes(plugin.required_output_fields)}"
    yield f"The next action runs afterwards: {'yes' if plugin.continue_ else 'no'}, by default"
    if plugin.use_context:
        yield "Uses `additional_contexts`"
    yield {
        "always": "Needs an output",
        "maybe": "May have an output; without one its text is the result in the log",
        "never": "",
    }[plugin.artifact]


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
