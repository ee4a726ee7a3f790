"""How long and how often is tried."""

import asyncio

import pytest

from falco_talon.errors import PluginError, TransientError
from falco_talon.retry import retrying, time_limit


class Attempts:
    """Fails in turn, then succeeds; knows when it was called."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(asyncio.get_running_loop().time())
        if self.faults:
            raise self.faults.pop(0)
        return "done"

    @property
    def waits(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


async def test_transient_faults_with_growing_jittered_waits() -> None:
    """What passes is tried again, each time later; two never wait the same."""
    runs = [Attempts(*[TransientError("503")] * 3) for _ in range(2)]

    assert await asyncio.gather(*(retrying(attempts) for attempts in runs)) == ["done", "done"]

    for attempts in runs:
        first, _, last = attempts.waits
        assert 0.09 < first < last < 2
    assert abs(runs[0].waits[0] - runs[1].waits[0]) > 0.0001


@pytest.mark.parametrize("fault", [PluginError("403"), ValueError("bug")])
async def test_final_faults_at_once(fault: Exception) -> None:
    """Trying again is useless."""
    attempts = Attempts(fault)
    with pytest.raises(type(fault)):
        await retrying(attempts)
    assert len(attempts.times) == 1


async def test_the_number_of_attempts_is_bounded() -> None:
    """The last error goes to the caller."""
    attempts = Attempts(*[TransientError(f"{number}", retry_after=0) for number in range(9)])
    with pytest.raises(TransientError, match="3"):
        await retrying(attempts, attempts=4)
    assert len(attempts.times) == 4


async def test_the_wait_that_is_asked_for_is_kept() -> None:
    """``Retry-After`` is the shortest wait."""
    attempts = Attempts(TransientError("429", retry_after=0.5))
    assert await retrying(attempts) == "done"
    assert 0.5 <= attempts.waits[0] < 1


async def test_a_wait_that_is_too_long_is_not_begun() -> None:
    """Nobody is kept waiting an hour for what then fails anyway."""
    attempts = Attempts(TransientError("429", retry_after=3600))
    async with asyncio.timeout(1):
        with pytest.raises(TransientError, match="429"):
            await retrying(attempts)
    assert len(attempts.times) == 1


async def test_the_time_limit_ends_a_wait_as_well() -> None:
    """The limit of the action is that of all its attempts."""
    attempts = Attempts(TransientError("429", retry_after=5))
    with pytest.raises(PluginError, match="timed out after 0.1 s"):
        async with time_limit(0.1):
            await retrying(attempts)
    assert len(attempts.times) == 1


async def test_a_timeout_of_the_plugin_itself_is_its_own() -> None:
    """It is no end of ours."""
    with pytest.raises(TimeoutError):
        async with time_limit(5):
            raise TimeoutError
