"""How long and how often a plugin may try."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import stamina

from falco_talon.errors import PluginError, TransientError

_T = TypeVar("_T")


async def retrying(
    function: Callable[..., Awaitable[_T]],
    *args: object,
    attempts: int = 4,
    within_seconds: float = 20.0,
) -> _T:
    """Await ``function(*args)``, again after each ``TransientError``, with jittered backoff.

    The wait that the other side asked for is kept. After the last attempt, or when the next one
    would begin later than *within_seconds* after the first, the error goes to the caller.
    """
    async for attempt in stamina.retry_context(
        on=_worth_it, attempts=attempts, timeout=within_seconds, wait_initial=0.1, wait_jitter=0.2
    ):
        with attempt:
            return await function(*args)
    raise AssertionError("stamina ends with a result or an error")


def _worth_it(error: Exception) -> bool | float:
    if not isinstance(error, TransientError):
        return False
    return True if error.retry_after is None else error.retry_after


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
