"""k8sevents"""

from dataclasses import dataclass
from datetime import UTC, datetime

from falco_talon.clients.kubernetes import NotFound, Object, path
from falco_talon.notifiers._lines import lines
from falco_talon.plugin import Notifier, PolicyRule
from falco_talon.report import Report

_REASON_CHARACTERS = 128
_MESSAGE_BYTES = 1024
_NAME_CHARACTERS = 253
_ELSEWHERE = "default"


class K8sEvents(Notifier):
    """Create a Kubernetes event about the pod, or else the node, that was worked on.

    It stands in the namespace of the pod, if that still exists, else in `default`; its type is
    `Warning` for a failure. It has no settings.
    """

    name = "k8sevents"
    uses = ("kubernetes",)
    permissions = (
        PolicyRule(("events",), ("create",)),
        PolicyRule(("pods", "nodes"), ("get",)),
    )
    example = """
      k8sevents: {}
    """

    async def run(self, report: Report) -> None:
        """Create it.

        :raises PluginError: if it cannot be created.
        """
        subject = _Subject.of(report)
        event = _event(report)
        if subject.namespace:
            try:
                await self._create(event, subject.namespace, await self._reference(subject))
            except NotFound:
                # The API takes events in `default` for what is in no namespace, and only those.
                subject = _Subject(subject.kind, subject.name, "")
            else:
                return
        await self._create(event, _ELSEWHERE, await self._reference(subject))

    async def _create(self, event: Object, namespace: str, reference: Object) -> None:
        await self.clients.kubernetes.post(
            path("events", namespace=namespace), {**event, "involvedObject": reference}
        )

    async def _reference(self, subject: "_Subject") -> Object:
        """Return the reference to *subject*, with its uid as long as it exists."""
        reference: Object = {
            "kind": subject.kind,
            "apiVersion": "v1",
            "name": subject.name[:_NAME_CHARACTERS],
        }
        if subject.namespace:
            reference["namespace"] = subject.namespace
        if subject.name and (subject.namespace or subject.kind == "Node"):
            try:
                found = await self.clients.kubernetes.get(subject.path)
            except NotFound:
                return reference
            reference["uid"] = found["metadata"]["uid"]
        return reference


@dataclass(frozen=True, slots=True)
class _Subject:
    """What the event is about."""

    kind: str
    name: str
    namespace: str

    @classmethod
    def of(cls, report: Report) -> "_Subject":
        pod, node = report.objects.get("pod", ""), report.objects.get("node", "")
        namespace = report.objects.get("namespace", "")
        if node and not pod:
            return cls("Node", node, "")
        return cls("Pod", pod, namespace)

    @property
    def path(self) -> str:
        if self.kind == "Node":
            return path("nodes", self.name)
        return path("pods", self.name, namespace=self.namespace)


def _event(report: Report) -> Object:
    """Return the event, all but what it is about."""
    action = report.output_target or report.actionner or report.message or "falco-talon"
    reason = f"falco-talon:{report.message}:{action}:{report.status}"
    message = lines(report).replace("\r\n", "\n").replace("'", '"')
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "falco-talon-"},
        "type": "Warning" if report.status == "failure" else "Normal",
        "reason": reason[:_REASON_CHARACTERS],
        "action": action[:_REASON_CHARACTERS],
        "message": _cut(message, _MESSAGE_BYTES),
        "source": {"component": "falco-talon"},
        "reportingComponent": "falcosecurity.org/falco-talon",
        "reportingInstance": "falco-talon",
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


def _cut(text: str, size: int) -> str:
    """Cut *text* to *size* bytes of UTF-8, never through a character."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")
