"""What the actionners that look into containers ask of the API server: no more than they need, and
no more than they are allowed.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from falco_talon.actionners.kubernetes.download import Download
from falco_talon.actionners.kubernetes.exec import Exec
from falco_talon.actionners.kubernetes.log import Log
from falco_talon.actionners.kubernetes.script import Script
from falco_talon.actionners.kubernetes.sysdig import Sysdig
from falco_talon.actionners.kubernetes.tcpdump import Tcpdump
from falco_talon.clients import Clients
from falco_talon.clients.kubernetes import Kubernetes, path
from falco_talon.errors import PluginError, TransientError
from falco_talon.plugin import Actionner, PolicyRule
from falco_talon.retry import retrying
from tests.actionners.conftest import Running
from tests.cluster.cluster import Cluster
from tests.proxy import Proxy, proxied

POD = "GET pods/web"
USES: list[tuple[type[Actionner], dict[str, Any], list[str]]] = [
    (Exec, {"command": "true"}, [POD, "GET pods/web/exec"]),
    (Script, {"script": "true"}, [POD, "GET pods/web/exec"]),
    (Log, {"container": "web"}, [POD, "GET pods/web/log"]),
    (Download, {"file": "/etc/passwd"}, [POD, "GET pods/web/exec"]),
    (
        Tcpdump,
        {"duration": 1},
        ["PATCH pods/web/ephemeralcontainers", "GET pods", *["GET pods/web/exec"] * 2],
    ),
    (
        Sysdig,
        {"duration": 1},
        [POD, "POST jobs", "GET pods", "GET pods/*/exec", "DELETE jobs/*"],
    ),
]
"""For each actionner its parameters and its requests, in order: one look at the pod is enough."""

NOT_MISSED = {("pods/exec", "create"), ("jobs", "delete")}
"""Verbs without which nothing fails: the API asks for the first from 1.35 on, and a job that cannot
be deleted goes by itself.
"""

ALL = pytest.mark.parametrize(
    ("plugin", "given", "requests"), USES, ids=lambda use: getattr(use, "name", "")
)


class Way(NamedTuple):
    """Clients, and the proxy between them and the API server."""

    clients: Clients
    proxy: Proxy


@pytest.fixture
async def way(running: Running, tmp_path: Path) -> AsyncIterator[Way]:
    """A way through a proxy."""
    async with (
        proxied(running.cluster, tmp_path) as (proxy, kubeconfig),
        Clients(kubeconfig=kubeconfig) as clients,
    ):
        await clients.ready({"kubernetes"})
        yield Way(clients, proxy)


@pytest.fixture(scope="module")
def home(node_cluster: Cluster) -> Iterator[str]:
    """The namespace that jobs are in."""
    name = node_cluster.create_namespace()
    yield name
    node_cluster.delete_namespace(name)


def make(plugin: type[Actionner], given: dict[str, Any], home: str, clients: Clients) -> Actionner:
    """Return the actionner; its job, if it makes one, is in the namespace *home*."""
    where = {"namespace": home} if plugin is Sysdig else {}
    return plugin(plugin.Parameters.model_validate(given | where), clients)


def short(request: str) -> str:
    """Return method, resource and name of a request; names that are made up are a star."""
    method, _, url = request.partition(" ")
    path = url.partition("?")[0].partition("/namespaces/")[2].partition("/")[2]
    return f"{method} {re.sub('falco-talon-[-a-z0-9]+', '*', path)}"


@ALL
async def test_requests(
    plugin: type[Actionner],
    given: dict[str, Any],
    requests: list[str],
    way: Way,
    running: Running,
    home: str,
) -> None:
    """Existence and data of the pod are one request, and nothing is asked twice."""
    await make(plugin, given, home, way.clients).run(running.about())
    assert [short(each) for each in way.proxy.requests] == requests


@ALL
async def test_busy_api(
    plugin: type[Actionner],
    given: dict[str, Any],
    requests: list[str],
    way: Way,
    running: Running,
    home: str,
) -> None:
    """An API server that is busy for a moment at the first request only delays the action; one that
    resets the connection is told as that.
    """
    actionner = make(plugin, given, home, way.clients)
    way.proxy.answer(requests[0].split("/")[0].split(" ")[0], 429, Retry_After="1")
    await retrying(actionner.run, running.about())
    way.proxy.answer("/pods/web", 500)
    with pytest.raises(TransientError, match="500 Internal Server Error"):
        await actionner.run(running.about())


@ALL
async def test_ac_13_forbidden(
    plugin: type[Actionner],
    given: dict[str, Any],
    requests: list[str],
    clients: Clients,
    running: Running,
    home: str,
    as_account: Callable[..., Path],
) -> None:
    """With its permissions it works; without any single one the refusal is told in words."""

    async def run(permissions: tuple[PolicyRule, ...]) -> None:
        kubeconfig = await asyncio.to_thread(as_account, permissions)
        async with Clients(kubeconfig=kubeconfig) as limited:
            await limited.ready({"kubernetes"})
            await in_effect(limited.kubernetes, permissions[0])
            await make(plugin, given, home, limited).run(running.about())

    needed = make(plugin, given, home, clients).needs({})
    await run(needed)
    for rule in needed:
        for resource in rule.resources:
            for verb in rule.verbs:
                if (resource, verb) not in NOT_MISSED:
                    with pytest.raises(PluginError, match=rf"cannot {verb} resource.*403 Forbidd"):
                        await run(tuple(_without(needed, resource, verb)))


async def in_effect(kubernetes: Kubernetes, rule: PolicyRule) -> None:
    """Wait until the API server knows the role that *rule* is of: it hears of it by a watch."""
    resource, _, subresource = rule.resources[0].partition("/")
    asked = {"verb": rule.verbs[0], "group": rule.api_groups[0], "resource": resource}
    spec = {"resourceAttributes": asked | {"subresource": subresource}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    where = path("selfsubjectaccessreviews", api="authorization.k8s.io/v1")
    async with asyncio.timeout(10):
        while not (await kubernetes.post(where, {**review, "spec": spec}))["status"]["allowed"]:
            await asyncio.sleep(0.05)


def _without(rules: tuple[PolicyRule, ...], resource: str, verb: str) -> Iterator[PolicyRule]:
    """Yield the rules, one for each resource and verb, without this one."""
    for rule in rules:
        for each in rule.resources:
            for allowed in rule.verbs:
                if (each, allowed) != (resource, verb):
                    yield PolicyRule((each,), (allowed,), rule.api_groups)
