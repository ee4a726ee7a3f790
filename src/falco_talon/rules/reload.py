"""New rules in the place of the old ones: all of them, or, if anything is wrong, none."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import structlog

from falco_talon.catalog import Catalog
from falco_talon.clients import Clients
from falco_talon.errors import TalonError
from falco_talon.rules.binding import BoundRules, bind
from falco_talon.rules.load import read
from falco_talon.rules.model import Fault, Place, RulesError

log = structlog.get_logger()

_STAYS = "the rules that were loaded before stay in use"


class Reloader:
    """Loads the rule files anew.

    *swap* gets the new rules once the clients that they use are open; it raises a ``TalonError``
    if they cannot be used after all. *count* is told the outcome, for the metric.
    """

    def __init__(
        self,
        files: Sequence[Path],
        catalog: Catalog,
        clients: Clients,
        swap: Callable[[BoundRules], Awaitable[None]],
        count: Callable[[Literal["success", "failure"]], None],
    ) -> None:
        self._files = tuple(files)
        self._catalog = catalog
        self._clients = clients
        self._swap = swap
        self._count = count
        self.fault = ""
        """Why the files are not what is in use; empty if they are."""

    async def reload(self) -> None:
        """Load, bind, open what is new, swap. What goes wrong is logged, and changes nothing."""
        log.info("rules", result="changes detected")
        try:
            # Thousands of rules take a second: events go on meanwhile.
            rules = await asyncio.to_thread(self._bound)
            await self._clients.ready(rules.uses)
            await self._swap(rules)
        except RulesError as error:
            self._failed(error.faults)
        except TalonError as error:
            self._failed((Fault(str(error)),))
        else:
            log_faults(rules.warnings)
            log.info("rules", result=f"{len(rules)} rules have been successfully loaded")
            self.fault = ""
            self._count("success")

    def _bound(self) -> BoundRules:
        empty = tuple(_empty_files(self._files))
        if empty:
            raise RulesError(empty)
        return bind(read(self._files), self._catalog, self._clients)

    def _failed(self, faults: Sequence[Fault]) -> None:
        errors = [fault for fault in faults if fault.severity == "error"]
        log_faults(faults)
        log.error("rules", error="invalid rules", result=_STAYS)
        self.fault = f"{errors[0]} (and {len(errors) - 1} more); {_STAYS}"
        if len(errors) == 1:
            self.fault = f"{errors[0]}; {_STAYS}"
        self._count("failure")


def log_faults(faults: Sequence[Fault]) -> None:
    """Log each finding, with the fields of the reference."""
    for fault in faults:
        write = log.error if fault.severity == "error" else log.warning
        write("rules", **fault.fields())


def _empty_files(files: Sequence[Path]) -> list[Fault]:
    """Return a fault for each file of no content: somebody is about to write it."""
    faults = []
    for file in files:
        try:
            empty = file.stat().st_size == 0
        except OSError:
            continue  # read() says it better
        if empty:
            faults.append(Fault("the rule file is empty", place=Place(str(file))))
    return faults
