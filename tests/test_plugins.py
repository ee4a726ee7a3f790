"""The contract that every plugin of the catalogue keeps."""

import itertools
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.errors import CheckError
from falco_talon.event import Event
from falco_talon.plugin import Actionner, Notifier, Output, Plugin, PolicyRule

CATALOG = Catalog.load()
ACTIONNERS = list(CATALOG.actionners.values())
OUTPUTS = list(CATALOG.outputs.values())
NOTIFIERS = list(CATALOG.notifiers.values())
PLUGINS: list[type[Plugin]] = [*ACTIONNERS, *OUTPUTS, *NOTIFIERS]
CLIENTS = {"http", "kubernetes"}
SOURCES = {"any", "syscalls", "k8s_audit"}


def _name(plugin: object) -> str | None:
    return plugin.name if isinstance(plugin, type) and issubclass(plugin, Plugin) else None


def _parameters(plugin: type[Plugin]) -> dict[str, Any]:
    """Return the parameters in the plugin's example, by the way such examples are written."""
    example = yaml.safe_load(plugin.example)
    if issubclass(plugin, Actionner):
        (action,) = example
        assert action["actionner"] == plugin.name
        assert action["action"]
        return dict(action.get("parameters") or {})
    if issubclass(plugin, Output):
        assert example["output"]["target"] == plugin.name
        return dict(example["output"].get("parameters") or {})
    assert list(example) == [plugin.name]
    return dict(example[plugin.name] or {})


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_example(plugin: type[Plugin]) -> None:
    """The example is YAML as a user would write it, and works."""
    given = _parameters(plugin)
    assert given.keys() <= plugin.Parameters.model_fields.keys()
    plugin.Parameters.model_validate(given)


@pytest.mark.parametrize("plugin", ACTIONNERS, ids=_name)
def test_example_output(plugin: type[Actionner]) -> None:
    """An output stands in the example of an actionner that needs one, and of no other."""
    (action,) = yaml.safe_load(plugin.example)
    output = action.get("output")
    if plugin.artifact == "always":
        assert output
    if output:
        assert plugin.artifact != "never"
        CATALOG.outputs[output["target"]].Parameters.model_validate(output["parameters"])


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_description(plugin: type[Plugin]) -> None:
    """The docstring begins with a sentence of one line."""
    first, *rest = plugin.description().splitlines()
    assert first.endswith(".")
    assert not rest or rest[0] == ""


@pytest.mark.parametrize(
    ("plugin", "field"),
    [
        pytest.param(plugin, field, id=f"{plugin.name}-{field}")
        for plugin in PLUGINS
        for field in plugin.Parameters.model_fields
    ],
)
def test_parameters(plugin: type[Plugin], field: str) -> None:
    """Each parameter says what it is, a number its unit, an optional one its default."""
    info = plugin.Parameters.model_fields[field]
    assert info.description, "no description"
    assert info.description.endswith(".")
    assert re.fullmatch(r"[a-z][a-z0-9_]*", field)
    if not info.is_required():
        assert re.search(r"[Dd]efault", info.description), "the default is not told"
    if field.endswith("_seconds"):
        assert "econds" in info.description
    if field.endswith("_bytes"):
        assert "ytes" in info.description


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_parameters_are_frozen(plugin: type[Plugin]) -> None:
    """Events are worked on at the same time: nobody may change what all of them share."""
    parameters = plugin.Parameters.model_validate(_parameters(plugin))
    for field in plugin.Parameters.model_fields:
        with pytest.raises(ValidationError):
            setattr(parameters, field, None)


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_names_and_clients(plugin: type[Plugin]) -> None:
    """Names have the form that rules use; the clients are those there are."""
    pattern = r"[a-z0-9]+" if issubclass(plugin, Notifier) else r"[a-z0-9]+:[a-z0-9]+"
    assert re.fullmatch(pattern, plugin.name)
    assert set(plugin.uses) <= CLIENTS
    assert bool(plugin.permissions) == ("kubernetes" in plugin.uses)


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_permissions(plugin: type[Plugin]) -> None:
    """Permissions are least: no wildcard, nothing twice."""
    asked = [
        (group, resource, verb)
        for rule in plugin.permissions
        for group in rule.api_groups
        for resource in rule.resources
        for verb in rule.verbs
    ]
    assert len(asked) == len(set(asked))
    assert "*" not in chain.from_iterable(asked)


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_needs(plugin: type[Plugin]) -> None:
    """What the parameters of the example need is part of what the class states."""

    def single(rules: Iterable[PolicyRule]) -> set[tuple[str, ...]]:
        return {
            each
            for rule in rules
            for each in itertools.product(rule.api_groups, rule.resources, rule.verbs)
        }

    made = plugin(plugin.Parameters.model_validate(_parameters(plugin)), Clients())
    assert single(made.needs({})) <= single(plugin.permissions)


@pytest.mark.parametrize("plugin", ACTIONNERS, ids=_name)
def test_sources(plugin: type[Actionner]) -> None:
    """An actionner is for event sources that there are."""
    assert plugin.source
    assert set(plugin.source) <= SOURCES


@pytest.mark.parametrize("plugin", ACTIONNERS, ids=_name)
async def test_empty_event(plugin: type[Actionner]) -> None:
    """An event that lacks what the actionner requires is refused by its check, in words."""
    actionner = plugin(plugin.Parameters.model_validate(_parameters(plugin)), Clients())
    if plugin.required_output_fields:
        with pytest.raises(CheckError, match=r"."):
            await actionner.check(Event())
    else:
        await actionner.check(Event())


@pytest.mark.parametrize("plugin", PLUGINS, ids=_name)
def test_no_state(plugin: type[Plugin]) -> None:
    """One instance serves many events at once: it has nothing but parameters and clients."""
    made = plugin(plugin.Parameters.model_validate(_parameters(plugin)), Clients())
    assert vars(made).keys() == {"parameters", "clients"}


def test_names_are_unique() -> None:
    """No plugin hides another."""
    assert len(PLUGINS) == len({plugin.name for plugin in PLUGINS})


def test_order() -> None:
    """The plugins are listed in the reference's order, our own after them."""
    assert list(CATALOG.actionners) == [
        "kubernetes:terminate",
        "kubernetes:label",
        "kubernetes:annotation",
        "kubernetes:networkpolicy",
        "kubernetes:exec",
        "kubernetes:script",
        "kubernetes:log",
        "kubernetes:delete",
        "kubernetes:cordon",
        "kubernetes:drain",
        "kubernetes:download",
        "kubernetes:tcpdump",
        "kubernetes:sysdig",
        "http:request",
    ]
    assert list(CATALOG.outputs) == ["local:file"]
    assert list(CATALOG.notifiers) == ["k8sevents", "webhook"]
