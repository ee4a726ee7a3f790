"""Nodes → action blocks and rule blocks: which keys there are, and of what type."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct, field

from falco_talon.rules import keys
from falco_talon.rules.model import Action, Fault, Match, OutputRef, Place, Rule
from falco_talon.rules.nodes import NOTHING, ListNode, MapNode, Node, Scalar, is_null, kind_of


class Blocks(Struct):
    """The blocks of the files, in order, and what is wrong with them."""

    actions: list[Action] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the one of *words* that was probably meant, if there is one."""
    import difflib

    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else ""


def read_blocks(root: Node, blocks: Blocks) -> None:
    """Add the blocks of a document to *blocks*, and a fault for all that cannot be one."""
    if is_null(root):
        return
    if not isinstance(root, ListNode):
        text = f"the rules must be a list of blocks, found {kind_of(root)}"
        blocks.faults.append(_wrong_type(root, text))
        return
    for item in root:
        if isinstance(item, MapNode):
            _read_block(item, blocks)
        else:
            text = f"a block must be a map with 'rule' or 'action', found {kind_of(item)}"
            blocks.faults.append(_wrong_type(item, text))


def _read_block(item: MapNode, blocks: Blocks) -> None:
    is_rule, is_action = "rule" in item, "action" in item
    if not (is_rule or is_action):
        _neither(item, blocks.faults)
        return
    allowed = (*(keys.RULE if is_rule else ()), *(keys.ACTION if is_action else ()))
    kind = "a rule" if is_rule else "an action"
    if is_action:
        reader = _Reader(item, blocks.faults, action=_text_of(item.find("action")))
        action = _read_action(reader)
        if action.name:
            blocks.actions.append(action)
        else:
            reader.fault("action without a name", item)
    if is_rule:
        name = _text_of(item.find("rule"))
        reader = _Reader(item, blocks.faults, rule=name)
        rule = _read_rule(reader)
        if rule.name:
            blocks.rules.append(rule)
        else:
            reader.fault("all rules must have a name", item)
    reader = _Reader(item, blocks.faults, rule=_text_of(item.find("rule")))
    reader.known_keys(kind, allowed, aliases=(keys.CONTEXTS_ALIAS,) if is_action else ())


def _neither(item: MapNode, faults: list[Fault]) -> None:
    """Judge a block that is no rule and no action: a mistake, or a holder of anchors."""
    if item and all(key.startswith(keys.EXTENSION) for key in item):
        return
    known = (*keys.RULE, *keys.ACTION)
    meant = {key: nearest(key, ("rule", "action")) for key in item}
    key = next((key for key in item if meant[key]), None)
    suspect = key is not None or any(nearest(key, known) for key in item)
    faults.append(
        Fault(
            "the block is neither a rule nor an action, and does nothing",
            "error" if suspect or not item else "warning",
            Place.of(key if key is not None else item),
            key=key or "",
            allowed=("rule", "action", f"{keys.EXTENSION}… to hold anchors"),
            nearest=meant[key] if key is not None else "",
        )
    )


def _read_rule(reader: "_Reader") -> Rule:
    actions = []
    for item in reader.items("actions"):
        if not isinstance(item, MapNode):
            text = f"an action must be a map, found {kind_of(item)}"
            reader.fault(text, item, syntax=True)
            continue
        name = _text_of(item.find("action"))
        inner = _Reader(item, reader.faults, rule=reader.rule, action=name)
        inner.known_keys("an action", keys.ACTION, aliases=(keys.CONTEXTS_ALIAS,))
        actions.append(_read_action(inner))
    match = reader.inner("match")
    match.known_keys("a match", keys.MATCH)
    return Rule(
        name=reader.text("rule"),
        description=reader.text("description"),
        continue_=reader.text("continue"),
        dry_run=reader.text("dry_run"),
        match=Match(
            rules=match.texts("rules"),
            output_fields=match.texts("output_fields"),
            tags=match.texts("tags"),
            priority=match.text("priority"),
            source=match.text("source"),
        ),
        actions=tuple(actions),
        notifiers=reader.texts("notifiers"),
        place=Place.of(reader.node),
    )


