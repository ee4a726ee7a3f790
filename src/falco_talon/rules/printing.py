"""Merged rules → a rule file that loads as the very same rules, always with the same text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from falco_talon.rules.model import Action, Match, Rule
from falco_talon.rules.nodes import ListNode, MapNode, Scalar, value_of

_STEP = 4
_BARE = re.compile(r"[A-Za-z0-9_/$(<.](?:[\w ./()$<>=+~^@;*?!|&\[\]{}-]|:(?=\S)|,|'|\")*", re.ASCII)
"""Text that needs no quotes, unless it means something else in YAML 1.2 or 1.1."""
_OTHER_MEANING = re.compile(
    r"y|n|yes|no|on|off|[-+]?[\d_]+(?::[0-5]?\d)+(?:\.[\d_]*)?|\d{4}-\d\d?-\d\d?(?:[Tt ].*)?|<<|=",
    re.IGNORECASE,
)
"""What YAML 1.1 takes for a boolean, a number of base 60, or a date."""
_LITERAL = re.compile(r"[^\s#](?:.*\S)?(?:\n|\n+[ ]*\S(?:.*\S)?)*")
"""Text of lines that can stand as a block, each without spaces at its end."""
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def to_yaml(rules: Iterable[Rule]) -> str:
    """Return the rules as one YAML document, with the keys in the order of the reference."""
    lines = list(_sequence([_rule(rule) for rule in rules], 0))
    return "\n".join(["---", *lines]) + "\n"


def to_plain(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Return the rules as plain dicts, lists and values, keys in the same order."""
    return [_plain(_rule(rule)) for rule in rules]


def _rule(rule: Rule) -> dict[str, Any]:
    return _given(
        rule=_quoted(rule.name),
        description=_quoted(rule.description),
        continue_=_quoted(rule.continue_),
        dry_run=_quoted(rule.dry_run),
        notifiers=[_quoted(name) for name in rule.notifiers],
    ) | {"actions": [_action(action) for action in rule.actions], "match": _match(rule.match)}


def _action(action: Action) -> dict[str, Any]:
    output = {
        "parameters": _sorted(action.output.parameters),
        "target": _quoted(action.output.target),
    }
    return _given(
        parameters=_sorted(action.parameters),
        output=output if action.output.target else {},
        action=_quoted(action.name),
        description=_quoted(action.description),
        actionner=_quoted(action.actionner),
        continue_=_quoted(action.continue_),
        ignore_errors=_quoted(action.ignore_errors),
        timeout=_number(action.timeout),
        additional_contexts=[_quoted(name) for name in action.contexts],
    )


def _match(match: Match) -> dict[str, Any]:
    return _given(
        output_fields=[_quoted(item) for item in match.output_fields],
        priority=_quoted(match.priority),
        source=_quoted(match.source),
        rules=[_quoted(name) for name in match.rules],
        tags=[_quoted(item) for item in match.tags],
    )


def _given(**values: Any) -> dict[str, Any]:
    return {key.rstrip("_"): value for key, value in values.items() if value}


def _quoted(text: str) -> Scalar:
    """Return the text as one that means nothing else."""
    return Scalar(text)


def _number(text: str) -> Scalar:
    """Return the text as the number that it may be (``90``, but ``2m`` stays a text)."""
    return Scalar(text, plain=True)


def _sorted(node: Any) -> Any:
    """Return the node with the keys of all its maps sorted."""
    if isinstance(node, MapNode):
        return {key: _sorted(node[key]) for key in sorted(node)}
    if isinstance(node, ListNode):
        return [_sorted(item) for item in node]
    return node


def _plain(tree: Any) -> Any:
    if isinstance(tree, Scalar):
        return value_of(tree)
    if isinstance(tree, dict):
        return {str(key): _plain(item) for key, item in tree.items()}
    return [_plain(item) for item in tree]


def _sequence(items: Sequence[Any], indent: int) -> Iterable[str]:
    if not items:
        yield " " * indent + "[]"
    for item in items:
        lines = list(_block(item, indent + 2))
        yield f"{' ' * indent}- {lines[0][indent + 2 :]}"
        yield from lines[1:]


def _mapping(fields: Mapping[str, Any], indent: int) -> Iterable[str]:
    if not fields:
        yield " " * indent + "{}"
    deeper = (indent // _STEP + 1) * _STEP  # to the next stop, as the reference does
    for key, value in fields.items():
        start = f"{' ' * indent}{_text(Scalar(key), None)}:"
        if isinstance(value, Scalar):
            yield f"{start} {_text(value, deeper)}"
        elif not value:
            yield f"{start} {'{}' if isinstance(value, dict) else '[]'}"
        else:
            yield start
            yield from _block(value, deeper)


def _block(value: Any, indent: int) -> Iterable[str]:
    if isinstance(value, Scalar):
        return [" " * indent + _text(value, indent + 2)]
    if isinstance(value, dict):
        return _mapping(value, indent)
    return _sequence(value, indent)


def _text(scalar: Scalar, indent: int | None) -> str:
    """Return the scalar as it must be written, its further lines indented."""
    text = str(scalar)
    if scalar.plain and not isinstance(value_of(scalar), str):
        return text or "null"
    if _needs_no_quotes(text):
        return text
    printable = all(line.isprintable() for line in text.split("\n"))
    if indent is not None and "\n" in text and printable and _LITERAL.fullmatch(text):
        kept = {0: "-", 1: ""}.get(len(text) - len(text.rstrip("\n")), "+")
        body = (f"{' ' * indent}{line}" if line else "" for line in text.split("\n"))
        return f"|{kept}\n" + "\n".join(body).removesuffix("\n")
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _needs_no_quotes(text: str) -> bool:
    if not _BARE.fullmatch(text) or text.endswith((" ", ":")) or " #" in text:
        return False
    means_itself = isinstance(value_of(Scalar(text, plain=True)), str)
    return means_itself and not _OTHER_MEANING.fullmatch(text)


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
