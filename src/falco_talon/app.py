"""The composition root: make the parts, join them, run until stopped."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

import structlog

from falco_talon.bus import Bus
from falco_talon.catalog import Catalog
from falco_talon.clients import Clients, open_clients
from falco_talon.config import Config
from falco_talon.engine import Engine
from falco_talon.notifications import Notifications, bind_notifiers
from falco_talon.plugin import Notifier
from falco_talon.replica import electing, find_replica
from falco_talon.reporting import Reporter
from falco_talon.rules.binding import BoundRules, bind
from falco_talon.rules.load import read
from falco_talon.rules.reload import Reloader, log_faults
from falco_talon.rules.watch import Watch
from falco_talon.server import Readiness, Server, listening
from falco_talon.telemetry.metrics import Metrics
from falco_talon.telemetry.tracing import NoTracing, Tracing

log = structlog.get_logger()

_FLUSH_SECONDS = 5.0


async def run(
    config: Config, stop: asyncio.Event, listens: Callable[[int], None] = lambda port: None
) -> None:
    """Run the daemon until *stop* is set, then let what is under way end.

    *listens* is called with the port as soon as events are accepted.

    :raises TalonError: if it cannot start (inside an ``ExceptionGroup``).
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        tasks = await enter(asyncio.TaskGroup())
        metrics = Metrics().with_process()
        tracing = make_tracing(config, metrics, stack)

        catalog = Catalog.load()
        clients = await enter(open_clients(config))
        rules = bind(read(config.rules_files), catalog, clients)
        log_faults(rules.warnings)
        notifiers = bind_notifiers(config, rules, catalog, clients)
        opening = tasks.create_task(open_used(clients, rules, notifiers.values()))
        log.info("init", result=f"{len(rules)} rule(s) has/have been successfully loaded")

        replica = await find_replica(config, clients)
        bus = await enter(Bus(config, tasks, replica.peers if replica else None))
        await opening
        delivery = Reporter(tracing, metrics)
        notifications = Notifications(
            tasks, notifiers, config.default_notifiers, delivery.stage, delivery.dropped
        )
        stack.push_async_callback(notifications.close, _FLUSH_SECONDS)
        reporter = Reporter(tracing, metrics, notifications.send)
        engine = Engine(
            rules,
            reporter,
            concurrency=config.engine.concurrency,
            action_timeout_seconds=config.engine.action_timeout_seconds,
        )
        await bus.consume(engine.handle)
        if replica:
            await enter(electing(replica, bus, tasks))
        stack.push_async_callback(bus.stop, config.shutdown_grace_seconds)
        stack.callback(engine.stop)
        stack.push_async_callback(bus.close_to_peers)

        async def swap(rules: BoundRules) -> None:
            new = bind_notifiers(config, rules, catalog, clients)
            await open_used(clients, rules, new.values())
            notifications.update(new)
            engine.rules = rules

        reloader = Reloader(config.rules_files, catalog, clients, swap, metrics.rule_reloads.count)
        if config.watch_rules:
            watch = tasks.create_task(Watch(config.rules_files, reloader.reload).run())
            stack.callback(watch.cancel)
            log.info("init", result="watch of rules enabled")

        def readiness() -> Readiness:
            faults = {
                "bus": bus.fault,
                "consumer": "" if bus.consuming else "not running",
                "shutdown": "stopping" if stop.is_set() else "",
            }
            return Readiness(faults, notes={"rules": reloader.fault})

        server = Server(
            bus.stream,
            lambda event: engine.rules.can_match(event),
            reporter,
            metrics,
            readiness,
            max_body_bytes=config.max_body_bytes,
            show_events=config.print_all_events,
            publish_unmatched=config.publish_unmatched,
        )
        port = await enter(listening(server.handle, config.listen_address, config.listen_port))
        address = f"{config.listen_address}:{port}"
        log.info("http", result=f"Falco Talon is up and listening on {address}")
        listens(port)
        await stop.wait()
        log.info("http", result="stopping: no more events are accepted")


def make_tracing(config: Config, metrics: Metrics, stack: AsyncExitStack) -> Tracing:
    """Return what makes the spans; what goes to a collector is flushed when *stack* unwinds."""
    if not (config.otel.traces_enabled or config.otel.metrics_enabled):
        return NoTracing()
    from falco_talon.telemetry.otlp import OtlpMetrics, OtlpTracing

    if config.otel.metrics_enabled:
        stack.callback(OtlpMetrics.to_collector(metrics.registry, config.otel).close)
    tracing = OtlpTracing.to_collector(config.otel) if config.otel.traces_enabled else NoTracing()
    stack.callback(tracing.close)
    return tracing


async def open_used(clients: Clients, rules: BoundRules, notifiers: Iterable[Notifier]) -> None:
    """Open the clients that the plugins in use need, and no others.

    :raises TalonError: naming the client that cannot be opened.
    """
    names = rules.uses.union(*(notifier.uses for notifier in notifiers))
    await clients.ready(names)
    for name in sorted(names):
        log.info("init", category=name, status="success")
