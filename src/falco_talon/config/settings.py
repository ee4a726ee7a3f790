"""The raw settings of one notifier."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema


class NotifierSettings(Mapping[str, Any]):
    """Settings as they were written, by lower-case name; scalars are text, nulls are left out.

    They are validated when something names the notifier. Any may be secret: neither ``repr`` nor
    ``str`` shows a value.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        hidden = ", ".join(f"{name!r}: '***'" for name in self._values)
        return f"NotifierSettings({{{hidden}}})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(repr)
        )

    @classmethod
    def _validate(cls, value: object) -> "NotifierSettings":
        if isinstance(value, NotifierSettings):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("mapping", "a notifier's settings are a mapping")
        return cls(value)
