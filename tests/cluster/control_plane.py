"""The control plane: etcd and the API server, and for a cluster with a node what drives it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Authority, write_client_kubeconfig
from tests.cluster.ports import Ports
from tests.cluster.processes import Daemon, answers

LOOPBACK = "127.0.0.1"
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
MASTERS = "system:masters"


@dataclass(frozen=True)
class ControlPlane:
    """The processes of one control plane, their data and certificates in one folder.

    With a loopback address it is an API alone: no controllers, so no service accounts are made
    and pods are admitted without one.
    """

    binaries: Binaries
    folder: Path
    ports: Ports
    address: str = LOOPBACK
    dies_with_parent: bool = False

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.ports.apiserver}"

    @property
    def authority(self) -> Authority:
        return Authority(self.folder / "pki")

    def kubeconfig(self, name: str, user: str, *groups: str) -> Path:
        """The kubeconfig of a user, in `<name>.kubeconfig`."""
        authority = self.authority
        client = authority.issue(name, user, groups=groups)
        path = self.folder / f"{name}.kubeconfig"
        return write_client_kubeconfig(path, self.server, authority, client)

    def admin(self) -> Path:
        return self.kubeconfig("admin", "admin", MASTERS)

    def etcd(self) -> Daemon:
        client = f"http://{LOOPBACK}:{self.ports.etcd}"
        peer = f"http://{LOOPBACK}:{self.ports.etcd_peer}"
        argv = (
            str(self.binaries.etcd),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # the data is worth nothing after the tests, and disks of test machines are slow
            "--unsafe-no-fsync",
        )
        return self._daemon("etcd", argv, f"{client}/health")

    def apiserver(self) -> Daemon:
        authority = self.authority
        hosts = [self.address, LOOPBACK, FIRST_SERVICE, "localhost", "kubernetes.default.svc"]
        certificate, key = authority.issue("apiserver", "kube-apiserver", hosts=hosts)
        signing = authority.signing_key("service-account")
        argv = [
            str(self.binaries.kubernetes["kube-apiserver"]),
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.ports.apiserver}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={authority.certificate}",
            f"--service-account-key-file={signing}",
            f"--service-account-signing-key-file={signing}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--profiling=false",
        ]
        if self.address == LOOPBACK:
            argv += [
                # nobody would create the service account that this plugin waits for
                "--disable-admission-plugins=ServiceAccount",
                # a loopback address is not a valid endpoint of the `kubernetes` service
                "--endpoint-reconciler-type=none",
            ]
        else:
            client = authority.issue("kubelet-client", "kube-apiserver", groups=[MASTERS])
            argv += [
                "--enable-admission-plugins=NodeRestriction",
                f"--kubelet-certificate-authority={authority.certificate}",
                f"--kubelet-client-certificate={client[0]}",
                f"--kubelet-client-key={client[1]}",
                "--kubelet-preferred-address-types=InternalIP",
            ]
        return self._daemon(
            "kube-apiserver", tuple(argv), f"{self.server}/readyz", authority.certificate
        )

    def controller_manager(self) -> Daemon:
        name = "kube-controller-manager"
        authority = self.authority
        port = self.ports.controller_manager
        argv = (
            str(self.binaries.kubernetes[name]),
            f"--kubeconfig={self.kubeconfig(name, f'system:{name}')}",
            f"--root-ca-file={authority.certificate}",
            f"--service-account-private-key-file={authority.signing_key('service-account')}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            # a deleted namespace should be gone before the next test looks at the cluster
            "--concurrent-namespace-syncs=10",
        )
        return self._daemon(name, argv, f"https://{LOOPBACK}:{port}/healthz")

    def scheduler(self) -> Daemon:
        name = "kube-scheduler"
        port = self.ports.scheduler
        kubeconfig = self.kubeconfig(name, f"system:{name}")
        argv = (
            str(self.binaries.kubernetes[name]),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
        )
        return self._daemon(name, argv, f"https://{LOOPBACK}:{port}/healthz")

    def _daemon(
        self, name: str, argv: tuple[str, ...], health: str, authority: Path | None = None
    ) -> Daemon:
        def healthy() -> bool:
            return answers(health, authority)

        return Daemon(name, self.folder, argv, healthy, dies_with_parent=self.dies_with_parent)


@contextmanager
def private_control_plane(binaries: Binaries) -> Iterator[Path]:
    """An API alone on free loopback ports, for one test session; yields its kubeconfig."""
    folder = Path(tempfile.mkdtemp(prefix="talon-test-"))
    plane = ControlPlane(binaries, folder, Ports.free(), dies_with_parent=True)
    etcd, apiserver = plane.etcd(), plane.apiserver()
    try:
        etcd.ensure()
        apiserver.ensure()
        yield plane.admin()
    finally:
        # neither needs to write anything any more, so do not wait for their good-byes
        apiserver.stop(patience=0)
        etcd.stop(patience=0)
    # not after an error: its message names the log in this folder
    shutil.rmtree(folder)
