"""kubernetes:delete"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from falco_talon.actionners.kubernetes._pod import shown
from falco_talon.actionners.kubernetes._protected import protection
from falco_talon.clients.kubernetes import Conflict, NotFound, Object, path
from falco_talon.errors import CheckError, Ignored, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Actionner, PolicyRule, Result

_APIS: Final = {
    "namespaces": "v1",
    "configmaps": "v1",
    "secrets": "v1",
    "services": "v1",
    "serviceaccounts": "v1",
    "pods": "v1",
    "deployments": "apps/v1",
    "daemonsets": "apps/v1",
    "statefulsets": "apps/v1",
    "replicasets": "apps/v1",
    "jobs": "batch/v1",
    "cronjobs": "batch/v1",
    "ingresses": "networking.k8s.io/v1",
    "networkpolicies": "networking.k8s.io/v1",
    "roles": "rbac.authorization.k8s.io/v1",
    "clusterroles": "rbac.authorization.k8s.io/v1",
}
_WITHOUT_NAMESPACE: Final = ("namespaces", "clusterroles")
_OPTIONS: Final[Object] = {
    "apiVersion": "v1",
    "kind": "DeleteOptions",
    # What belongs to it goes as well; the default for a Job would leave its pods running.
    "propagationPolicy": "Background",
}
_GROUP: Final = re.compile(r"/apis?/(?:v1|([a-z0-9.-]+)/)")
# The groups of Kubernetes itself have no dot, or this form; custom ones have more in front.
_BUILT_IN: Final = re.compile(r"[a-z0-9-]+((\.(authorization|apiserver))?\.k8s\.io)?")


def _group(api: str) -> str:
    """Return the group of an ``apiVersion``; the core group has no name."""
    return api.rpartition("/")[0]


class Delete(Actionner):
    """Delete the object that the audit event is about.

    Custom resources are found by asking the API; to delete them, more permissions than those
    below are needed. What `guard.protected` lists is left alone: by default what lives in
    kube-system, kube-public, kube-node-lease and the namespace that Falco Talon runs in, these
    namespaces, `default` itself, and ClusterRoles.
    """

    name = "kubernetes:delete"
    source = ("k8s_audit",)
    uses = ("kubernetes",)
    continue_ = False
    required_output_fields = ("ka.target.resource", "ka.target.name", "ka.target.namespace")
    permissions = tuple(
        PolicyRule(
            tuple(each for each in _APIS if _APIS[each] == api and each != "clusterroles"),
            ("delete",),
            (_group(api),),
        )
        for api in dict.fromkeys(_APIS.values())
    )
    example = """
      - action: Delete the object
        actionner: kubernetes:delete
    """

    def needs(self, known: Mapping[str, Collection[str]]) -> tuple[PolicyRule, ...]:
        """Return the permissions for the kinds that the rule names, or else for all of those above.

        A rule does not tell the group of a custom resource, so all groups are allowed for it.
        """
        resources = known.get("ka.target.resource")
        if resources is None:
            resources = list(_APIS)
        protected = self.clients.protected
        wanted = [each for each in resources if not protected.reason("", resource=each)]
        return tuple(
            PolicyRule((each,), ("delete",), (_group(_APIS[each]) if each in _APIS else "*",))
            for each in wanted
        )

    async def check(self, event: Event) -> None:
        """See that the event names an object.

        :raises CheckError: with what is missing.
        """
        resource = event.target_resource
        if not resource:
            raise CheckError("missing target resource (ka.target.resource)")
        if not event.target_name:
            raise CheckError("missing target name (ka.target.name)")
        if not event.target_namespace and resource in set(_APIS) - set(_WITHOUT_NAMESPACE):
            raise CheckError("missing target namespace (ka.target.namespace)")

    async def run(self, event: Event) -> Result:
        """Delete it, with what belongs to it.

        :raises Ignored: if it is protected; :raises PluginError: if it cannot be deleted.
        """
        resource, name = event.target_resource, event.target_name
        namespace = "" if resource in _WITHOUT_NAMESPACE else event.target_namespace
        objects = {"name": name, "resource": resource}
        if namespace:
            objects["namespace"] = namespace
        target = _named(resource, name, namespace)
        reason = protection(self.clients, resource=resource, name=name, namespace=namespace)
        if reason:
            raise Ignored(f"{target} {reason} and will be ignored.", objects)
        api, scoped = await self._api(event, resource)
        if scoped and not namespace:
            raise CheckError("missing target namespace (ka.target.namespace)")
        if not scoped:
            objects.pop("namespace", None)
            target = _named(resource, name)
        try:
            where = path(resource, name, namespace=namespace if scoped else None, api=api)
            await self.clients.kubernetes.delete(where, _OPTIONS)
        except NotFound:
            raise CheckError(f"{target} doesn't exist") from None
        except Conflict as error:
            raise TransientError(str(error)) from None
        return Result(f"{target} has been deleted", objects)

    async def _api(self, event: Event, resource: str) -> tuple[str, bool]:
        """Return the ``apiVersion`` of a resource, and whether its objects are in namespaces.

        :raises CheckError: if there is no such resource, or it is not one that we delete.
        """
        uri = _GROUP.match(event.field("ka.uri"))
        group = (uri[1] or "") if uri else None
        known = _APIS.get(resource)
        # Custom kinds may be called like built-in ones: Knative has services, too.
        if known and group in (None, _group(known)):
            return known, resource not in _WITHOUT_NAMESPACE
        found = list(_custom(await self.clients.kubernetes.discover(), resource))
        if group is not None:
            found = [each for each in found if _group(each[0]) == group]
        if not found:
            raise CheckError("the resource doesn't exist or its type is not yet managed")
        if len(found) > 1:
            groups = ", ".join(api for api, _ in found)
            raise CheckError(f"there are several such resources: in {groups}")
        return found[0]


def _custom(discovered: Object, resource: str) -> Iterator[tuple[str, bool]]:
    """Yield ``apiVersion`` and scope of each custom resource of this name."""
    for group in discovered.get("items") or []:
        name = group["metadata"]["name"]
        if _BUILT_IN.fullmatch(name):
            continue
        for version in (group.get("versions") or [])[:1]:  # the preferred one comes first
            for each in version.get("resources") or []:
                if each["resource"] == resource and "delete" in (each.get("verbs") or []):
                    yield f"{name}/{version['version']}", each.get("scope") == "Namespaced"


def _named(resource: str, name: str, namespace: str = "") -> str:
    text = f"the {_singular(shown(resource))} '{shown(name)}'"
    return f"{text} in the namespace '{shown(namespace)}'" if namespace else text


def _singular(resource: str) -> str:
    if resource.endswith("ies"):
        return f"{resource[:-3]}y"
    return resource[:-2] if resource.endswith("sses") else resource.removesuffix("s")
