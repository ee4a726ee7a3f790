"""Rules → bound rules: each action with its actionner made, its output, its contexts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.errors import PluginError, TalonError
from falco_talon.event import Event
from falco_talon.plugin import Actionner, Context, Output, Plugin
from falco_talon.rules.blocks import nearest
from falco_talon.rules.match import Matcher
from falco_talon.rules.model import Action, Fault, Place, Rule, RulesError, RuleSet, flag, seconds
from falco_talon.rules.nodes import MapNode, Scalar, value_of
from falco_talon.rules.parameters import decode
from falco_talon.rules.validate import FULL_NAME

_P = TypeVar("_P", bound=Plugin)

_SURE = 0.8
"""Names of plugins have much in common: ``kubernetes:exec`` does not mean ``kubernetes:label``."""


class BoundAction(Struct, frozen=True):
    """An action, ready to run.

    ``timeout_seconds`` is None if the rules say nothing of it; ``parameters`` are the merged ones
    as plain values; ``flags`` the texts of ``continue`` and ``ignore_errors`` where the rules give
    them.
    """

    name: str
    description: str
    actionner: Actionner
    continue_: bool
    ignore_errors: bool = False
    timeout_seconds: float | None = None
    contexts: tuple[Context, ...] = ()
    output: Output | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)


class BoundRule(Struct, frozen=True):
    """A rule, ready to run. ``notifiers`` are its own, in lower case; ``flags`` as in an action."""

    name: str
    description: str
    actions: tuple[BoundAction, ...]
    continue_: bool = True
    dry_run: bool = False
    notifiers: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)


class BoundRules:
    """All rules, ready to run: an immutable snapshot that is swapped as a whole."""

    def __init__(
        self, rules: Sequence[BoundRule], matcher: Matcher, warnings: Sequence[Fault] = ()
    ) -> None:
        self.rules = tuple(rules)
        self.warnings = tuple(warnings)
        self.uses = frozenset(_uses(self.rules))
        """Names of the clients that the plugins need."""
        self._matcher = matcher

    def __len__(self) -> int:
        return len(self.rules)

    def matching(self, event: Event) -> list[BoundRule]:
        """Return the rules that the event matches, in order; ``continue_`` is the caller's."""
        return [self.rules[index] for index in self._matcher.matching(event)]

    def can_match(self, event: Event) -> bool:
        """Tell whether any rule matches the event."""
        return self._matcher.any(event)


def bind(
    rule_set: RuleSet, catalog: Catalog, clients: Clients, *, strict: bool = False
) -> BoundRules:
    """Make the plugins that the rules name, with their parameters validated.

    *clients* need not be open: nothing is run. With *strict*, a warning is an error.

    :raises RulesError: with every fault, those that *rule_set* brings along first.
    """
    binder = _Binder(catalog, clients)
    rules = [binder.rule(rule) for rule in rule_set.rules]
    faults = _once((*rule_set.faults, *binder.faults))
    if strict:
        faults = tuple(fault.as_error() for fault in faults)
    if any(fault.severity == "error" for fault in faults):
        raise RulesError(faults)
    return BoundRules(rules, Matcher(rule_set.rules), faults)


