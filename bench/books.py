"""``python -m bench.books``: what it costs an action that nothing of it is lost.

It measures, with a nats-server of its own, the write of the journal before an action and the
acknowledgement after it: one event at a time, and 32 at once, which share their writes.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping

import uvloop

from falco_talon.bus import Bus, Progress
from falco_talon.config import Config
from falco_talon.event import Event
from falco_talon.telemetry.loggers import configure

_EVENTS = 2_000


async def measure(folder: str, concurrency: int) -> tuple[float, list[float]]:
    """Return the seconds that an event cost, and how long each was kept waiting."""
    taken: list[float] = []
    done = asyncio.Event()
    slots = asyncio.Semaphore(concurrency)

    async def handle(event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        async with slots:
            begin = time.perf_counter()
            if not await progress.begin():
                return True
            await progress.save()
            progress.finished("rule", 0, "success")
            await progress.end()
            taken.append(time.perf_counter() - begin)
        if len(taken) == _EVENTS:
            done.set()
        return True

    config = Config.model_validate({"nats": {"store_dir": f"{folder}/{concurrency}"}})
    async with asyncio.TaskGroup() as tasks, Bus(config, tasks) as bus:
        for number in range(_EVENTS):
            await bus.stream.publish(Event(output=f"event {number}"), {})
        begin = time.perf_counter()
        await bus.consume(handle)
        await done.wait()
        seconds = time.perf_counter() - begin
        await bus.stop(1)
    return seconds / _EVENTS, taken


def main() -> None:
    """Measure on this machine."""
    configure("text", "warning", sys.stderr)
    for concurrency in (1, 32):
        with (
            tempfile.TemporaryDirectory(prefix="talon-bench-") as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            each, taken = runner.run(measure(folder, concurrency))
        waits = sorted(seconds * 1000 for seconds in taken)
        p50, p99 = statistics.median(waits), waits[int(len(waits) * 0.99) - 1]
        what = f"journal and acknowledgement, {concurrency} event(s) at a time"
        print(f"{what:<58} {each * 1000:.2f} ms an action   p50 {p50:.2f} ms   p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
