"""The schema takes what ``rules check`` takes, and finds what a typist gets wrong."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import fastjsonschema
import pytest

from falco_talon.catalog import Catalog
from falco_talon.rules.nodes import value_of
from falco_talon.rules.parse import parse
from falco_talon.rules.schema import rules_schema
from tests.rules.plugins import CATALOG
from tests.rules.test_load import EVERY_KEY

RULES = sorted((Path(__file__).parents[2] / "rules").glob("*.yaml"))
SHIPPED = Catalog.load()


def valid(catalog: Catalog, text: str) -> bool:
    validate = fastjsonschema.compile(rules_schema(catalog))
    for root in parse(dedent(text).encode(), "f"):
        try:
            validate(value_of(root))
        except fastjsonschema.JsonSchemaValueException:
            return False
    return True


def test_every_key() -> None:
    assert valid(CATALOG, EVERY_KEY)


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_our_rules(file: Path) -> None:
    assert valid(SHIPPED, file.read_text())
    assert file.read_text().startswith("# yaml-language-server: $schema=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "- x-anchors: {a: 1}",
        "- rule: 5",
        "- rule: r\n  match:\n  actions:\n  continue: true",
        "- rule: r\n  match: {priority: '>=warning', tags: [a], rules: [true]}",
        "- action: a\n  actionner: test:label\n  parameters: {labels: {yes: true, n: 5, e: }}",
        "- action: a\n  actionner: test:request\n  parameters: {retry: {times: 2}, body: [{a: 1}]}",
        "- action: a\n  actionner: test:request\n  parameters: {timeout: 10s}",
        "- action: a\n  parameters: {whatever: 1}",
        "- action: a\n  contexts: [node]",
        "- action: a\n  timeout: 1.5",
        "- rule: r\n  actions: [{action: a, timeout: 2m}]",
        "- action: a\n  rule: b\n  actions: [{action: a}]\n  actionner: test:log",
    ],
)
def test_what_may_be_written(text: str) -> None:
    assert valid(CATALOG, text)


@pytest.mark.parametrize(
    "text",
    [
        "a: b",
        "- text",
        "- rules: r",
        "- rule: r\n  matches: {}",
        "- rule: r\n  match: {rule: [x]}",
        "- rule: r\n  match: {rules: x}",
        "- rule: r\n  match: {priority: warn}",
        "- rule: r\n  match: {output_fields: [x]}",
        "- rule: r\n  continue: maybe",
        "- rule: r\n  notifiers: [slak]",
        "- rule: r\n  actions: [{action: a, output: {target: nowhere}}]",
        "- rule: r\n  actions: [{actionner: test:log}]",
        "- action: a\n  actionner: test:lable",
        "- action: a\n  actionner: test:label\n  parameters: {level: pods}",
        "- action: a\n  actionner: test:label\n  parameters: {labls: {a: b}}",
        "- action: a\n  timeout: 0",
        "- action: a\n  timeout: soon",
        "- action: a\n  output: {target: test:drawer, parameters: {number: x}}",
        "- action: a\n  additional_contexts: [nod]",
    ],
)
def test_what_is_a_mistake(text: str) -> None:
    assert not valid(CATALOG, text)


@pytest.mark.parametrize("kind", ["actionners", "outputs"])
def test_examples_of_the_shipped_plugins(kind: str) -> None:
    for plugin in getattr(SHIPPED, kind).values():
        assert plugin.example, plugin.name
        example = dedent(plugin.example)
        text = example if example.lstrip().startswith("-") else f"- action: a\n{indented(example)}"
        assert valid(SHIPPED, text), plugin.name


def indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip("\n").splitlines())


def test_descriptions_are_for_every_key_and_parameter() -> None:
    schema = rules_schema(SHIPPED)

    for name in ("rule", "action", "match", "output"):
        for key, described in schema["$defs"][name]["properties"].items():
            assert described.get("description"), (name, key)
    for plugin in SHIPPED.actionners:
        model: dict[str, Any] = schema["$defs"][plugin]
        for key, described in model.get("properties", {}).items():
            assert described.get("description"), (plugin, key)
