"""How long and how often a plugin may try."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import stamina
import structlog

from falco_talon.errors import PluginError, TransientError

log = structlog.get_logger()

_T = TypeVar("_T")

# It would log each wait as a warning that names neither rule nor action, and count it elsewhere.
stamina.instrumentation.set_on_retry_hooks(())


async def retrying(
    function: Callable[..., Awaitable[_T]],
    *args: object,
    attempts: int = 4,
    within_seconds: float = 20.0,
) -> _T:
    """Await ``function(*args)``, again after each ``TransientError``, with jittered backoff.

    The wait that the other side asked for is kept. After the last attempt, or when that wait would
    end later than *within_seconds* after the first, the error goes to the caller.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_seconds

    def worth_it(error: Exception) -> bool | float:
        if not isinstance(error, TransientError):
            return False
        wait = error.retry_after
        again = clock() + (wait or 0) <= deadline
        log.debug("retry", error=str(error), result="tried again" if again else "given up")
        return again if wait is None or not again else wait

    async for attempt in stamina.retry_context(
        on=worth_it, attempts=attempts, timeout=within_seconds, wait_initial=0.1, wait_jitter=0.2
    ):
        with attempt:
            return await function(*args)
    raise AssertionError("stamina ends with a result or an error")


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Cancel the body after *seconds*.

    :raises PluginError: if that was needed.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():  # the plugin's own
            raise
        raise PluginError(f"timed out after {seconds:g} s") from None
