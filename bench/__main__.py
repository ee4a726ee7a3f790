"""``python -m bench``: accept, match, memory, books, reactions, drains and rules, one line each."""

import asyncio
import tempfile

import uvloop

from bench import books, downloads, drain, reactions, rules
from bench.load import Target, body, post, row, running

RULES = """
- action: Label
  actionner: kubernetes:label
  parameters: {labels: {suspicious: "true"}}
- rule: One
  match: {rules: [matched]}
  dry_run: "true"
  actions: [{action: Label}]
- rule: Two
  match: {rules: [another], priority: ">=Error"}
  dry_run: "true"
  actions: [{action: Label}]
- rule: Three
  match: {rules: [a third], tags: [network]}
  dry_run: "true"
  actions: [{action: Label}]
"""
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: bench, user: {token: bench}}]
"""


def measure(target: Target) -> None:
    """Print a line for each kind of load."""
    print(f"{'ready after start':<58} {target.ready_seconds:>8.2f} s")
    print(f"{'resident memory idle, NATS included':<58} {target.resident_mb:>8.0f} MB")
    for connections, number in ((1, 3_000), (16, 40_000), (64, 40_000)):
        bodies = [body(n, "unmatched") for n in range(number)]
        print(row(f"unmatched unique events, {connections} connection(s)",
                  *_run(target, bodies, connections)))  # fmt: skip
    same = [body(0, "matched")] * 30_000
    print(row("one event repeated, 16 connections", *_run(target, same, 16)))
    matched = [body(n, "matched") for n in range(10_000)]
    print(row("matching unique events, dry run, 16 connections", *_run(target, matched, 16)))
    print(f"{'resident memory after that':<58} {target.resident_mb:>8.0f} MB")


def _run(target: Target, bodies: list[bytes], connections: int) -> tuple[float, list[float]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(post(target.port, bodies, connections))


def main() -> None:
    """Measure the daemon on this machine."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as kubeconfig:
        kubeconfig.write(KUBECONFIG)
        kubeconfig.flush()
        with running(RULES, kubeconfig=kubeconfig.name) as target:
            measure(target)
    books.main()
    reactions.main()
    downloads.main()
    drain.main()
    rules.main()


if __name__ == "__main__":
    main()
