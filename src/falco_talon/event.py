"""The Falco event: decoded once, frozen, with the look-ups that the plugins share."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from falco_talon.errors import InvalidEventError

_OUTPUT_PREFIX = re.compile(
    r"(?:\d{2}:\d{2}:\d{2}\.\d{9}|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:?\d{2}))"
    r": (?:Debug|Informational|Info|Notice|Warning|Error|Critical|Alert|Emergency)\b ?",
    re.IGNORECASE,
)
"""Falco's own prefix, ``time: priority``, with the clock time or with ``time_format_iso_8601``."""

_STRINGS = ("output", "priority", "rule", "hostname", "source")
_KEYS = frozenset((*_STRINGS, "time", "output_fields", "tags"))
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)

_decode_json = msgspec.json.Decoder().decode


class Event(msgspec.Struct, frozen=True):
    """One Falco alert. Every value is text or data from an attacker: never trust it as code.

    The fields stand in the order of the JSON that travels on the bus and to functions; integers
    of any size stay exact. ``context`` is empty on reception and filled for each action.
    """

    trace_id: str = ""
    output: str = ""
    priority: str = ""
    rule: str = ""
    hostname: str = ""
    time: datetime = _NO_TIME
    source: str = "syscall"
    output_fields: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    tags: list[Any] | None = None

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Decode the body that Falco or Falcosidekick posts; it has no trace id yet.

        :raises InvalidEventError: with the reason, if it is no JSON object or a value has the
            wrong type. A ``context`` sent by the client is dropped.
        """
        try:
            document = _decode_json(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidEventError(f"the body is not valid JSON: {error}") from None
        except RecursionError:
            raise InvalidEventError("the body is nested too deeply") from None
        if type(document) is not dict:
            raise InvalidEventError(f"the body is not a JSON object but {_kind(document)}")
        if not _KEYS.issuperset(document):
            document = _known_keys(document)
        for key in _STRINGS:
            value = document.get(key)
            if value is None:
                document.pop(key, None)
            elif type(value) is not str:
                raise InvalidEventError(f"'{key}' must be a string, not {_kind(value)}")
        if type(document.get("output_fields")) not in _OBJECT:
            raise InvalidEventError(
                f"'output_fields' must be an object, not {_kind(document['output_fields'])}"
            )
        if type(document.get("tags")) not in _ARRAY:
            raise InvalidEventError(f"'tags' must be an array, not {_kind(document['tags'])}")
        document["time"] = _time(document.get("time"))
        document["source"] = document.get("source") or "syscall"
        document["output"] = trim_output(document.get("output", ""))
        return cls(**document)

    @classmethod
    def from_message(cls, data: bytes) -> Self:
        """Decode a message of the bus, as :meth:`to_json` wrote it.

        :raises InvalidEventError: if somebody else wrote it.
        """
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidEventError(f"the message is no event: {error}") from None

    def to_json(self) -> bytes:
        """Encode the event, keys in the order of the fields, none left out."""
        return msgspec.json.encode(self)

    def with_context(self, context: Mapping[str, Any]) -> Self:
        """Return the event with *context* in place of its own."""
        return msgspec.structs.replace(self, context=dict(context))

    def with_trace_id(self, trace_id: str) -> Self:
        """Return the event with its trace id, 32 hexadecimal digits."""
        return msgspec.structs.replace(self, trace_id=trace_id)

    @property
    def output_hash(self) -> str:
        """The md5 of the trimmed output: what deduplication goes by."""
        return _md5(self.output)

    @property
    def event_hash(self) -> str:
        """The md5 of rule, source, hostname and output (``deduplication.key: event``)."""
        return _md5("\0".join((self.rule, self.source, self.hostname, self.output)))

    def field(self, *names: str) -> str:
        """Return the first of the output fields that is text or a number, as text, else ``""``.

        Numbers become plain decimals. An empty text counts as found and ends the search.
        """
        fields = self.output_fields or {}
        for name in names:
            value = fields.get(name)
            if type(value) is str:
                return value
            if type(value) is int:
                return str(value)
            if type(value) is float:
                return format(value, "f").rstrip("0").rstrip(".")
        return ""

    @property
    def pod(self) -> str:
        """Name of the pod that the event is about, or ``""``."""
        return self.field("k8s.pod.name", "ka.target.pod.name", "ka.target.name")

    @property
    def namespace(self) -> str:
        """Namespace that the event is about, or ``""``."""
        return self.field("k8s.ns.name", "ka.target.namespace")

    @property
    def remote_ip(self) -> str:
        """Address of the other end of the connection, or ``""``."""
        return self.field("fd.rip", "fd.sip")

    @property
    def remote_port(self) -> str:
        """Port of the other end of the connection, or ``""``."""
        return self.field("fd.rport", "fd.sport")

    @property
    def remote_protocol(self) -> str:
        """Protocol of the other end of the connection, or ``""``."""
        return self.field("fd.rproto", "fd.sproto")

    @property
    def target_name(self) -> str:
        """Name of the object of an audit event, or ``""``."""
        return self.field("ka.target.name")

    @property
    def target_namespace(self) -> str:
        """Namespace of the object of an audit event, or ``""``."""
        return self.field("ka.target.namespace")

    @property
    def target_resource(self) -> str:
        """Resource (plural, lower case) of the object of an audit event, or ``""``."""
        return self.field("ka.target.resource")

    @property
    def target(self) -> tuple[str, str]:
        """What actions work on, and what orders them: ``(kind, name)`` of pod, else node or host.

        Events of one target are handled one after the other, those of different ones at once.
        """
        if self.pod:
            return ("pod", f"{self.namespace}/{self.pod}")
        if node := self.field("k8s.node.name", "ka.target.node.name"):
            return ("node", node)
        return ("host", self.hostname)


def trim_output(output: str) -> str:
    """Return *output* without Falco's own prefix ``time: priority``, which never repeats."""
    prefix = _OUTPUT_PREFIX.match(output)
    return output[prefix.end() :] if prefix else output


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


_OBJECT = (dict, type(None))
_ARRAY = (list, type(None))
_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _known_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Keep the keys of an event, whatever their case: Falcosidekick adds its own beside them."""
    lowered = ((key.lower(), value) for key, value in document.items())
    return {key: value for key, value in lowered if key in _KEYS}


def _time(value: object) -> datetime:
    if value is None:
        return _NO_TIME
    if type(value) is not str:
        raise InvalidEventError(f"'time' must be an RFC 3339 text, not {_kind(value)}")
    try:
        # Nanoseconds: the clock of Falco. msgspec rounds them to what a datetime holds.
        time = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise InvalidEventError(f"'time' must be an RFC 3339 text, found '{value[:64]}'") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
