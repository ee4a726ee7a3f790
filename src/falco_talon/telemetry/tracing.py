"""Spans and trace ids. Without a collector there are no spans, but every event has a trace id."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from random import getrandbits
from typing import Any, Protocol

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-(?P<trace_id>(?!0{32})[0-9a-f]{32})-[0-9a-f]{16}-")

Attributes = Mapping[str, Any]


class Span(Protocol):
    """What may be said of a step while it lasts."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Add facts."""
        ...

    def event(self, text: str, time: datetime | None = None) -> None:
        """Add something that happened."""
        ...

    def succeed(self, text: str) -> None:
        """Say that it went well."""
        ...

    def fail(self, error: str) -> None:
        """Say that it did not."""
        ...


class Tracing(Protocol):
    """Makes spans; one made inside another is its child."""

    def span(
        self,
        name: str,
        *,
        attributes: Attributes | None = None,
        parent: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Span]:
        """Make a span; *parent* is what the headers of a request or message say."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return what tells the receiver of a message about the current span."""
        ...

    def close(self) -> None:
        """Send what was not sent yet."""
        ...


class _NoSpan:
    """Nothing but a trace id, which is taken from the sender or made when it is asked for."""

    __slots__ = ("_parent", "_trace_id")

    def __init__(self, parent: Mapping[str, str] | None) -> None:
        self._parent = parent
        self._trace_id = ""

    @property
    def trace_id(self) -> str:
        if not self._trace_id:
            sent = self._parent.get("traceparent") if self._parent else None
            known = _TRACEPARENT.match(sent) if sent else None
            self._trace_id = known["trace_id"] if known else f"{getrandbits(128):032x}"
        return self._trace_id

    def set(self, attributes: Attributes) -> None:
        pass

    def event(self, text: str, time: datetime | None = None) -> None:
        pass

    def succeed(self, text: str) -> None:
        pass

    def fail(self, error: str) -> None:
        pass


class _NoSpanContext:
    """A context manager that costs next to nothing: it is on the path of every event."""

    __slots__ = ("_span",)

    def __init__(self, span: _NoSpan) -> None:
        self._span = span

    def __enter__(self) -> Span:
        return self._span

    def __exit__(self, *_: object) -> None:
        pass


class NoTracing:
    """Trace ids only."""

    def span(
        self,
        name: str,
        *,
        attributes: Attributes | None = None,
        parent: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Span]:
        """Return a span that records nothing."""
        return _NoSpanContext(_NoSpan(parent))

    def headers(self) -> Mapping[str, str]:
        """Return none: the trace id travels inside the event."""
        return {}

    def close(self) -> None:
        """Nothing is left to send."""
