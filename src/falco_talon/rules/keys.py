"""The keys of a rule file and what they mean: for the reader, and for the schema."""

from collections.abc import Mapping

RULE: Mapping[str, str] = {
    "rule": "Name of the rule. Blocks of the same name are merged.",
    "description": "What the rule is for.",
    "continue": "Whether the following rules that match are run as well (default: true).",
    "dry_run": "Whether the actions are only logged (default: false).",
    "match": "Criteria; an event must meet all of those given. Without any, every event matches.",
    "actions": "What is done, in this order.",
    "notifiers": "Who is told, beside the default_notifiers of the configuration.",
}
ACTION: Mapping[str, str] = {
    "action": "Name of the action. An action block of this name completes the action of a rule.",
    "description": "What the action does.",
    "actionner": "Plugin that does it: category:name.",
    "parameters": "Parameters of the actionner.",
    "continue": "Whether the next action of the rule is run (default: as the actionner has it).",
    "ignore_errors": "Whether the next action is run even if this one fails (default: false).",
    "timeout": "How long the action may take, and how long the storing of what it brings back: "
    "seconds, or 90s, 5m, 1h (default: engine.action_timeout_seconds of the configuration, and the "
    "duration that the parameters of the action give it).",
    "additional_contexts": "Contexts that are fetched for the action.",
    "output": "Where to store what the actionner brings back.",
}
MATCH: Mapping[str, str] = {
    "rules": "Names of Falco rules, one of which raised the event.",
    "output_fields": "Conditions on the output fields of the event, one of which must hold: "
    'key=value or key!=value, several with commas are an AND; "values, in quotes" may hold commas.',
    "priority": "Priority of the event: [<|>][=]Priority.",
    "source": "Source of the event: syscall, k8s_audit, …",
    "tags": "Tags, one of which the event has; several with commas are an AND.",
}
OUTPUT: Mapping[str, str] = {
    "target": "Plugin that stores it: category:name.",
    "parameters": "Parameters of the output.",
}

CONTEXTS_ALIAS = "contexts"
"""What the published documentation of the reference calls ``additional_contexts``."""

EXTENSION = "x-"
"""Prefix of the keys of a block that only holds anchors."""

FLAGS = ("true", "false")
