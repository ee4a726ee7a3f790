"""``python -m bench.downloads``: what large files cost the daemon that fetches them from a pod.

It needs the cluster of ``KUBECONFIG``, with a node, and makes a namespace of its own there.
``TALON_PEER`` names another binary to measure instead.
"""

import asyncio
import json
import os
import re
import tempfile
import time
from pathlib import Path

from bench.load import Target, post, running
from tests.cluster.cluster import Cluster

_MEGABYTE = 1024 * 1024
_SIZES = (1, 100, 200)
_SECONDS = 120.0
_RULES = """
- rule: Download
  match: {{rules: [download]}}
  actions:
    - action: Download
      actionner: kubernetes:download
      parameters: {{file: "${{FD_NAME}}", max_output_bytes: 268435456}}
      output: {{target: "local:file", parameters: {{destination: {folder}}}}}
"""


def _event(namespace: str, file: str) -> bytes:
    event = {
        "output": f"{time.time_ns()} Notice {file}",
        "output_fields": {"k8s.ns.name": namespace, "k8s.pod.name": "web", "fd.name": file},
        "priority": "Notice",
        "rule": "download",
        "source": "syscall",
        "hostname": "node-1",
        "time": "2026-11-21T12:00:00.000000000Z",
    }
    return json.dumps(event).encode()


def _peak_mb(target: Target) -> float:
    """Return the most memory that the daemon, without NATS, has had so far."""
    status = Path(f"/proc/{target.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def _fetch(target: Target, namespace: str, folder: Path, megabytes: int) -> float:
    """Have a file of that size fetched; return the seconds until it is stored."""
    before, begin = set(folder.iterdir()), time.perf_counter()
    asyncio.run(post(target.port, [_event(namespace, f"/home/{megabytes}")], 1))
    while time.perf_counter() - begin < _SECONDS:
        for file in set(folder.iterdir()) - before:
            if not file.name.endswith(".partial") and file.stat().st_size == megabytes * _MEGABYTE:
                return time.perf_counter() - begin
        time.sleep(0.01)
    raise SystemExit(f"{megabytes} MiB did not arrive in {_SECONDS:g} s")


def _measure(cluster: Cluster, namespace: str) -> None:
    with tempfile.TemporaryDirectory(prefix="talon-bench-") as name:
        folder = Path(name)
        rules = _RULES.format(folder=folder)
        with running(rules, kubeconfig=str(cluster.kubeconfig)) as target:
            for megabytes in _SIZES:
                seconds = _fetch(target, namespace, folder, megabytes)
                what = f"download of {megabytes} MiB: seconds, peak memory of the daemon"
                print(f"{what:<58} {seconds:>8.2f} s   {_peak_mb(target):6.0f} MB")


def main() -> None:
    """Measure it, if there is a cluster with a node."""
    kubeconfig = os.environ.get("KUBECONFIG")
    cluster = Cluster(Path(kubeconfig)) if kubeconfig else None
    if cluster is None or not cluster.has_nodes:
        print("downloads: set KUBECONFIG to a cluster with a node to measure them")
        return
    namespace = cluster.create_namespace("talon-bench")
    try:
        files = "; ".join(f"truncate -s {size}M /home/{size}" for size in _SIZES)
        cluster.create_pod(namespace, command=["sh", "-c", f"{files}; exec sleep 3600"])
        cluster.pod_running(namespace)
        _measure(cluster, namespace)
    finally:
        cluster.delete_namespace(namespace)


if __name__ == "__main__":
    main()