def _once(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Leave out what was said before: many rules may use one faulty action block."""
    said: dict[tuple[object, ...], Fault] = {}
    for fault in faults:
        place = fault.place or (fault.rule, fault.action)
        said.setdefault((fault.severity, fault.error, place, fault.key, fault.output_target), fault)
    return tuple(said.values())


def _uses(rules: Iterable[BoundRule]) -> Iterable[str]:
    for rule in rules:
        for action in rule.actions:
            yield from action.actionner.uses
            if action.output is not None:
                yield from action.output.uses
            for context in action.contexts:
                yield from context.uses


def _flags(**texts: str) -> dict[str, str]:
    return {key.rstrip("_"): str(text) for key, text in texts.items() if text}


class _Binder:
    def __init__(self, catalog: Catalog, clients: Clients) -> None:
        self.faults: list[Fault] = []
        self._catalog = catalog
        self._clients = clients
        self._contexts: dict[str, Context] = {}
        self._notifiers = {name.lower() for name in catalog.notifiers}

    def rule(self, rule: Rule) -> BoundRule:
        """Bind the rule as far as it goes, and note what is wrong."""
        bound = (self._action(rule, action) for action in rule.actions)
        return BoundRule(
            name=str(rule.name),
            description=str(rule.description),
            actions=tuple(action for action in bound if action is not None),
            continue_=flag(rule.continue_) is not False,
            dry_run=flag(rule.dry_run) is True,
            notifiers=tuple(dict.fromkeys(self._notifier_names(rule))),
            flags=_flags(continue_=rule.continue_, dry_run=rule.dry_run),
        )

    def _notifier_names(self, rule: Rule) -> Iterable[str]:
        for name in rule.notifiers:
            if name.lower() in self._notifiers:
                yield name.lower()
            else:
                fault = self._unknown("notifier", name, self._catalog.notifiers)
                self.faults.append(replace(fault, rule=rule.name))

    def _action(self, rule: Rule, action: Action) -> BoundAction | None:
        if not FULL_NAME.fullmatch(action.actionner):
            return None  # the validator has said so
        note = _Note(self.faults, rule, action)
        kind = self._catalog.actionners.get(action.actionner)
        if kind is None:
            note(self._unknown("actionner", action.actionner, self._catalog.actionners))
            return None
        _check_source(rule, kind, note)
        where = action.place or Place.of(action.actionner)
        actionner = self._make(kind, action.parameters, where, note)
        output = self._output(kind, action, note)
        contexts = tuple(self._bound_contexts(kind, action, note))
        if actionner is None:
            return None
        own = flag(action.continue_)
        return BoundAction(
            name=str(action.name),
            description=str(action.description),
            actionner=actionner,
            continue_=kind.continue_ if own is None else own,
            ignore_errors=flag(action.ignore_errors) is True,
            timeout_seconds=seconds(action.timeout),
            contexts=contexts,
            output=output,
            parameters=value_of(action.parameters),
            flags=_flags(continue_=action.continue_, ignore_errors=action.ignore_errors),
        )

    def _output(self, actionner: type[Actionner], action: Action, note: "_Note") -> Output | None:
        target = action.output.target
        if not target:
            if actionner.artifact == "always":
                note(Fault("an output is required", place=Place.of(action.actionner)))
            return None
        if actionner.artifact == "never":
            text = f"'{actionner.name}' brings nothing back: the output is never used"
            note(Fault(text, "warning", Place.of(target)))
        kind = self._catalog.outputs.get(target)
        if kind is None:
            note(self._unknown("target", target, self._catalog.outputs))
            return None
        note = _Note(self.faults, note.rule, action, output_target=target)
        return self._make(kind, action.output.parameters, Place.of(target), note)

    def _bound_contexts(
        self, actionner: type[Actionner], action: Action, note: "_Note"
    ) -> Iterable[Context]:
        for name in action.contexts:
            kind = self._catalog.contexts.get(name)
            if kind is None:
                note(self._unknown("context", name, self._catalog.contexts))
                continue
            if not actionner.use_context:
                text = f"'{actionner.name}' uses no contexts: '{name}' is never fetched"
                note(Fault(text, "warning", Place.of(name)))
                continue
            if name not in self._contexts:
                self._contexts[name] = kind(self._clients)
            yield self._contexts[name]

    def _make(
        self, kind: type[_P], given: MapNode, where: Place | None, note: "_Note"
    ) -> _P | None:
        """Make the plugin, with its parameters; None if they are wrong."""
        parameters, faults = decode(kind.Parameters, given)
        for fault in faults:
            note(fault if fault.place else replace(fault, place=where))
        if parameters is None:
            return None
        try:
            return kind(parameters, self._clients)
        except (PluginError, TalonError, ValueError) as error:
            note(Fault(str(error), place=where))
            return None

    def _unknown(self, what: str, name: Scalar, known: Iterable[str]) -> Fault:
        names = tuple(known)
        return Fault(
            f"unknown {what}",
            place=Place.of(name),
            value=name,
            allowed=names or ("none",),
            nearest=nearest(name, names, cutoff=_SURE),
        )


class _Note:
    """Adds faults of an action, with its names."""

    def __init__(
        self, faults: list[Fault], rule: Rule, action: Action, output_target: str = ""
    ) -> None:
        self._faults = faults
        self.rule = rule
        self._action = action
        self._output_target = output_target

    def __call__(self, fault: Fault) -> None:
        self._faults.append(
            replace(
                fault,
                rule=self.rule.name,
                action=self._action.name,
                actionner=self._action.actionner,
                output_target=self._output_target,
            )
        )


def _check_source(rule: Rule, actionner: type[Actionner], note: _Note) -> None:
    """Warn of an actionner that is not made for the events of the rule's source."""
    source = rule.match.source
    made_for = actionner.source
    # Falco says 'syscall', Falcosidekick and the actionners 'syscalls'.
    if not source or "any" in made_for or source.rstrip("s") in {s.rstrip("s") for s in made_for}:
        return
    text = f"'{actionner.name}' is not made for events of the source '{source}'"
    note(Fault(text, "warning", Place.of(source), allowed=made_for))
