"""The contract of a plugin: one file, one class, checked when it is defined.

A plugin is made when the rules load, with validated parameters and the clients it may use. It
returns what it did or raises one of ``CheckError``, ``TransientError``, ``PluginError`` and
``Ignored``. It never logs, counts, traces, notifies or reads configuration.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from falco_talon.clients import Clients
from falco_talon.event import Event
from falco_talon.report import Report


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """What a plugin must be allowed to do in the cluster: a policy rule of Kubernetes RBAC.

    With ``own_namespace`` it is needed in the namespace that the daemon runs in alone.
    """

    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ("",)
    own_namespace: bool = False


Tell = Callable[[str], None]
"""Says in one sentence how far a long action is: a line of the log."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an actionner brought back, for an output to store.

    ``name`` is a base name (``log``, ``tcpdump.pcap``) or the path of the fetched file;
    ``objects`` names where it comes from, as in :class:`Result`.
    """

    name: str
    data: bytes = field(repr=False)
    objects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a plugin did: one sentence, the objects it worked on, and maybe an artifact."""

    text: str
    objects: Mapping[str, str] = field(default_factory=dict)
    artifact: Artifact | None = None


class BaseParameters(BaseModel):
    """Parameters of a plugin. Unknown keys are left to the binder, which names the nearest."""

    # Built at the first use: a rules check uses few of all the plugins' models.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True
    )


class Plugin:
    """What actionners, outputs and notifiers have in common."""

    name: ClassVar[str]
    """Full name: ``category:name``, for notifiers ``name``."""
    example: ClassVar[str] = ""
    """YAML, as a user would write it."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Names of the clients that must be ready before the plugin runs: ``kubernetes``, ``aws``…"""
    permissions: ClassVar[tuple[PolicyRule, ...]] = ()
    """What it must be allowed in the cluster, no more."""
    cloud_permissions: ClassVar[tuple[str, ...]] = ()
    """What it must be allowed at a cloud provider (``s3:PutObject``)."""

    class Parameters(BaseParameters):
        """None by default."""

    def __init__(self, parameters: Any, clients: Clients) -> None:
        self.parameters = parameters
        self.clients = clients

    def needs(self, known: Mapping[str, Collection[str]]) -> tuple[PolicyRule, ...]:
        """Return the part of ``permissions`` that is needed with these parameters.

        *known* are the only values that output fields of the events can have, for those fields
        that the rule is particular about.
        """
        return self.permissions

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        if abstract:
            return
        if not getattr(cls, "name", ""):
            raise TypeError(f"{cls.__qualname__}: a plugin needs a 'name'")
        if not cls.__doc__:
            raise TypeError(f"{cls.__qualname__}: a plugin needs a docstring, its description")
        if not issubclass(cls.Parameters, BaseParameters):
            raise TypeError(f"{cls.__qualname__}.Parameters must derive from BaseParameters")

    @classmethod
    def category(cls) -> str:
        """The part of the name before the colon (the whole name of a notifier)."""
        return cls.name.partition(":")[0]

    @classmethod
    def description(cls) -> str:
        """The docstring, as the catalogue and the documentation show it."""
        return inspect.cleandoc(cls.__doc__ or "")


class Actionner(Plugin, abstract=True):
    """Reacts to an event."""

    source: ClassVar[tuple[str, ...]] = ("any",)
    """Event sources it is made for: ``syscalls``, ``k8s_audit``; ``any`` for all."""
    required_output_fields: ClassVar[tuple[str, ...]] = ()
    continue_: ClassVar[bool] = True
    """Whether the next action of the rule runs when neither rule nor action say so."""
    use_context: ClassVar[bool] = False
    """Whether ``additional_contexts`` are fetched for it."""
    artifact: ClassVar[Literal["never", "maybe", "always"]] = "never"
    """``always``: an output is required; ``maybe``: allowed; ``never``: none."""

    @property
    def duration_seconds(self) -> float:
        """How long the work lasts by its own parameters; its time limit comes on top of that."""
        return 0.0

    async def check(self, event: Event) -> None:
        """See that the event fits.

        :raises CheckError: if it does not.
        """

    async def run(self, event: Event) -> Result:
        """Do it.

        :raises PluginError: if it cannot be done; :raises Ignored: if it must not.
        """
        raise NotImplementedError

    async def work(self, event: Event, tell: Tell) -> Result:
        """Do it and *tell* how far it is: what may take minutes does this in place of ``run``."""
        return await self.run(event)


class Output(Plugin, abstract=True):
    """Stores an artifact."""

    async def check(self) -> None:
        """See that the destination is there.

        :raises CheckError: if it is not.
        """

    async def run(self, artifact: Artifact) -> Result:
        """Store it.

        :raises PluginError: if it cannot be stored.
        """
        raise NotImplementedError


class Notifier(Plugin, abstract=True):
    """Tells somebody about a step. Its parameters are its section of the configuration."""

    async def run(self, report: Report) -> None:
        """Send it.

        :raises PluginError: if it cannot be sent.
        """
        raise NotImplementedError


class Context:
    """Enriches the event of an action with facts from elsewhere, for ``use_context`` actionners."""

    name: ClassVar[str]
    uses: ClassVar[tuple[str, ...]] = ()
    permissions: ClassVar[tuple[PolicyRule, ...]] = ()

    def __init__(self, clients: Clients) -> None:
        self.clients = clients

    async def fetch(self, event: Event) -> dict[str, str]:
        """Return the elements, by key (``node.hostname``).

        :raises PluginError: if they cannot be had.
        """
        raise NotImplementedError
