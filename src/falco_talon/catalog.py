"""Every plugin by its full name: those built in, then those of installed packages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Self, TypeVar

from falco_talon.actionners import ACTIONNERS
from falco_talon.contexts import CONTEXTS
from falco_talon.errors import TalonError
from falco_talon.notifiers import NOTIFIERS
from falco_talon.outputs import OUTPUTS
from falco_talon.plugin import Actionner, Context, Notifier, Output

_T = TypeVar("_T", Actionner, Output, Notifier, Context)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The plugins that rules and configuration may name, in the order they are listed."""

    actionners: Mapping[str, type[Actionner]]
    outputs: Mapping[str, type[Output]]
    notifiers: Mapping[str, type[Notifier]]
    contexts: Mapping[str, type[Context]]

    @classmethod
    def load(cls) -> Self:
        """Gather the built-in plugins and those of the ``falco_talon.*`` entry points.

        :raises TalonError: if an installed plugin cannot be loaded, is no plugin, or takes a
            name that is taken.
        """
        found = entry_points()  # once: it reads a file of every installed package
        return cls(
            actionners=_gather(Actionner, ACTIONNERS, found.select(group="falco_talon.actionners")),
            outputs=_gather(Output, OUTPUTS, found.select(group="falco_talon.outputs")),
            notifiers=_gather(Notifier, NOTIFIERS, found.select(group="falco_talon.notifiers")),
            contexts=_gather(Context, CONTEXTS, found.select(group="falco_talon.contexts")),
        )


def _gather(
    kind: type[_T], built_in: Iterable[type[_T]], found: EntryPoints
) -> dict[str, type[_T]]:
    plugins = {plugin.name: plugin for plugin in built_in}
    for entry_point in found:
        plugin = _load(kind, entry_point)
        if plugin.name in plugins:
            raise TalonError(
                f"plugin {entry_point.value} ({entry_point.group}): "
                f"the name '{plugin.name}' is taken by {plugins[plugin.name].__module__}"
            )
        plugins[plugin.name] = plugin
    return plugins


def _load(kind: type[_T], entry_point: EntryPoint) -> type[_T]:
    where = f"plugin {entry_point.value} ({entry_point.group})"
    try:
        plugin = entry_point.load()
    except Exception as error:
        raise TalonError(f"{where} cannot be loaded: {error!r}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, kind)):
        raise TalonError(f"{where} is no {kind.__name__}")
    return plugin
