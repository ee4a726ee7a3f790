"""How far the work on one event is."""

from contextlib import AbstractAsyncContextManager, nullcontext


class Progress:
    """The statuses of the actions that are done, by rule and index. This one is kept in memory.

    The handler of an event says :meth:`begin` when it is its turn, :meth:`save` before each
    action that has an effect, :meth:`finished` after it, and :meth:`end` before it lets the next
    event of the target begin.
    """

    def __init__(self, statuses: dict[str, str] | None = None, *, attempt: int = 1) -> None:
        self.attempt = attempt
        """Which run this is: 1, or more if earlier ones were interrupted."""
        self._statuses = {} if statuses is None else statuses

    def status(self, rule: str, index: int) -> str | None:
        """Return how the action ended in an earlier run, if it did."""
        return self._statuses.get(f"{rule}/{index}")

    def finished(self, rule: str, index: int, status: str) -> None:
        """Note how an action ended. It is safe after the next :meth:`save` or :meth:`end`."""
        self._statuses[f"{rule}/{index}"] = status

    def alone_with(self, target: tuple[str, str]) -> AbstractAsyncContextManager[None]:
        """Keep other daemons from working on the target, for as long as the context lasts."""
        return nullcontext()

    async def begin(self) -> bool:
        """Begin with the work; false if this event must not be worked on any more."""
        return True

    async def save(self) -> None:
        """Make safe what is known of this run, that it has begun above all."""

    async def end(self) -> None:
        """The work is done: never hand this event over again."""
