"""What must be right in a merged rule, whatever plugins there are."""

import re
from collections.abc import Iterable

from falco_talon.rules.blocks import nearest
from falco_talon.rules.criteria import (
    PRIORITIES,
    CriterionError,
    parse_priority,
    parse_tags,
    parse_terms,
)
from falco_talon.rules.keys import FLAGS
from falco_talon.rules.model import MAX_TIMEOUT_SECONDS, Action, Fault, Place, Rule, seconds
from falco_talon.rules.nodes import Node, Scalar

FULL_NAME = re.compile(r"[a-z0-9]+:[a-z0-9]+")
"""``category:name`` of an actionner or output."""


class Validator:
    """Judges merged rules. *blocks* are the names of the action blocks that actions may refer to.

    ``complete`` is false if a file could not be read: then what is missing may well be there.
    """

    def __init__(self, blocks: Iterable[str], faults: list[Fault], *, complete: bool) -> None:
        self._blocks = tuple(blocks)
        self._faults = faults
        self._complete = complete

    def check(self, rule: Rule) -> None:
        """Note every fault of the rule."""
        self._flag(rule, "continue", rule.continue_)
        self._flag(rule, "dry_run", rule.dry_run)
        if not rule.actions:
            self._note(rule, "no action specified", rule.name)
        for action in rule.actions:
            self._check_action(rule, action)
        self._check_match(rule)

    def _check_action(self, rule: Rule, action: Action) -> None:
        if not action.name:
            self._note(rule, "action without a name", action.place or rule.name, action)
        if not action.actionner:
            if self._complete:
                self._missing_actionner(rule, action)
        elif not FULL_NAME.fullmatch(action.actionner):
            self._note(
                rule,
                "incorrect actionner",
                action.actionner,
                action,
                allowed=("category:name, in lower-case letters and digits",),
            )
        self._flag(rule, "continue", action.continue_, action)
        self._flag(rule, "ignore_errors", action.ignore_errors, action)
        self._check_timeout(rule, action)
        output = action.output
        if output.target and not output.parameters:
            self._note(rule, "missing 'parameters' for the output", output.target, action)
        if output.parameters and not output.target:
            where = next(iter(output.parameters))
            text = "the output has no 'target' and is ignored"
            self._note(rule, text, where, action, severity="warning")

    def _check_timeout(self, rule: Rule, action: Action) -> None:
        if action.timeout and seconds(action.timeout) is None:
            self._note(
                rule,
                f"'timeout' must be a duration above 0, of {MAX_TIMEOUT_SECONDS} seconds at most",
                action.timeout,
                action,
                key="timeout",
                value=action.timeout,
                allowed=("seconds, or 90s, 5m, 1h",),
            )

    def _missing_actionner(self, rule: Rule, action: Action) -> None:
        self._note(
            rule,
            "missing actionner",
            action.name if action.name else action.place or rule.name,
            action,
            allowed=("an 'actionner', or the name of an action block",),
            nearest=nearest(action.name, self._blocks),
        )

    def _check_match(self, rule: Rule) -> None:
        match = rule.match
        if match.empty:
            text = "the rule has no match criterion: it matches every event"
            self._note(rule, text, rule.name, severity="warning")
        if match.priority:
            self._check_priority(rule, match.priority)
        for item in match.tags:
            try:
                parse_tags(item)
            except CriterionError as error:
                text = f"incorrect tag '{error.part}'"
                self._note(rule, text, item, key="tags", allowed=(str(error),))
        for item in match.output_fields:
            self._check_output_field(rule, item)

    def _check_priority(self, rule: Rule, priority: Scalar) -> None:
        try:
            parse_priority(priority)
        except CriterionError:
            self._note(
                rule,
                f"incorrect priority '{priority}'",
                priority,
                key="priority",
                allowed=("[<|>][=]" + "|".join(name.capitalize() for name in PRIORITIES),),
                nearest=nearest(priority.lstrip("<>= "), PRIORITIES).capitalize(),
            )

    def _check_output_field(self, rule: Rule, item: Scalar) -> None:
        try:
            terms = parse_terms(item)
        except CriterionError as error:
            text = f"incorrect output field key '{error.part}'"
            self._note(rule, text, item, key="output_fields", allowed=(str(error),))
            return
        for term in terms:
            text = ""
            if not term.quoted and term.value != term.value.strip():
                text = f"the value of '{term.key}' starts or ends with a space"
            elif not term.quoted and term.value.startswith("="):
                text = f"the value of '{term.key}' starts with '=': one '=' compares"
            if text:
                allowed = ("a value in quotes, if that is meant",)
                self._note(
                    rule, text, item, key="output_fields", severity="warning", allowed=allowed
                )

    def _flag(self, rule: Rule, key: str, text: Scalar, action: Action | None = None) -> None:
        if text and text not in FLAGS:
            self._note(
                rule,
                f"'{key}' setting can be 'true' or 'false' only",
                text,
                action,
                key=key,
                value=text,
                allowed=FLAGS,
                nearest=nearest(text, FLAGS),
            )

    def _note(
        self,
        rule: Rule,
        error: str,
        where: Node | Place,
        action: Action | None = None,
        **more: object,
    ) -> None:
        place = where if isinstance(where, Place) else Place.of(where) or rule.place
        if action is not None:
            more |= {"action": action.name, "actionner": action.actionner}
            if action.output.target:
                more["output_target"] = action.output.target
        self._faults.append(Fault(error, place=place, rule=rule.name, **more))  # type: ignore[arg-type] # fields of Fault
