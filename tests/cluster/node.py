"""The node: a registry with our images, containerd, the network of the pods, and kubelet.

Everything it makes is its own: containerd's folders and socket, the network bridge, the address.
A container engine that runs on this machine already is left alone.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import packages
from tests.cluster.control_plane import LOOPBACK, ControlPlane
from tests.cluster.errors import SetupError
from tests.cluster.images import PAUSE, TAG
from tests.cluster.processes import Daemon, answers

NAME = "talon-node"
# With a loopback address every exec fails ("no preferred addresses found"); this range is set
# aside for tests of network devices and is routed nowhere.
ADDRESS = "198.18.1.1"
NETWORK = "talon-test"
BRIDGE = "talon0"
PODS = "10.245.0.0/24"

# The kernel's limit for the path of a socket is 107 bytes; the longest we make is
# `<folder>/kubelet/device-plugins/kubelet.sock`.
LONGEST_FOLDER = 70


@dataclass(frozen=True)
class Node:
    """The processes of the node; their files live in the control plane's folder."""

    plane: ControlPlane
    kubelet_binary: Path

    @property
    def folder(self) -> Path:
        return self.plane.folder

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def state(self) -> Path:
        """containerd's state, with the mounts of the containers."""
        return self.folder / "containerd" / "state"

    def registry(self) -> Daemon:
        port = self.plane.ports.registry
        configuration = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "registry")}},
            "http": {"addr": f"{LOOPBACK}:{port}"},
        }
        path = self.folder / "registry.yaml"
        return Daemon(
            "registry",
            self.folder,
            (packages.program("docker-registry"), "serve", str(path)),
            lambda: answers(f"http://{LOOPBACK}:{port}/"),
            files={path: yaml.safe_dump(configuration)},
        )

    def containerd(self) -> Daemon:
        path = self.folder / "containerd.toml"
        mirror = f"http://{LOOPBACK}:{self.plane.ports.registry}"
        # `server` too, else a name that we do not have is looked up in the world, slowly
        hosts = f'server = "{mirror}"\n[host."{mirror}"]\n  capabilities = ["pull", "resolve"]\n'
        return Daemon(
            "containerd",
            self.folder,
            (packages.program("containerd"), "--config", str(path)),
            self._containerd_answers,
            files={
                path: self._containerd_configuration(),
                self.folder / "cni" / "10-talon.conflist": json.dumps(_network(self.folder)),
                self.folder / "registries" / "_default" / "hosts.toml": hosts,
            },
        )

    def kubelet(self) -> Daemon:
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise SetupError(f"{self.folder} is too long for sockets: set TALON_TEST_CACHE")
        path = self.folder / "kubelet.yaml"
        kubeconfig = self.plane.kubeconfig("kubelet", f"system:node:{NAME}", "system:nodes")
        argv = (
            str(self.kubelet_binary),
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'pki'}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        )
        url = f"http://{LOOPBACK}:{self.plane.ports.kubelet_health}/healthz"
        return Daemon(
            "kubelet",
            self.folder,
            argv,
            lambda: answers(url),
            files={path: yaml.safe_dump(self._kubelet_configuration())},
        )

    def ctr(self, *arguments: str) -> list[str]:
        """The command line of containerd's own client, for the containers of Kubernetes."""
        access = ["--address", str(self.socket), "--namespace", "k8s.io"]
        return [packages.program("ctr"), *access, *arguments]

    def _containerd_answers(self) -> bool:
        # it makes the socket before its plugins are ready, but does not answer on it until then
        try:
            done = subprocess.run(self.ctr("version"), capture_output=True, check=False, timeout=5)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _containerd_configuration(self) -> str:
        snapshotter = "native" if _on_overlay(self.folder) else "overlayfs"
        restrict = "false" if _may_lower_oom_score() else "true"
        cri = '[plugins."io.containerd.grpc.v1.cri"'
        return f"""\
version = 2
root = "{self.folder / "containerd" / "root"}"
state = "{self.state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.folder / "containerd" / "opt"}"
{cri}]
  sandbox_image = "docker.io/{PAUSE}:{TAG}"
  restrict_oom_score_adj = {restrict}
  netns_mounts_under_state_dir = true
{cri}.containerd]
  snapshotter = "{snapshotter}"
  default_runtime_name = "runc"
{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
  Root = "{self.folder / "containerd" / "runc"}"
{cri}.cni]
  bin_dir = "{packages.cni_folder()}"
  conf_dir = "{self.folder / "cni"}"
{cri}.registry]
  config_path = "{self.folder / "registries"}"
"""

    def _kubelet_configuration(self) -> dict[str, Any]:
        authority = self.plane.authority
        certificate, key = authority.issue("kubelet-server", NAME, hosts=[ADDRESS, NAME])
        folder = self.folder / "kubelet"
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": self.plane.ports.kubelet,
            "healthzBindAddress": LOOPBACK,
            "healthzPort": self.plane.ports.kubelet_health,
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            # the machine's own name server may be out of the pods' reach
            "resolvConf": "",
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(folder / "volume-plugins"),
            # rules in the machine's firewall that nothing here needs
            "makeIPTablesUtilChains": False,
            "serializeImagePulls": False,
            # a full disk of the developer must not evict the pods of the tests
            "evictionHard": {
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
                "memory.available": "0%",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
        }


def _network(folder: Path) -> dict[str, Any]:
    """The network of the pods: a bridge, which the node is a part of."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "pod-addresses"),
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge, ports]}


def _on_overlay(folder: Path) -> bool:
    """Whether the folder is itself on an overlay, upon which the kernel stacks no other."""
    best, kind = -1, ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        mounted, filesystem = line.split()[1:3]
        if folder.is_relative_to(mounted) and len(mounted) >= best:
            best, kind = len(mounted), filesystem
    return kind == "overlay"


def _may_lower_oom_score() -> bool:
    """CAP_SYS_RESOURCE; without it runc dies while it starts a container."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 24 & 1)
    return False
