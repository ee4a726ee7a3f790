"""``talon server``: the daemon."""

import asyncio
import signal
import sys

import structlog
import uvloop

from falco_talon.app import run
from falco_talon.config import Config
from falco_talon.errors import TalonError
from falco_talon.rules.model import RulesError
from falco_talon.rules.reload import log_faults
from falco_talon.telemetry.loggers import configure

log = structlog.get_logger()


def serve(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.

    What keeps it from starting stands in the log, in its format; the exit code is 1 then.
    """
    configure(config.log_format, config.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(config))
    except* TalonError as group:
        error = _first(group)
        if isinstance(error, RulesError):
            log_faults(error.faults)
            log.critical("rules", error="invalid rules")
        else:
            log.critical("init", error=str(error))
        sys.exit(1)


async def _until_signalled(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("http", result=f"{number.name} again: not waiting any longer")
            loop.remove_signal_handler(number)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await run(config, stop)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
