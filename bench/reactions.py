"""``python -m bench.reactions``: how soon and how surely the cluster is changed.

It needs the cluster of ``KUBECONFIG``, one with a node for all of it, and makes a namespace of its
own there. ``TALON_PEER`` names another binary to measure instead.
"""

import http.client
import json
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.load import Installation, Target, installed
from tests.cluster.cluster import Cluster

_PODS = 4
_RULES = """
- rule: Quick
  match: {rules: [quick]}
  actions:
    - action: Label
      actionner: kubernetes:label
      parameters: {labels: {suspicious: "true"}}
- rule: Slow
  match: {rules: [slow]}
  actions:
    - action: Sleep
      actionner: kubernetes:exec
      parameters: {command: sleep 8}
"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """Say nothing: a daemon that was killed resets its connections."""


class Reports:
    """What the daemon says to a webhook: when which event was acted on."""

    def __init__(self) -> None:
        reports = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                now = time.perf_counter()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if body.get("status") == "success":
                    reports.seen.append((now, body["event"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.seen: list[tuple[float, str]] = []
        self._server = _Server(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Where the webhook is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take reports."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def of(self, prefix: str) -> list[tuple[float, str]]:
        """Return the reports of events whose text begins so."""
        return [report for report in list(self.seen) if report[1].startswith(prefix)]

    def wait(self, prefix: str, number: int, seconds: float) -> list[tuple[float, str]]:
        """Return the reports as soon as *number* events are acted on, or after *seconds*."""
        deadline = time.perf_counter() + seconds
        while len({text for _, text in self.of(prefix)}) < number:
            if time.perf_counter() > deadline:
                break
            time.sleep(0.001)
        return self.of(prefix)


class Sender:
    """Posts events over one connection."""

    def __init__(self, target: Target, namespace: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
        self._namespace = namespace

    def __call__(self, text: str, pod: str, rule: str = "quick") -> float:
        """Post an event of that text; return when it went away."""
        body = {
            "output": text,
            "rule": rule,
            "priority": "Warning",
            "source": "syscall",
            "hostname": "node-1",
            "time": "2026-11-21T12:00:00.000000000Z",
            "output_fields": {"k8s.ns.name": self._namespace, "k8s.pod.name": pod},
        }
        headers = {"Content-Type": "application/json"}
        begin = time.perf_counter()
        try:
            self._connection.request("POST", "/", json.dumps(body), headers)
        except ConnectionError:  # closed meanwhile, as an idle one may be
            self._connection.close()
            self._connection.request("POST", "/", json.dumps(body), headers)
        reply = self._connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise SystemExit(f"refused: {reply.status}")
        return begin


def one_by_one(send: Sender, reports: Reports) -> str:
    """Measure from the post to the notification, with nothing else to do."""
    send("warm up", "pod-0")
    reports.wait("warm up", 1, 10)
    taken = []
    for number in range(20):
        time.sleep(1)  # a client that is held to a few requests a second is idle again, too
        begin = send(f"idle {number}.", "pod-0")
        ((end, _),) = reports.wait(f"idle {number}.", 1, 10)
        taken.append((end - begin) * 1000)
    return _line("POST, label, webhook, idle: p50 / max of 20",
                 f"{statistics.median(taken):.1f} ms / {max(taken):.1f} ms")  # fmt: skip


def burst(send: Sender, reports: Reports) -> str:
    """Measure 200 events at 50/s for one pod."""
    begin = time.perf_counter()
    for number in range(200):
        time.sleep(max(0.0, begin + number / 50 - time.perf_counter()))
        send(f"burst {number}.", "pod-1")
    done = reports.wait("burst", 200, 30 - (time.perf_counter() - begin))
    last = max(at for at, _ in done) - begin if done else 0.0
    labelled = len({text for _, text in done})
    return _line("200 events at 50/s, each labels the same pod",
                 f"{labelled} labelled, the last after {last:.2f} s")  # fmt: skip


def beside_a_slow_one(send: Sender, reports: Reports) -> str:
    """Measure the reaction to one pod while a command of 8 s runs in another."""
    send("slow", "web", "slow")
    time.sleep(1)
    begin = send("beside", "pod-2")
    done = reports.wait("beside", 1, 30)
    taken = f"{done[0][0] - begin:.3f} s" if done else "none within 30 s"
    reports.wait("slow", 1, 30)
    slept = reports.of("slow")[0][0] - begin if reports.of("slow") else 0.0
    return _line("reaction to pod A while an 8 s exec runs in pod B",
                 f"{taken} (the exec ended {slept:.1f} s after the event)")  # fmt: skip


def after_kill_9(installation: Installation, namespace: str, reports: Reports) -> str:
    """Measure what becomes of 50 accepted events when the daemon is killed by -9."""
    with installation.run() as target:
        send = Sender(target, namespace)
        for number in range(50):
            send(f"kill {number}.", "pod-3")  # one after the other, so that most are left
        os.kill(target.pid, signal.SIGKILL)
        before = len(reports.of("kill"))
    begin = time.perf_counter()
    with installation.run():
        done = reports.wait("kill", 50, 30)
        time.sleep(1)  # for what should not come
        counts = Counter(text for _, text in reports.of("kill"))
    last = max((at for at, _ in done), default=begin) - begin
    twice = sum(count > 1 for count in counts.values())
    return _line("50 events accepted, kill -9, restart: acted on",
                 f"{len(counts)} ({before} before the kill), the last {last:.2f} s after the "
                 f"restart began, {twice} twice")  # fmt: skip


def _line(what: str, found: str) -> str:
    return f"{what:<58} {found}"


def main() -> None:
    """Measure on the cluster of ``KUBECONFIG``."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        print("KUBECONFIG is not set: reactions on a cluster are not measured")
        return
    cluster, reports = Cluster(Path(kubeconfig)), Reports()
    namespace = cluster.create_namespace("talon-bench")
    config = {
        "kubeconfig": kubeconfig,
        "default_notifiers": ["webhook"],
        "notifiers": {"webhook": {"url": reports.url}},
    }
    try:
        for number in range(_PODS):
            # Nothing runs in them: no node has this name.
            cluster.create_pod(namespace, f"pod-{number}", nodeSelector={"talon-bench": "none"})
        if cluster.has_nodes:
            cluster.create_pod(namespace)
            cluster.pod_running(namespace)
        with reports.listening(), installed(_RULES, **config) as installation:
            with installation.run() as target:
                send = Sender(target, namespace)
                rows: list[Callable[[Sender, Reports], str]] = [one_by_one, burst]
                if cluster.has_nodes:
                    rows.append(beside_a_slow_one)
                for measure in rows:
                    print(measure(send, reports))
            print(after_kill_9(installation, namespace, reports))
    finally:
        cluster.delete_namespace(namespace)


if __name__ == "__main__":
    main()
