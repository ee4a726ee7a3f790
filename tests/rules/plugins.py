"""Small real plugins, so that these tests need none of those that ship."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from falco_talon.catalog import Catalog
from falco_talon.errors import PluginError
from falco_talon.plugin import Actionner, BaseParameters, Context, Notifier, Output


def _https(url: str) -> str:
    if not url.startswith("https://"):
        raise PydanticCustomError("https", "the URL is not https")
    return url


def _seconds(value: object) -> object:
    return int(value.removesuffix("s")) if isinstance(value, str) else value


def _long(password: SecretStr) -> SecretStr:
    if len(password.get_secret_value()) < 8:
        raise ValueError(f"'{password.get_secret_value()}' is too short")
    return password


class Label(Actionner):
    """Sets labels."""

    name = "test:label"
    source = ("syscalls",)
    uses = ("kubernetes",)

    class Parameters(BaseParameters):
        labels: dict[str, str] = Field(min_length=1)
        level: Literal["pod", "node"] = "pod"


class Terminate(Actionner):
    """Ends the pod, and with it the rule's actions."""

    name = "test:terminate"
    continue_ = False

    class Parameters(BaseParameters):
        grace_period_seconds: int = 0
        ignore_daemonsets: bool = False
        allow_cidr: list[str] = Field(default_factory=list)
        ratio: float = 1.0
        name_: str = Field("", alias="name")


class Script(Actionner):
    """Runs a script."""

    name = "test:script"
    use_context = True

    class Parameters(BaseParameters):
        script: str = ""
        file: str = ""
        token: SecretStr = SecretStr("")

        @model_validator(mode="after")
        def _one_of_both(self) -> "Script.Parameters":
            if bool(self.script) == bool(self.file):
                raise ValueError("missing parameter 'script' or 'file'")
            return self


class Request(Actionner):
    """Sends a request; its parameters are nested."""

    name = "test:request"

    class Retry(BaseModel):
        times: int = 1
        on: list[int] = Field(default_factory=list)

    class Parameters(BaseParameters):
        retry: "Request.Retry | None" = None
        body: Any = None
        timeout: Annotated[int, BeforeValidator(_seconds)] | None = None
        url: Annotated[str, AfterValidator(_https)] = Field(
            "https://x", validation_alias=AliasChoices("url", "address")
        )
        password: Annotated[SecretStr, AfterValidator(_long)] = SecretStr("long enough")
        status: int | list[int] = 200
        mode: Literal["true", "false", "auto"] = "auto"


Request.Parameters.model_rebuild(_types_namespace={"Request": Request})


class Download(Actionner):
    """Fetches a file."""

    name = "test:download"
    artifact = "always"


class Log(Actionner):
    """Fetches logs."""

    name = "test:log"
    artifact = "maybe"
    source = ("syscalls", "k8s_audit")


class Shelf(Output):
    """Keeps artifacts."""

    name = "test:shelf"

    class Parameters(BaseParameters):
        destination: str
        tags: list[str] = Field(default_factory=list)

    def __init__(self, parameters: Any, clients: Any) -> None:
        super().__init__(parameters, clients)
        if parameters.destination == "nowhere":
            raise PluginError("there is no such destination")


class Drawer(Output):
    """Keeps artifacts elsewhere."""

    name = "test:drawer"
    uses = ("http",)

    class Parameters(BaseParameters):
        number: int


class Bell(Notifier):
    """Rings."""

    name = "bell"


class Node(Context):
    """Knows the node."""

    name = "node"
    uses = ("kubernetes",)


CATALOG = Catalog(
    actionners={p.name: p for p in (Label, Terminate, Script, Request, Download, Log)},
    outputs={p.name: p for p in (Shelf, Drawer)},
    notifiers={Bell.name: Bell},
    contexts={Node.name: Node},
)
