"""What is wrong with a configuration, in words: where, which key, what was found, what may be."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from falco_talon.config.document import Document, KeyPath
from falco_talon.config.fields import find, is_free, keys, section_of

_SHOWN = 64
"""Characters of a wrong value that are quoted."""


def describe(
    error: ValidationError,
    model: type[BaseModel],
    values: Mapping[str, Any],
    document: Document,
    variables: Mapping[KeyPath, str],
) -> list[str]:
    """Return one line for each fault, in the order of the file.

    Values of secrets and of whole sections are never quoted.
    """
    faults = []
    for fault in error.errors(include_url=False, include_context=False):
        line, where = _where(fault["loc"], document, variables)
        text = f"{where}{_dotted(fault['loc'])}: {_text(fault, model, values)}"
        faults.append((line, text))
    return [text for _, text in sorted(faults, key=lambda fault: fault[0])]


def _where(path: KeyPath, document: Document, variables: Mapping[KeyPath, str]) -> tuple[int, str]:
    """Return the line, 0 if there is none, and how to name the place."""
    for end in range(len(path), 0, -1):
        if variable := variables.get(path[:end]):
            return 0, f"environment variable {variable}: "
        if line := document.lines.get(path[:end]):
            return line, f"{document.name}:{line}: "
    return 0, f"{document.name}: " if document.name else ""


def _dotted(path: KeyPath) -> str:
    return _inert(".".join(str(part) for part in path))


def _text(fault: ErrorDetails, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    path = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return "unknown key, " + _nearest(path, model)
    key = find(model, path)
    if key is None:
        return f"found {_kind(fault['input'])}, allowed: a section with keys and values"
    if key.secret:
        return f"allowed: {key.allowed}"
    return f"found {_found(values, path)}, allowed: {key.allowed}"


def _found(values: Any, path: KeyPath) -> str:
    for part in path:
        if isinstance(values, str):  # a list in a variable
            break
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
    if not isinstance(values, str):
        return _kind(values)
    shown = values if len(values) <= _SHOWN else values[:_SHOWN] + "…"
    return f"'{_inert(shown)}'"


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "a section"
    return "a list" if isinstance(value, list | tuple) else "a single value"


def _inert(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _nearest(path: KeyPath, model: type[BaseModel]) -> str:
    """Say which key was probably meant: of the same section, else of any other."""
    section, word = model, str(path[-1])
    for part in path[:-1]:
        section = section_of(section.model_fields[str(part)]) or section
    siblings = list(section.model_fields)
    if close := difflib.get_close_matches(word, siblings, n=1, cutoff=0.7):
        return f"did you mean '{close[0]}'?"
    dotted = [key.dotted for key in keys(model)]
    named = [name for name in dotted if word in (name.split(".")[-1], name.replace(".", "_"))]
    if not named:
        named = difflib.get_close_matches(word, dotted, n=1, cutoff=0.7)
    if len(named) == 1:
        return f"did you mean '{named[0]}'?"
    free = [name for name, field in model.model_fields.items() if is_free(field)]
    return "allowed: " + ", ".join(sorted({*siblings, *(free if section is model else ())}))
