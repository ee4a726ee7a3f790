"""Blocks of the same name become one; action blocks are applied to the actions of that name."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from falco_talon.rules.model import Action, Fault, Match, OutputRef, Place, Rule
from falco_talon.rules.nodes import ListNode, MapNode, Node, Scalar, is_null, kind_of


def merge_actions(blocks: Iterable[Action], faults: list[Fault]) -> dict[str, Action]:
    """Merge the action blocks: the first of a name, then the later ones on top, in order."""
    merged: dict[str, Action] = {}
    for block in blocks:
        first = merged.get(block.name)
        merged[block.name] = _override(first, block, faults) if first else block
    return merged


def merge_rules(blocks: Iterable[Rule]) -> list[Rule]:
    """Merge the rule blocks; a rule stays where its first block stands."""
    merged: dict[str, Rule] = {}
    for block in blocks:
        first = merged.get(block.name)
        merged[block.name] = _extend(first, block) if first else block
    return list(merged.values())


def apply_actions(rule: Rule, blocks: Mapping[str, Action], faults: list[Fault]) -> Rule:
    """Complete the actions of a rule with the action blocks of their names."""
    if not any(action.name in blocks for action in rule.actions):
        return rule
    actions = tuple(
        _complete(action, blocks[action.name], rule.name, faults)
        if action.name in blocks
        else action
        for action in rule.actions
    )
    return replace(rule, actions=actions)


def _override(first: Action, later: Action, faults: list[Fault]) -> Action:
    """Return the block *first* with what the block *later* sets."""
    note = _Mismatch(faults, action=later.name)
    old = first.output
    if later.output.target and old.target and later.output.target != old.target:
        old = OutputRef()  # parameters of another target: they mean nothing to the new one
    return replace(
        first,
        description=later.description or first.description,
        actionner=later.actionner or first.actionner,
        continue_=later.continue_ or first.continue_,
        ignore_errors=later.ignore_errors or first.ignore_errors,
        timeout=later.timeout or first.timeout,
        contexts=first.contexts + later.contexts,
        parameters=_merge_parameters(first.parameters, later.parameters, note),
        output=_merge_output(old, later.output, note),
    )


def _complete(own: Action, block: Action, rule: str, faults: list[Fault]) -> Action:
    """Return the rule's action, with the block's values for what it does not set itself."""
    note = _Mismatch(faults, rule=rule, action=own.name)
    return replace(
        own,
        description=own.description or block.description,
        actionner=own.actionner or block.actionner,
        continue_=own.continue_ or block.continue_,
        ignore_errors=own.ignore_errors or block.ignore_errors,
        timeout=own.timeout or block.timeout,
        contexts=own.contexts or block.contexts,
        parameters=_merge_parameters(block.parameters, own.parameters, note),
        output=_merge_output(block.output, own.output, note),
    )


def _extend(first: Rule, later: Rule) -> Rule:
    match = Match(
        rules=first.match.rules + later.match.rules,
        output_fields=first.match.output_fields + later.match.output_fields,
        tags=first.match.tags + later.match.tags,
        priority=later.match.priority or first.match.priority,
        source=later.match.source or first.match.source,
    )
    return replace(
        first,
        description=later.description or first.description,
        continue_=later.continue_ or first.continue_,
        dry_run=later.dry_run or first.dry_run,
        match=match,
        actions=first.actions + later.actions,
        notifiers=first.notifiers + later.notifiers,
    )


class _Mismatch:
    """Notes that a parameter is a list here and a map there."""

    def __init__(self, faults: list[Fault], *, rule: str = "", action: str = "") -> None:
        self._faults = faults
        self._rule = rule
        self._action = action
        self.output_target = ""

    def __call__(self, key: Scalar, earlier: Node, later: Node) -> None:
        where = Place.of(earlier)
        self._faults.append(
            Fault(
                "mismatch of type for a parameter",
                place=Place.of(later),
                rule=self._rule,
                action=self._action,
                output_target=self.output_target,
                key=key,
                value=kind_of(later),
                allowed=(f"{kind_of(earlier)}, as at {where}" if where else kind_of(earlier),),
            )
        )


def _merge_output(earlier: OutputRef, later: OutputRef, note: _Mismatch) -> OutputRef:
    target = later.target or earlier.target
    note.output_target = target
    return OutputRef(target, _merge_parameters(earlier.parameters, later.parameters, note))


def _merge_parameters(earlier: MapNode, later: MapNode, note: _Mismatch) -> MapNode:
    """Return a new map: later scalars replace, lists are appended, maps are merged by sub-key."""
    if not later:
        return earlier
    if not earlier:
        return later
    merged = _copy(earlier)
    for key, value in later.items():
        before = merged.get(key)
        if before is None or is_null(before):
            merged[key] = value
        elif not is_null(value):
            merged[key] = _merge_values(key, before, value, note)
    return merged


def _merge_values(key: Scalar, earlier: Node, later: Node, note: _Mismatch) -> Node:
    if isinstance(earlier, Scalar) and isinstance(later, Scalar):
        return later
    if isinstance(earlier, ListNode) and isinstance(later, ListNode):
        both = ListNode(later.file, later.line, later.column)
        both.extend((*earlier, *later))
        return both
    if isinstance(earlier, MapNode) and isinstance(later, MapNode):
        merged = _copy(earlier)
        for name, value in later.items():
            merged.pop(name, None)  # its key shall stand where its value does
            merged[name] = value
        return merged
    note(key, earlier, later)
    return later


def _copy(source: MapNode) -> MapNode:
    copied = MapNode(source.file, source.line, source.column)
    copied.update(source)
    return copied
