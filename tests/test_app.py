"""The main job, end to end: an event over HTTP, a reaction on a real pod, somebody told."""

import asyncio
import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.daemon import Daemon
from tests.endpoint import Answer, Endpoint

LABEL = """
- rule: Shell
  match: {rules: [Terminal shell in container]}
  actions:
    - action: Label
      actionner: kubernetes:label
      parameters: {labels: {suspicious: "true"}}
  notifiers: [k8sevents]
"""

TERMINATE = """
- rule: Miner
  match: {rules: [Detect crypto miners], priority: ">=Warning"}
  actions:
    - action: Kill
      actionner: kubernetes:terminate
      parameters: {grace_period_seconds: 0, ignore_standalone_pods: false}
"""

FALCO: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "shell.json").read_text())
"""An event as Falco posts it: numbers, nulls, quotes, line ends, a 64-bit time."""


def falco_event(namespace: str, pod: str, **changes: Any) -> dict[str, Any]:
    fields = FALCO["output_fields"] | {"k8s.ns.name": namespace, "k8s.pod.name": pod}
    event = FALCO | {"output": f"{FALCO['output']} pod={namespace}/{pod}", "output_fields": fields}
    return event | changes


async def test_an_event_labels_a_real_pod_once(
    daemon: Daemon, cluster: Cluster, namespace: str, endpoint: Endpoint
) -> None:
    """A hundred equal events label the pod once; webhook and cluster events tell of it."""
    pod = cluster.create_pod(namespace, "web")
    daemon.write(
        LABEL,
        kubeconfig=str(cluster.kubeconfig),
        default_notifiers=["webhook"],
        notifiers={"webhook": {"url": f"{endpoint.url}/hook"}},
    )
    await asyncio.to_thread(daemon.start)
    assert daemon.get("/readyz")[0] == 200

    statuses = await asyncio.to_thread(
        lambda: [daemon.post(falco_event(namespace, "web")) for _ in range(100)]
    )

    assert set(statuses) == {200}
    (line,) = await asyncio.to_thread(daemon.wait_for_lines, 1, message="action", status="success")
    assert (line["pod"], line["namespace"]) == ("web", namespace)
    labels = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods/web")["metadata"]
    assert labels["labels"]["suspicious"] == "true"
    await asyncio.to_thread(daemon.wait_for_lines, 2, message="notification", status="success")
    assert len(daemon.lines(message="match")) == 1
    assert await asyncio.to_thread(daemon.stop) == 0

    (received,) = endpoint.received
    report = json.loads(received.body)
    assert report["trace_id"] == line["trace_id"]
    assert (report["status"], report["objects"]) == (
        "success",
        {"pod": "web", "namespace": namespace},
    )
    (told,) = _talon_events(cluster, namespace)
    assert told["involvedObject"]["uid"] == pod["metadata"]["uid"]
    assert told["metadata"]["namespace"] == namespace
    assert told["type"] == "Normal"


