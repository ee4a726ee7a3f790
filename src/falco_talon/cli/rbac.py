"""``talon rules rbac``: the least that the cluster must allow the daemon, for these rules."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from falco_talon.cli.options import ConfigFile, RulesFiles, read_config
from falco_talon.errors import TalonError

if TYPE_CHECKING:
    from falco_talon.catalog import Catalog
    from falco_talon.config import Config
    from falco_talon.plugin import PolicyRule
    from falco_talon.rules.model import Rule, RuleSet

_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete")
_API: Final = "rbac.authorization.k8s.io"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

_Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the roles.")]
_Namespace = Annotated[
    str, typer.Option("--namespace", metavar="NAME", help="Namespace that the daemon runs in.")
]
_ServiceAccount = Annotated[
    str | None,
    typer.Option(
        "--service-account",
        metavar="NAME",
        help="Print the bindings for this service account of that namespace as well.",
        show_default=False,
    ),
]


def rbac(
    context: typer.Context,
    config: ConfigFile = None,
    rules: RulesFiles = None,
    name: _Name = "falco-talon",
    namespace: _Namespace = "falco-talon",
    service_account: _ServiceAccount = None,
) -> None:
    """Print the least ClusterRole for the rules, as they are, and the notifiers that they tell.

    What is needed in the daemon's own namespace alone stands in a Role. Rules in dry run need
    nothing. Needs neither cluster nor network.

    \b
    Examples:
      talon rules rbac -r rules.yaml
      talon rules rbac -c config.yaml --service-account falco-talon | kubectl apply -f -
    """
    for given in (name, namespace, *filter(None, (service_account,))):
        if not _NAME.fullmatch(given):
            raise TalonError(f"'{given}' is no name that a Kubernetes object can have")
    settings = read_config(context, config, rules)
    from falco_talon.catalog import Catalog
    from falco_talon.cli.findings import as_lines
    from falco_talon.rules.load import read
    from falco_talon.rules.model import RulesError

    try:
        needed = needs(read(settings.rules_files), Catalog.load(), settings)
    except RulesError as error:
        typer.echo("\n".join(as_lines(error.faults, settings.log_format, valid=False)), err=True)
        raise typer.Exit(1) from None
    parts = [_role("ClusterRole", name, [rule for rule in needed if not rule.own_namespace])]
    if own := [rule for rule in needed if rule.own_namespace]:
        parts.append(_role("Role", name, own, namespace))
    if service_account:
        parts.append(_binding("ClusterRole", name, namespace, service_account))
        if own:
            parts.append(_binding("Role", name, namespace, service_account))
    typer.echo("---\n".join(parts), nl=False)


def needs(rule_set: "RuleSet", catalog: "Catalog", config: "Config") -> list["PolicyRule"]:
    """Return what the plugins need that the rules and the configuration name, and the election.

    :raises RulesError: if the rules cannot be used.
    """
    from falco_talon.clients import open_clients
    from falco_talon.rules.binding import bind

    bound = bind(rule_set, catalog, open_clients(config))
    needed: list[PolicyRule] = []
    if config.deduplication.leader_election and config.nats.shared_secret_file:
        from falco_talon.leader import PERMISSIONS

        needed += (replace(rule, own_namespace=True) for rule in PERMISSIONS)
    told = {name.lower() for name in config.default_notifiers}
    for rule, plain in zip(bound.rules, rule_set.rules, strict=True):
        if rule.dry_run:
            continue
        told.update(rule.notifiers)
        known = known_values(plain)
        for action in rule.actions:
            needed += action.actionner.needs(known)
            needed += action.output.needs(known) if action.output else ()
            needed += (each for context in action.contexts for each in context.permissions)
    for name, notifier in catalog.notifiers.items():
        needed += notifier.permissions if name.lower() in told else ()
    return needed


def known_values(rule: "Rule") -> Mapping[str, Collection[str]]:
    """Return the values that events of *rule* can have in the fields it is particular about."""
    from falco_talon.rules.criteria import parse_terms

    known: dict[str, set[str]] | None = None
    for item in rule.match.output_fields:  # one of these holds
        terms = [term for term in parse_terms(item) if not term.negated]
        found = {term.key: {term.value} for term in terms}  # all of these hold
        if known is None:
            known = found
        else:
            known = {key: known[key] | found[key] for key in known.keys() & found.keys()}
    return known or {}


def least(needed: Iterable["PolicyRule"]) -> list[tuple[str, list[str], list[str]]]:
    """Return *needed* as few rules: API group, resources, verbs; the same ones in one order."""
    verbs: dict[tuple[str, str], set[str]] = {}
    for rule in needed:
        for group in rule.api_groups:
            for resource in rule.resources:
                verbs.setdefault((group, resource), set()).update(rule.verbs)
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), allowed in sorted(verbs.items()):
        merged.setdefault((group, tuple(sorted(allowed, key=_rank))), []).append(resource)
    return [(group, resources, list(allowed)) for (group, allowed), resources in merged.items()]


def _rank(verb: str) -> tuple[int, str]:
    return _VERBS.index(verb) if verb in _VERBS else len(_VERBS), verb


def _role(kind: str, name: str, needed: Iterable["PolicyRule"], namespace: str = "") -> str:
    rules = [
        f"  - apiGroups: {json.dumps([group])}\n"
        f"    resources: {json.dumps(resources)}\n"
        f"    verbs: {json.dumps(verbs)}\n"
        for group, resources, verbs in least(needed)
    ]
    listed = "rules:\n" + "".join(rules) if rules else "rules: []\n"
    return _head(kind, name, namespace) + listed


def _binding(kind: str, name: str, namespace: str, service_account: str) -> str:
    head = _head(f"{kind}Binding", name, namespace if kind == "Role" else "")
    return (
        f"{head}roleRef: {{apiGroup: {_API}, kind: {kind}, name: {json.dumps(name)}}}\n"
        "subjects:\n  - {kind: ServiceAccount,"
        f" name: {json.dumps(service_account)}, namespace: {json.dumps(namespace)}}}\n"
    )


def _head(kind: str, name: str, namespace: str) -> str:
    place = f"  namespace: {json.dumps(namespace)}\n" if namespace else ""
    return f"apiVersion: {_API}/v1\nkind: {kind}\nmetadata:\n  name: {json.dumps(name)}\n{place}"
