"""The demo, as a new user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run(folder: Path, **environ: str) -> str:
    """Run `talon demo`; return what it prints, colours and all."""
    result = subprocess.run(
        [sys.executable, "-m", "falco_talon", "demo"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert list(folder.iterdir()) == []  # it leaves nothing behind
    return result.stdout


def test_without_a_cluster(tmp_path: Path) -> None:
    """One real call, its reply stored, the notification received, under one trace id, in colour."""
    output = run(tmp_path)
    text = ANSI.sub("", output)

    assert output != text
    (trace_id,) = re.findall(r"everything under the trace id ([0-9a-f]{32})", text)
    assert text.count(f"trace_id={trace_id}") >= 5
    assert "http:request  the receiver got the event of node-1, once" in text
    assert re.search(r"local:file    \S+reply\.json: \{\"ticket\": 1", text)
    assert "webhook       action Open a ticket: success" in text
    assert text.count("INF match") == 1
    assert "dry-run" not in text
    assert text.endswith("Done. Next: talon rules check --help, or the README.\n")


def test_with_a_cluster(tmp_path: Path, cluster: Cluster) -> None:
    """With a cluster at hand a real pod is labelled, and goes away with its namespace."""
    output = run(tmp_path, KUBECONFIG=str(cluster.kubeconfig), NO_COLOR="1")

    assert 'the pod web: labels {"app": "web", "suspicious": "true"}' in output
    assert ANSI.sub("", output) == output
    namespaces = cluster.request("GET", "/api/v1/namespaces")["items"]
    left = [n for n in namespaces if n["metadata"]["name"].startswith("talon-demo-")]
    assert all(n["metadata"].get("deletionTimestamp") for n in left)
