"""``python -m bench.drain``: how long a drain of 30 pods takes, in turn with `kubectl drain`.

First on a node without a kubelet, where a pod is gone as soon as it is evicted and only requests
take time; then with pods that run on a real node of the cluster of ``KUBECONFIG``. That node may be
shared: it is cordoned for as long as the drains last, and nobody else's pods are touched, since
our account may evict in the bench's own namespace alone and kubectl is told a label.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from falco_talon.actionners.kubernetes.drain import Drain
from falco_talon.clients import Clients
from falco_talon.event import Event
from tests.cluster.binaries import VERSION
from tests.cluster.cache import Cache
from tests.cluster.cluster import RBAC, Cluster

_PODS = 30
_ROUNDS = {"no kubelet": 3, "real node": 2}
_LABELS = {"app": "talon-bench"}
_SECONDS = 180
# It ends at once when it is asked to, which `sleep` as process 1 does not.
_COMMAND = ("sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait")
_EVERYWHERE = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]},
)
_EVICT = {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}


class Bench:
    """A namespace on the cluster, an account that may evict there alone, and a kubectl."""

    def __init__(self, cluster: Cluster, kubectl: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = cluster.create_namespace("talon-bench")
        self._kubectl = [kubectl, "--kubeconfig", str(cluster.kubeconfig)]
        self._account = folder / "account"
        cluster.service_account_kubeconfig(self.namespace, "bench", _EVERYWHERE, self._account)
        rbac = f"{RBAC}/namespaces/{self.namespace}"
        role = {"metadata": {"name": "bench"}, "rules": [_EVICT]}
        cluster.request("POST", f"{rbac}/roles", role)
        subject = {"kind": "ServiceAccount", "name": "bench", "namespace": self.namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bench"}
        binding = {"metadata": {"name": "bench"}, "roleRef": reference, "subjects": [subject]}
        cluster.request("POST", f"{rbac}/rolebindings", binding)

    def fill(self, node: str, *, runs: bool) -> None:
        """Put the pods on the node, and wait until they run if anything runs there."""
        names = [f"web-{number}" for number in range(_PODS)]
        create = partial(
            self.cluster.create_pod,
            self.namespace,
            labels=_LABELS,
            node=node,
            command=_COMMAND,
            tolerations=[{"operator": "Exists"}],
            terminationGracePeriodSeconds=30 if runs else 0,
        )
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(create, names))
        for name in names if runs else ():
            self.cluster.pod_running(self.namespace, name, timeout=_SECONDS)

    def kubectl(self, node: str) -> float:
        """Return the seconds that kubectl takes."""
        words = ["drain", node, "--force", "--ignore-daemonsets", "--pod-selector=app=talon-bench"]
        begin = time.perf_counter()
        subprocess.run([*self._kubectl, *words], check=True, capture_output=True, timeout=_SECONDS)
        return time.perf_counter() - begin

    def ours(self, node: str) -> float:
        """Return the seconds that kubernetes:drain takes."""
        return asyncio.run(self._drain())

    async def _drain(self) -> float:
        spaces = self.cluster.request("GET", "/api/v1/namespaces")["items"]
        names = (each["metadata"]["name"] for each in spaces)
        others = [name for name in names if name != self.namespace]
        event = Event(output_fields={"k8s.ns.name": self.namespace, "k8s.pod.name": "web-0"})
        parameters = Drain.Parameters(max_wait_period=_SECONDS, ignore_errors=True)
        async with Clients(kubeconfig=self._account, protected=others) as clients:
            await clients.ready({"kubernetes"})
            begin = time.perf_counter()
            result = await Drain(parameters, clients).work(event, lambda text: None)
            seconds = time.perf_counter() - begin
        if f"{_PODS} pods evicted" not in result.text:
            raise SystemExit(result.text)
        return seconds

    def uncordon(self, node: str) -> None:
        """Let pods on the node again."""
        self.cluster.request(
            "PATCH",
            f"/api/v1/nodes/{node}",
            {"spec": {"unschedulable": None}},
            "application/merge-patch+json",
        )

    def measure(self, what: str, node: str) -> str:
        """Drain in turn, and return a line of the medians."""
        taken: dict[str, list[float]] = {"kubectl": [], "ours": []}
        drains: dict[str, Callable[[str], float]] = {"kubectl": self.kubectl, "ours": self.ours}
        for _ in range(_ROUNDS[what]):
            for name, drain in drains.items():
                self.fill(node, runs=what == "real node")
                try:
                    taken[name].append(drain(node))
                finally:
                    self.uncordon(node)
        theirs, ours = statistics.median(taken["kubectl"]), statistics.median(taken["ours"])
        title = f"drain of {_PODS} pods, {what}"
        return f"{title:<58} {ours:>8.2f} s   kubectl {theirs:.2f} s   {ours / theirs:.2f}x"


@contextmanager
def empty_node(cluster: Cluster, name: str) -> Iterator[str]:
    """Make a node without a kubelet."""
    cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    try:
        yield name
    finally:
        cluster.request("DELETE", f"/api/v1/nodes/{name}")


def main() -> None:
    """Measure on the cluster of ``KUBECONFIG``."""
    kubeconfig = os.environ.get("KUBECONFIG")
    built = Cache.from_environment().binary(VERSION, "kubectl")
    kubectl = str(built) if built.is_file() else shutil.which("kubectl")
    if not kubeconfig or not kubectl:
        print("KUBECONFIG is not set, or there is no kubectl: drains are not measured")
        return
    cluster = Cluster(Path(kubeconfig))
    with tempfile.TemporaryDirectory(prefix="talon-bench-") as folder:
        bench = Bench(cluster, kubectl, Path(folder))
        try:
            with empty_node(cluster, bench.namespace) as node:
                print(bench.measure("no kubelet", node))
            for node in cluster.ready_nodes()[:1]:
                print(bench.measure("real node", node))
        finally:
            cluster.delete_namespace(bench.namespace)


if __name__ == "__main__":
    main()
