"""``talon rules rbac``: printed, applied to a real API server, and acted with."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from falco_talon.catalog import Catalog
from falco_talon.cli.rbac import least
from falco_talon.clients import Clients
from falco_talon.config import Config
from falco_talon.errors import PluginError
from falco_talon.plugin import PolicyRule
from falco_talon.rules.binding import bind
from falco_talon.rules.load import read
from tests.actionners.conftest import about
from tests.cli.conftest import Talon
from tests.cluster.cluster import Cluster

RULES = """
- rule: Shell
  match:
    rules: [Terminal shell in container]
  actions:
    - action: Label
      actionner: kubernetes:label
      parameters: {labels: {suspicious: "true"}}
    - action: Terminate
      actionner: kubernetes:terminate
      parameters: {ignore_standalone_pods: false}
  notifiers: [k8sevents]
"""


def printed(talon: Talon, tmp_path: Path, rules: str, *options: object) -> list[dict[str, Any]]:
    """Return the objects that are printed for these rules."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules)
    done = talon("rules", "rbac", "-r", file, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def allowed(talon: Talon, tmp_path: Path, actions: str, match: str = "{rules: [A]}") -> set[str]:
    """Return what is allowed for a rule with these actions: ``verb resource.group``."""
    rule = f"- rule: A\n  match: {match}\n  actions: {actions}\n"
    (role,) = printed(talon, tmp_path, rule)
    return {
        f"{verb} {resource}{'.' if group else ''}{group}"
        for each in role["rules"]
        for group in each["apiGroups"]
        for resource in each["resources"]
        for verb in each["verbs"]
    }


def test_printed(talon: Talon, tmp_path: Path) -> None:
    """The same rules give the same text: sorted, each resource once, verbs in the usual order."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    done = talon("rules", "rbac", "-r", file)
    assert done.stdout == (
        "apiVersion: rbac.authorization.k8s.io/v1\n"
        "kind: ClusterRole\n"
        "metadata:\n"
        '  name: "falco-talon"\n'
        "rules:\n"
        '  - apiGroups: [""]\n'
        '    resources: ["events"]\n'
        '    verbs: ["create"]\n'
        '  - apiGroups: [""]\n'
        '    resources: ["nodes"]\n'
        '    verbs: ["get"]\n'
        '  - apiGroups: [""]\n'
        '    resources: ["pods"]\n'
        '    verbs: ["get", "patch", "delete"]\n'
    )


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("{labels: {a: b}}", {"patch pods"}),
        ("{labels: {a: b}, level: node}", {"get pods", "patch nodes"}),
    ],
    ids=["pod", "node"],
)
def test_parameters_count(
    parameters: str, expected: set[str], talon: Talon, tmp_path: Path
) -> None:
    """What is needed depends on the parameters."""
    action = f"[{{action: L, actionner: 'kubernetes:label', parameters: {parameters}}}]"
    assert allowed(talon, tmp_path, action) == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (
            '{output_fields: ["ka.target.resource=configmaps, ka.verb=create"]}',
            {"delete configmaps"},
        ),
        (
            '{output_fields: ["ka.target.resource=jobs", "ka.target.resource=pods"]}',
            {"delete jobs.batch", "delete pods"},
        ),
        ('{output_fields: ["ka.target.resource=gadgets"]}', {"delete gadgets.*"}),
        ('{output_fields: ["ka.target.resource=clusterroles"]}', set()),
    ],
    ids=["one kind", "either of two", "custom", "protected"],
)
def test_kinds_to_delete(match: str, expected: set[str], talon: Talon, tmp_path: Path) -> None:
    """What kubernetes:delete needs depends on the kinds that the rule matches."""
    action = "[{action: D, actionner: 'kubernetes:delete'}]"
    assert allowed(talon, tmp_path, action, match) == expected


@pytest.mark.parametrize(
    "match",
    [
        '{output_fields: ["ka.target.resource!=secrets"]}',
        '{output_fields: ["ka.target.resource=pods", "ka.verb=create"]}',
        "{rules: [A]}",
    ],
    ids=["all but one", "or anything", "no field"],
)
def test_any_kind_to_delete(match: str, talon: Talon, tmp_path: Path) -> None:
    """A rule that leaves the kind open needs all of them."""
    found = allowed(talon, tmp_path, "[{action: D, actionner: 'kubernetes:delete'}]", match)
    assert {"delete namespaces", "delete cronjobs.batch", "delete secrets"} < found
    assert "delete clusterroles.rbac.authorization.k8s.io" not in found


def test_contexts_and_dry_run(talon: Talon, tmp_path: Path) -> None:
    """Contexts count; a rule in dry run needs nothing, and notifies nobody of what it does."""
    context = (
        "[{action: E, actionner: 'kubernetes:exec', parameters: {command: id},"
        " additional_contexts: [k8snode]}]"
    )
    assert "get nodes" in allowed(talon, tmp_path, context)
    (role,) = printed(talon, tmp_path, RULES.replace("  match", "  dry_run: true\n  match"))
    assert role["rules"] == []


def test_default_notifiers(talon: Talon, tmp_path: Path) -> None:
    """The notifiers of the configuration count as well."""
    config = tmp_path / "config.yaml"
    config.write_text("default_notifiers: [K8sEvents]\n")
    rules = RULES.replace("  notifiers: [k8sevents]\n", "")
    without, with_them = (
        printed(talon, tmp_path, rules, *options)[0]["rules"] for options in ((), ("-c", config))
    )
    assert next(each for each in with_them if each not in without)["resources"] == ["events"]


SYSDIG = """
- rule: Capture
  match: {rules: [Shell]}
  actions:
    - action: Capture
      actionner: kubernetes:sysdig
      output: {target: "local:file", parameters: {destination: /tmp}}
"""


def test_own_namespace(talon: Talon, tmp_path: Path) -> None:
    """What is needed in the daemon's namespace alone is granted there alone: sysdig's jobs, and
    the lease by which replicas elect one of them.
    """
    config = tmp_path / "config.yaml"
    config.write_text("nats: {shared_secret_file: /run/secret}\n")
    options = ("-c", config, "--namespace", "here", "--service-account", "robot")
    everywhere, here, *bindings = printed(talon, tmp_path, SYSDIG, *options)
    assert everywhere["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    assert (here["kind"], here["metadata"]["namespace"]) == ("Role", "here")
    granted = {resource: each["verbs"] for each in here["rules"] for resource in each["resources"]}
    assert granted == {
        "jobs": ["create", "delete"],
        "leases": ["get", "create", "update"],
        "pods": ["watch"],
        "pods/exec": ["get", "create"],
    }
    account = {"kind": "ServiceAccount", "name": "robot", "namespace": "here"}
    assert [each["subjects"] for each in bindings] == [[account], [account]]
    assert [each["roleRef"]["kind"] for each in bindings] == ["ClusterRole", "Role"]


def test_merged() -> None:
    """As few rules as can be, whoever needs what, and verbs that we do not know as well."""
    needed = [
        PolicyRule(("pods", "nodes"), ("patch", "get")),
        PolicyRule(("nodes",), ("custom", "list")),
        PolicyRule(("jobs",), ("get",), ("batch",)),
    ]
    assert least(needed) == [
        ("", ["nodes"], ["get", "list", "patch", "custom"]),
        ("", ["pods"], ["get", "patch"]),
        ("batch", ["jobs"], ["get"]),
    ]


def test_wrong_rules_and_names(talon: Talon, tmp_path: Path) -> None:
    """Rules that cannot be used are told on standard error; nothing is printed to apply."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULES.replace("kubernetes:label", "kubernetes:lable"))
    done = talon("rules", "rbac", "-r", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert "kubernetes:lable" in done.stderr
    done = talon("rules", "rbac", "-r", file, "--namespace", "a\nb")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no name that a Kubernetes object can have" in done.stderr


async def test_applied(
    talon: Talon, tmp_path: Path, cluster: Cluster, namespace: str, kubectl: Path
) -> None:
    """Applied as printed, it allows every action of the rules; other things stay forbidden."""
    account = tmp_path / "account"
    cluster.service_account_kubeconfig(namespace, "talon", [], account)
    options = ["--name", namespace, "--namespace", namespace, "--service-account", "talon"]
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    manifest = talon("rules", "rbac", "-r", file, *options).stdout
    apply = [str(kubectl), "--kubeconfig", str(cluster.kubeconfig), "apply", "-f", "-"]
    await asyncio.to_thread(subprocess.run, apply, input=manifest.encode(), check=True)
    cluster.create_pod(namespace, schedulerName="nobody")
    event = about(namespace, "web")
    try:
        async with Clients(kubeconfig=account) as clients:
            await clients.ready({"kubernetes"})
            (rule,) = bind(read([file]), Catalog.load(), clients).rules
            for action in rule.actions:
                await action.actionner.check(event)
                await action.actionner.run(event)
            with pytest.raises(PluginError, match="403 Forbidden"):
                await clients.kubernetes.get(f"/api/v1/namespaces/{namespace}/secrets")
    finally:
        for kind in ("clusterrolebindings", "clusterroles"):
            cluster.request("DELETE", f"/apis/rbac.authorization.k8s.io/v1/{kind}/{namespace}")


def test_unprotected_is_needed(talon: Talon, tmp_path: Path) -> None:
    """What `guard.protected` does not list any more may be deleted, and so it is asked for."""
    config = tmp_path / "config.yaml"
    config.write_text("guard: {protected: [kube-system]}\n")
    assert Config.load(config, environ={}).guard.protected == ("kube-system",)
    rule = (
        "- rule: A\n  match: {rules: [A]}\n  actions: [{action: D, actionner: kubernetes:delete}]\n"
    )
    (role,) = printed(talon, tmp_path, rule, "-c", config)
    assert any("clusterroles" in each["resources"] for each in role["rules"])
