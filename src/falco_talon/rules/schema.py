"""JSON Schema of a rule file, for editors: the keys, and the parameters of every plugin.

It says what may stand there, not what must: a block may be completed by another one, in another
file. ``talon rules check`` knows all of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from falco_talon.catalog import Catalog
from falco_talon.plugin import Plugin
from falco_talon.rules import keys
from falco_talon.rules.criteria import PRIORITIES
from falco_talon.rules.model import MAX_TIMEOUT_SECONDS

Schema = dict[str, Any]

_TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}
_TEXTS: Schema = {"type": ["array", "null"], "items": {"type": ["string", "number", "boolean"]}}
_FLAG: Schema = {"enum": [True, False, *keys.FLAGS]}
_TIMEOUT: Schema = {
    "type": ["number", "string", "null"],
    "exclusiveMinimum": 0,
    "maximum": MAX_TIMEOUT_SECONDS,
    "pattern": r"^\d+(\.\d+)?[smh]?$",
}
_SCALARS = ["string", "number", "boolean", "null"]
"""What a parameter that is a text takes: any scalar, by its literal text."""


def rules_schema(catalog: Catalog) -> Schema:
    """Return the schema of a rule file, for the plugins of the catalogue."""
    actions = _object(keys.ACTION, _action_types(catalog)) | _parameters(
        "actionner", catalog.actionners
    )
    actions["properties"][keys.CONTEXTS_ALIAS] = {
        **_TEXTS,
        "description": "Read as additional_contexts.",
        "deprecated": True,
    }
    rule_types = {
        "rule": _TEXT,
        "description": _TEXT,
        "continue": _FLAG,
        "dry_run": _FLAG,
        "match": {"$ref": "#/$defs/match"},
        "actions": {"type": ["array", "null"], "items": {"$ref": "#/$defs/action"}},
        "notifiers": _names(catalog.notifiers),
    }
    both = _object({**keys.ACTION, **keys.RULE}, {**_action_types(catalog), **rule_types})
    both |= _parameters("actionner", catalog.actionners)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Rules of Falco Talon",
        "type": ["array", "null"],
        "items": {"$ref": "#/$defs/block"},
        "$defs": {
            "block": _either(
                ("rule", "action", both),
                ("rule", "", {"$ref": "#/$defs/rule"}),
                ("action", "", {"$ref": "#/$defs/action"}),
                otherwise=_extension(),
            ),
            "rule": _object(keys.RULE, rule_types) | {"required": ["rule"]},
            "action": actions | {"required": ["action"]},
            "match": _object(keys.MATCH, _match_types()),
            "output": _object(
                keys.OUTPUT,
                {"target": _name(catalog.outputs), "parameters": {"type": ["object", "null"]}},
            )
            | _parameters("target", catalog.outputs),
            **_models(catalog.actionners),
            **_models(catalog.outputs),
        },
    }


def _action_types(catalog: Catalog) -> dict[str, Schema]:
    return {
        "action": _TEXT,
        "description": _TEXT,
        "actionner": _name(catalog.actionners),
        "parameters": {"type": ["object", "null"]},
        "continue": _FLAG,
        "ignore_errors": _FLAG,
        "timeout": _TIMEOUT,
        "additional_contexts": _names(catalog.contexts),
        "output": {"$ref": "#/$defs/output"},
    }


def _match_types() -> dict[str, Schema]:
    levels = "|".join("".join(f"[{c}{c.upper()}]" for c in name) for name in PRIORITIES)
    return {
        "rules": _TEXTS,
        "output_fields": {
            "type": ["array", "null"],
            "items": {"type": "string", "pattern": "="},
        },
        "priority": {
            "type": ["string", "null"],
            "anyOf": [
                {"enum": [name.capitalize() for name in PRIORITIES]},
                {"type": "null"},
                {"pattern": f"^([<>]?=?({levels}))?$"},
            ],
        },
        "source": _TEXT,
        "tags": _TEXTS,
    }


def _object(described: Mapping[str, str], types: Mapping[str, Schema]) -> Schema:
    properties = {
        key: {"allOf": [types[key]], "description": text}
        if "$ref" in types[key]
        else {**types[key], "description": text}
        for key, text in described.items()
    }
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _extension() -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "patternProperties": {f"^{keys.EXTENSION}": {}},
        "additionalProperties": False,
    }


def _either(*cases: tuple[str, str, Schema], otherwise: Schema) -> Schema:
    """Return the schema of the first case whose keys are there: better messages than of anyOf."""
    schema = otherwise
    for first, second, then in reversed(cases):
        required = [key for key in (first, second) if key]
        schema = {"if": {"required": required}, "then": then, "else": schema}
    return schema


def _name(plugins: Iterable[str]) -> Schema:
    names = sorted(plugins)
    return {"enum": [*names, None]} if names else {"type": ["string", "null"]}


def _names(plugins: Iterable[str]) -> Schema:
    names = sorted(plugins)
    items: Schema = {"enum": names} if names else {"type": "string"}
    return {"type": ["array", "null"], "items": items}


def _parameters(key: str, plugins: Mapping[str, type[Plugin]]) -> Schema:
    """Return which parameters go with which plugin."""
    return {
        "allOf": [
            {
                "if": {"properties": {key: {"const": name}}, "required": [key]},
                "then": {
                    "properties": {
                        key: {"description": plugin.description()},
                        "parameters": {"$ref": f"#/$defs/{name}"},
                    }
                },
            }
            for name, plugin in plugins.items()
        ]
    }


def _models(plugins: Mapping[str, type[Plugin]]) -> Schema:
    return {name: _model(name, plugin.Parameters) for name, plugin in plugins.items()}


class _Accepting(GenerateJsonSchema):
    """Lets anything pass that a plugin converts before it validates (``10m`` for 600)."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        generated = super().function_before_schema(schema)
        if "json_schema_input_schema" in schema or generated.get("type") == "string":
            return generated
        return {}


def _model(name: str, model: type[BaseModel]) -> Schema:
    """Return the schema of the parameters of a plugin, as rule files may write them."""
    generated = model.model_json_schema(
        ref_template=f"#/$defs/{name}/$defs/{{model}}", schema_generator=_Accepting
    )
    schema: Schema = _as_written(generated)
    schema.pop("required", None)
    schema["type"] = ["object", "null"]
    schema["additionalProperties"] = False
    return schema


def _as_written(schema: Any) -> Any:
    """Let every text be any scalar, and every parameter be null, which is as if not given."""
    if isinstance(schema, list):
        return [_as_written(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copied = {key: _as_written(value) for key, value in schema.items()}
    if copied.get("format") == "duration":
        del copied["format"]  # ours are written 10m, not PT10M
    if copied.get("type") == "string" and "enum" not in copied and "const" not in copied:
        copied["type"] = _SCALARS
    return copied
