"""Rule files → merged, validated rules."""

from collections.abc import Sequence
from pathlib import Path

from falco_talon.rules.blocks import Blocks, read_blocks
from falco_talon.rules.merge import apply_actions, merge_actions, merge_rules
from falco_talon.rules.model import Fault, Place, RulesError, RuleSet
from falco_talon.rules.parse import WrongSyntaxError, parse
from falco_talon.rules.validate import Validator


def load(files: Sequence[Path]) -> RuleSet:
    """Read, merge and validate the rules of the files, in that order.

    :raises RulesError: with every fault of every file.
    """
    rule_set = read(files)
    if not rule_set.valid:
        raise RulesError(rule_set.faults)
    return rule_set


def read(files: Sequence[Path]) -> RuleSet:
    """Do as :func:`load`, but return the faults with what could be read, whatever they are."""
    blocks = Blocks()
    if not files:
        blocks.faults.append(Fault("no rule file is provided"))
    # Before the comprehension could stop at the first: every file shall be read.
    readable = [_read_file(file, blocks) for file in files]
    actions = merge_actions(blocks.actions, blocks.faults)
    rules = [apply_actions(rule, actions, blocks.faults) for rule in merge_rules(blocks.rules)]
    validator = Validator(actions, blocks.faults, complete=all(readable))
    for rule in rules:
        validator.check(rule)
    return RuleSet(tuple(rules), tuple(blocks.faults))


def _read_file(file: Path, blocks: Blocks) -> bool:
    """Add the blocks of the file; tell whether it could be read."""
    name = str(file)
    try:
        documents = parse(file.read_bytes(), name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        blocks.faults.append(Fault(f"open {name}: {reason}", place=Place(name)))
        return False
    except WrongSyntaxError as error:
        line = f"line {error.line}: " if error.line else ""
        text = f"wrong syntax for the rule file '{name}': {line}{error}"
        blocks.faults.append(Fault(text, place=Place(name, error.line, error.column)))
        return False
    for root in documents:
        read_blocks(root, blocks)
    return True