def _talon_events(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    events = cluster.request("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event for event in events if event.get("reportingInstance") == "falco-talon"]


def test_an_event_terminates_a_real_pod(daemon: Daemon, cluster: Cluster, namespace: str) -> None:
    """Another rule ends another pod; the first is left alone."""
    for name in ("miner", "web"):
        cluster.create_pod(namespace, name)
    daemon.write(LABEL + TERMINATE, kubeconfig=str(cluster.kubeconfig))
    daemon.start()
    event = falco_event(namespace, "miner", rule="Detect crypto miners", priority="Critical")

    assert daemon.post(event | {"priority": "Notice", "output": "too low"}) == 200
    assert daemon.post(event) == 200

    daemon.wait_for_lines(1, message="action", status="success", actionner="kubernetes:terminate")
    assert len(daemon.lines(message="match")) == 1
    pods = f"/api/v1/namespaces/{namespace}/pods"
    daemon.wait_for(
        lambda: [p["metadata"]["name"] for p in cluster.request("GET", pods)["items"]] == ["web"],
        "end of the pod",
    )
    assert daemon.stop() == 0


def test_an_event_without_a_target(daemon: Daemon, cluster: Cluster, namespace: str) -> None:
    """The failure says what is missing, and the next event is served."""
    cluster.create_pod(namespace, "web")
    daemon.write(LABEL, kubeconfig=str(cluster.kubeconfig))
    daemon.start()

    daemon.post({"rule": "Terminal shell in container", "output": "on the host"})
    daemon.post(falco_event(namespace, "no-such-pod"))
    daemon.post(falco_event(namespace, "web"))

    daemon.wait_for_lines(1, message="action", status="success")
    failures = daemon.wait_for_lines(2, message="action", status="failure")
    assert {line["error"] for line in failures} == {
        "missing pod name",
        f"the pod 'no-such-pod' in the namespace '{namespace}' doesn't exist",
    }
    metrics = daemon.get("/metrics")[1].decode()
    assert 'actions_total{action="Label"' in metrics
    assert daemon.stop() == 0


CALL = """
- rule: Call
  match: {{rules: [Call]}}
  actions:
    - action: Call
      actionner: http:request
      parameters: {{url: "{url}", timeout_seconds: 60}}
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_graceful_stop(daemon: Daemon, endpoint: Endpoint, end: int) -> None:
    """What runs ends; what waits for its turn stays in the stream, for the next start."""
    daemon.write(CALL.format(url=endpoint.url))
    endpoint.answers = [Answer(fault="hang")]
    await asyncio.to_thread(daemon.start)
    for number in range(3):  # of one host: one after the other
        assert await asyncio.to_thread(daemon.post, {"rule": "Call", "output": str(number)}) == 200
    await asyncio.to_thread(daemon.wait_for, lambda: endpoint.received, "request")

    assert daemon.process is not None
    daemon.process.send_signal(end)
    await asyncio.to_thread(
        lambda: daemon.wait_for_lines(1, message="nats", result="waiting for 3 event(s) under way")
    )
    with pytest.raises(OSError, match="refused"):
        daemon.post({"rule": "Call"})
    endpoint.answers = [Answer()]
    await endpoint.close()
    assert await asyncio.to_thread(daemon.join) == 0
    assert len(daemon.lines(message="action", status="success")) == 1

    await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(daemon.wait_for_lines, 3, message="action", status="success")
    assert await asyncio.to_thread(daemon.stop) == 0
    outputs = [json.loads(request.body)["output"] for request in endpoint.received]
    assert outputs == ["0", "1", "2"]


async def test_accepted_events_survive_kill_9(daemon: Daemon, endpoint: Endpoint) -> None:
    """Whatever was answered 200 is worked on after the restart."""
    daemon.write(CALL.format(url=endpoint.url))
    endpoint.answers = [Answer(fault="hang")]
    await asyncio.to_thread(daemon.start)
    for number in range(20):
        event = {"rule": "Call", "output": str(number), "hostname": f"host-{number % 5}"}
        assert await asyncio.to_thread(daemon.post, event) == 200
    await asyncio.to_thread(
        lambda: daemon.wait_for(lambda: len(endpoint.received) == 5, "requests")
    )
    await asyncio.to_thread(daemon.stop, signal.SIGKILL)
    await endpoint.close()
    endpoint.answers = [Answer()]
    in_flight = len(endpoint.received)

    await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(daemon.wait_for_lines, 20, message="action", status="success")
    assert await asyncio.to_thread(daemon.stop) == 0
    outputs = [json.loads(request.body)["output"] for request in endpoint.received[in_flight:]]
    assert sorted(outputs, key=int) == [str(number) for number in range(20)]


async def test_it_serves_on_whatever_it_is_sent(daemon: Daemon, endpoint: Endpoint) -> None:
    """Bodies of every bad kind are refused, nothing is acted on, the next event is."""
    daemon.write(CALL.format(url=endpoint.url))
    await asyncio.to_thread(daemon.start)
    bad = {
        b"": 400,
        b'{"rule": "Call"': 400,
        b'{"rule": "\xff"}': 400,
        b"[]": 400,
        b'{"rule": ["Call"]}': 400,
        b'{"rule": "Call", "x": NaN}': 400,
        b'{"rule": "Call", "rule": "Other"}': 200,
        b'{"output_fields": {"a": ' + b"[" * 10 + b"]" * 10 + b"}}": 200,
        b'{"output_fields": {"a": 18446744073709551616}}': 200,
        b'{"rule": "Call", "output": "' + b"x" * 2**20 + b'"}': 413,
    }
    for body, status in bad.items():
        assert await asyncio.to_thread(daemon.post, body) == status, body[:60]
    assert endpoint.received == []

    assert await asyncio.to_thread(daemon.post, {"rule": "Call", "output": "fine"}) == 200
    await asyncio.to_thread(daemon.wait_for_lines, 1, message="action", status="success")
    assert await asyncio.to_thread(daemon.stop) == 0


def _fails(daemon: Daemon) -> str:
    """Start; it must end with code 1, one line for the user, and no traceback."""
    daemon.raw.clear()
    daemon.start(ready=False)
    assert daemon.join() == 1
    assert not any("Traceback" in line for line in daemon.raw)
    lines = [line for line in daemon.raw if "error" in line and "invalid rules" not in line]
    (line,) = lines
    return line


def test_what_keeps_it_from_starting(daemon: Daemon) -> None:
    """Each fault is one clear line that names what is wrong."""
    rules = CALL.format(url="http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon.write(rules, listen_port=port)
        assert f"cannot listen on 127.0.0.1:{port}: address already in use" in _fails(daemon)

    daemon.write(rules, listen_port=0, rules_files=["absent.yaml"])
    assert "open absent.yaml: no such file or directory" in _fails(daemon)

    daemon.write(LABEL, rules_files=[str(daemon.folder / "rules.yaml")], kubeconfig="/absent")
    assert "kubeconfig '/absent' cannot be read: No such file or directory" in _fails(daemon)

    daemon.write(rules, kubeconfig="", nats={"store_dir": "/proc/talon"})
    assert "nats.store_dir '/proc/talon' cannot be written" in _fails(daemon)

    daemon.write(rules, nats={"store_dir": "store", "server": "/absent/nats-server"})
    assert "'/absent/nats-server' is no executable file" in _fails(daemon)

    (daemon.folder / "config.yaml").write_text("listen_prot: 1\n")
    assert "listen_prot" in _fails(daemon)

    (daemon.folder / "config.yaml").unlink()
    assert "config.yaml" in _fails(daemon)


def test_two_daemons_on_one_folder(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The second does not start, the first is not disturbed."""
    rules = CALL.format(url="http://127.0.0.1:1")
    daemon.write(rules)
    daemon.start()
    second = Daemon(tmp_path_factory.mktemp("second"))
    second.write(rules, nats={"store_dir": str(daemon.folder / "store")})

    assert "in use by another falco-talon" in _fails(second)

    assert daemon.get("/readyz")[0] == 200
    assert daemon.stop() == 0


def test_a_second_signal_ends_it_at_once(daemon: Daemon) -> None:
    """Whoever presses Ctrl-C twice does not want to wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        daemon.write(CALL.format(url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        daemon.start()
        daemon.post({"rule": "Call", "output": "hangs"})
        daemon.wait_for_lines(1, message="action", status="in_progress")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGINT)
        daemon.wait_for_lines(1, result="waiting for 1 event(s) under way")
        pid = json.loads((daemon.folder / "store" / "connection.json").read_text())["pid"]
        begin = time.monotonic()
        assert daemon.stop(signal.SIGINT) in {130, -signal.SIGINT}
        assert time.monotonic() - begin < 5
    daemon.wait_for(lambda: not _alive(pid), "end of nats-server")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def test_secrets_stay_out_of_the_log(daemon: Daemon) -> None:
    """Neither the configuration's nor a rule's secrets are ever printed, at any level."""
    rules = CALL.format(url="http://127.0.0.1:1").replace(
        "timeout_seconds: 60", 'headers: {Authorization: "Bearer s3cr3t-1"}'
    )
    daemon.write(
        rules,
        log_level="debug",
        default_notifiers=["webhook"],
        notifiers={
            "webhook": {
                "url": "http://127.0.0.1:1/s3cr3t-2",
                "custom_headers": {"X-Token": "s3cr3t-3"},
            }
        },
        aws={"access_key": "s3cr3t-4", "secret_key": "s3cr3t-5"},
    )
    daemon.start()
    daemon.post({"rule": "Call", "output": "x"})
    daemon.wait_for_lines(1, message="notification", status="failure")
    password = json.loads((daemon.folder / "store" / "connection.json").read_text())["password"]
    assert daemon.stop() == 0
    text = "\n".join(daemon.raw)
    assert "s3cr3t" not in text
    assert password not in text


async def test_new_rules_without_a_restart(daemon: Daemon, endpoint: Endpoint) -> None:
    """A changed rule file is in use at once; a broken one changes nothing and says so."""
    daemon.write(CALL.format(url=endpoint.url + "/old"))
    await asyncio.to_thread(daemon.start)
    rules = daemon.folder / "rules.yaml"

    def replace(text: str) -> None:
        (daemon.folder / "new").write_text(text)
        (daemon.folder / "new").rename(rules)

    new = CALL.format(url=endpoint.url + "/new").replace("rules: [Call]", "rules: [Ring]")
    new += "  notifiers: [webhook]\n"  # has no settings
    await asyncio.to_thread(replace, new)
    await asyncio.to_thread(daemon.wait_for_lines, 1, error="invalid rules")
    status, body = await asyncio.to_thread(daemon.get, "/readyz")
    assert status == 200
    assert "notifiers.webhook: wrong `url` setting" in json.loads(body)["rules"]
    assert await asyncio.to_thread(daemon.post, {"rule": "Call", "output": "1"}) == 200
    await asyncio.to_thread(daemon.wait_for, lambda: endpoint.received, "request")

    await asyncio.to_thread(replace, new.replace("  notifiers: [webhook]\n", ""))
    await asyncio.to_thread(
        daemon.wait_for_lines, 1, result="1 rules have been successfully loaded"
    )
    assert await asyncio.to_thread(daemon.post, {"rule": "Ring", "output": "2"}) == 200
    assert await asyncio.to_thread(daemon.post, {"rule": "Call", "output": "3"}) == 200
    await asyncio.to_thread(
        lambda: daemon.wait_for(lambda: len(endpoint.received) == 2, "second request")
    )
    assert [request.path for request in endpoint.received] == ["/old", "/new"]
    metrics = (await asyncio.to_thread(daemon.get, "/metrics"))[1].decode()
    assert 'falcosecurity_falco_talon_rule_reloads_total{status="success"} 1.0' in metrics
    assert 'falcosecurity_falco_talon_rule_reloads_total{status="failure"} 1.0' in metrics
    assert "rules" not in json.loads((await asyncio.to_thread(daemon.get, "/readyz"))[1])
    assert await asyncio.to_thread(daemon.stop) == 0
