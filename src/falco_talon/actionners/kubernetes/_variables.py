"""The variables that commands and file names may use: ``$FD_NAME``, ``${FALCO-TALON_RULE}``…

They are a dictionary made for one action. Nothing enters the environment of the daemon, and
nothing of that environment comes in.
"""

import re
from collections.abc import Iterator
from typing import Final

from falco_talon.errors import CheckError
from falco_talon.event import Event

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
# To a shell ${FALCO-TALON_RULE} is the variable FALCO with the default value TALON_RULE.
_HYPHENATED: Final = re.compile(r"\$\{FALCO-TALON_([A-Z0-9_-]+)\}")
_OF_THE_EVENT: Final = ("PRIORITY", "HOSTNAME", "RULE", "SOURCE", "TAGS")
_OF_THE_LOADER: Final = ("LD_", "BASH_", "DYLD_")
_LIMIT_BYTES: Final = 64 * 1024


def with_plain_names(text: str) -> str:
    """Return *text* with ``${FALCO-TALON_X}`` as ``${FALCO_TALON_X}``, which a shell can have."""
    return _HYPHENATED.sub(lambda found: "${FALCO_TALON_" + found[1].replace("-", "_") + "}", text)


def used_variables(event: Event, text: str) -> dict[str, str]:
    """Return those variables of *event* that *text* names, by name.

    :raises CheckError: if their values cannot be given to a process.
    """
    words = set(_WORD.findall(text))
    found = {name: value for name, value in _variables(event) if name in words}
    for name, value in found.items():
        if "\0" in value:
            raise CheckError(f"the value of {name} holds a NUL, which no variable can")
    if sum(len(value.encode(errors="replace")) for value in found.values()) > _LIMIT_BYTES:
        names = ", ".join(sorted(found))
        raise CheckError(f"the values of {names} are longer than {_LIMIT_BYTES} bytes")
    return found


def expand(event: Event, text: str) -> str:
    """Return *text* with the values of its ``$NAME`` and ``${NAME}`` in place.

    :raises CheckError: if *event* has no such value.
    """
    text = with_plain_names(text)
    variables = used_variables(event, text)

    def value(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        if name not in variables:
            raise CheckError(f"the event has no value for ${name}")
        return variables[name]

    return _REFERENCE.sub(value, text)


def _variables(event: Event) -> Iterator[tuple[str, str]]:
    """Yield every name and value; the last one of a name counts."""
    for field in event.output_fields or {}:
        name = re.sub(r"[.\[]", "_", field.upper()).replace("]", "")
        if _allowed(name) and (value := _text(event, field)) is not None:
            yield name, value
    for key, element in (event.context or {}).items():
        name = re.sub(r"[.-]", "_", key.upper())
        if _allowed(name) and element is not None:
            yield name, str(element)
    tags = ",".join(tag for tag in event.tags or () if isinstance(tag, str))
    values = (event.priority, event.hostname, event.rule, event.source, tags)
    yield from zip(_OF_THE_EVENT, values, strict=True)


def _text(event: Event, field: str) -> str | None:
    value = (event.output_fields or {})[field]
    if type(value) is bool:
        return str(value).lower()
    return event.field(field) if isinstance(value, str | int | float) else None


def _allowed(name: str) -> bool:
    """Whether an event may set it.

    What shells and loaders heed has no underscore (PATH, IFS, ENV) or a prefix of theirs; the
    names of Falco's fields have a dot, which is an underscore here.
    """
    return bool(
        _WORD.fullmatch(name) and "_" in name.strip("_") and not name.startswith(_OF_THE_LOADER)
    )
