"""What the catalogue says of a plugin: plain data, in the order it is shown."""

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falco_talon.plugin import Actionner, Notifier, Output, PolicyRule

_EMPTY: Mapping[type, Any] = {dict: {}, list: [], tuple: [], str: "", int: 0, float: 0, bool: False}
"""What stands for a required parameter: there is no default, its kind is all there is to say."""


def actionner_entry(plugin: "type[Actionner]") -> dict[str, Any]:
    """Describe an actionner."""
    return {
        "parameters": parameters(plugin.Parameters),
        "name": plugin.name.partition(":")[2],
        "category": plugin.category(),
        "description": plugin.description(),
        "source": ", ".join(plugin.source),
        **_permissions(plugin.permissions, plugin.cloud_permissions),
        **_example(plugin.example),
        "required_output_fields": list(plugin.required_output_fields),
        "continue": plugin.continue_,
        "use_context": plugin.use_context,
        "allow_output": plugin.artifact == "maybe",
        "require_output": plugin.artifact == "always",
    }


def output_entry(plugin: "type[Output]") -> dict[str, Any]:
    """Describe an output."""
    return {
        "name": plugin.name.partition(":")[2],
        "category": plugin.category(),
        "description": plugin.description(),
        "parameters": parameters(plugin.Parameters),
        **_permissions(plugin.permissions, plugin.cloud_permissions),
        **_example(plugin.example),
    }


def notifier_entry(plugin: "type[Notifier]") -> dict[str, Any]:
    """Describe a notifier."""
    settings = parameters(plugin.Parameters)
    return {
        "name": plugin.name,
        "description": plugin.description(),
        **({"parameters": settings} if settings else {}),
        **_permissions(plugin.permissions, plugin.cloud_permissions),
        **_example(plugin.example),
    }


def parameters(model: Any) -> dict[str, Any]:
    """Return the default of each parameter of a pydantic model, sorted by name."""
    from pydantic_core import to_jsonable_python

    listed = {}
    for key, field in model.model_fields.items():
        name = field.alias or key
        if field.is_required():
            listed[f"{name} (required)"] = _empty(field.annotation)
        else:
            default = field.get_default(call_default_factory=True)
            listed[name] = to_jsonable_python(default, fallback=str, by_alias=True)
    return dict(sorted(listed.items()))


def _empty(annotation: Any) -> Any:
    kind = getattr(annotation, "__origin__", annotation)
    return _EMPTY.get(kind, "")


def policy_rules(permissions: "Iterable[PolicyRule]") -> list[dict[str, list[str]]]:
    """Return the policy rules as they stand in a role."""
    return [
        {
            "apiGroups": list(rule.api_groups),
            "resources": list(rule.resources),
            "verbs": list(rule.verbs),
        }
        for rule in permissions
    ]


def _permissions(
    permissions: "tuple[PolicyRule, ...]", cloud_permissions: tuple[str, ...]
) -> dict[str, Any]:
    """Return the policy rules as they stand in roles, and what a cloud must allow."""
    said: dict[str, Any] = {}
    for key, own in (("permissions", False), ("own_namespace_permissions", True)):
        if rules := policy_rules(rule for rule in permissions if rule.own_namespace is own):
            said[key] = rules
    if cloud_permissions:
        said["cloud_permissions"] = list(cloud_permissions)
    return said


def _example(example: str) -> dict[str, str]:
    text = inspect.cleandoc(example).strip()
    return {"example": text + "\n"} if text else {}