def _read_action(reader: "_Reader") -> Action:
    output = reader.inner("output")
    output.known_keys("an output", keys.OUTPUT)
    return Action(
        name=reader.text("action"),
        description=reader.text("description"),
        actionner=reader.text("actionner"),
        parameters=reader.map("parameters"),
        continue_=reader.text("continue"),
        ignore_errors=reader.text("ignore_errors"),
        timeout=reader.text("timeout"),
        contexts=(*reader.texts("additional_contexts"), *reader.texts(keys.CONTEXTS_ALIAS)),
        output=OutputRef(output.text("target"), output.map("parameters")),
        place=Place.of(reader.node),
    )


class _Reader:
    """Takes the values of a map out by key and type, and notes the faults."""

    def __init__(
        self, node: MapNode, faults: list[Fault], *, rule: str = "", action: str = ""
    ) -> None:
        self.node = node
        self.faults = faults
        self.rule = rule
        self.action = action

    def text(self, key: str) -> Scalar:
        """Return the literal text of a scalar, empty for null."""
        node = self.node.find(key)
        if node is None:
            return NOTHING
        if not isinstance(node, Scalar):
            self._wrong(key, "a text", node)
            return NOTHING
        return Scalar("", node.file, node.line, node.column) if node.null else node

    def texts(self, key: str) -> tuple[Scalar, ...]:
        """Return the literal texts of a list of scalars."""
        found = []
        for item in self.items(key):
            if not isinstance(item, Scalar) or item.null:
                self._wrong(key, "a list of texts", item, "an item that is ")
            else:
                found.append(item)
        return tuple(found)

    def items(self, key: str) -> list[Node]:
        """Return the items of a list."""
        node = self.node.find(key)
        if node is None or is_null(node):
            return []
        if not isinstance(node, ListNode):
            self._wrong(key, "a list", node)
            return []
        return node

    def map(self, key: str) -> MapNode:
        """Return a map; an empty one if there is none."""
        node = self.node.find(key)
        if isinstance(node, MapNode):
            return node
        if node is not None and not is_null(node):
            self._wrong(key, "a map", node)
        return MapNode()

    def inner(self, key: str) -> "_Reader":
        """Return a reader of the map under the key."""
        return _Reader(self.map(key), self.faults, rule=self.rule, action=self.action)

    def known_keys(self, where: str, allowed: Iterable[str], aliases: tuple[str, ...] = ()) -> None:
        """Note a fault for every key that is not allowed here."""
        known = tuple(dict.fromkeys(allowed))
        for key in self.node:
            if key in aliases:
                text = f"the key '{key}' is read as 'additional_contexts'"
                self.fault(text, key, severity="warning", key=key, nearest="additional_contexts")
            elif key not in known:
                self.fault(
                    f"unknown key '{key}' in {where}",
                    key,
                    key=key,
                    allowed=known,
                    nearest=nearest(key, known),
                )

    def fault(self, error: str, node: Node, *, syntax: bool = False, **more: object) -> None:
        """Note a fault of this block."""
        if syntax:
            error = _syntax(node, error)
        fault = Fault(error, place=Place.of(node), rule=self.rule, action=self.action)
        self.faults.append(msgspec.structs.replace(fault, **more))

    def _wrong(self, key: str, wanted: str, node: Node, item: str = "") -> None:
        text = f"'{key}' must be {wanted}, found {item}{kind_of(node)}"
        self.fault(text, node, syntax=True, key=key)


def _syntax(node: Node, text: str) -> str:
    return f"wrong syntax for the rule file '{node.file}': {text}"


def _wrong_type(node: Node, text: str) -> Fault:
    return Fault(_syntax(node, text), place=Place.of(node))


def _text_of(node: Node | None) -> str:
    return str(node) if isinstance(node, Scalar) and not node.null else ""
