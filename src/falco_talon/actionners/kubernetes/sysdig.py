"""kubernetes:sysdig"""

import math
import re
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._capture import (
    CaptureParameters,
    capture,
    flaws,
    sleeper,
    wait_until_runs,
)
from falco_talon.actionners.kubernetes._commands import EXEC
from falco_talon.actionners.kubernetes._containers import container_ids
from falco_talon.actionners.kubernetes._pod import Pod, PodActionner
from falco_talon.clients.kubernetes import NotFound, Object, path
from falco_talon.clients.pod_exec import Command
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, PolicyRule, Result
from falco_talon.retry import retrying

_NAME: Final = "falco-talon-sysdig"
_FILE: Final = "sysdig.scap.gz"
_API: Final = "batch/v1"
_WITHOUT_NAMESPACE: Final = "falco"
_TTL_SECONDS: Final = 60
_SHORT_ID: Final = 12
_ID: Final = re.compile(r"[A-Za-z0-9]{1,12}")
# What sysdig says while it works is no part of the capture.
_CAPTURE: Final = 'cd /tmp && f=$1 && shift && "$@" >&2 && exec cat "$f"'
_LABELS: Final = {
    "app.kubernetes.io/managed-by": "falco-talon",
    "app.kubernetes.io/name": _NAME,
    "app.kubernetes.io/part-of": "falco-talon",
}


def _or_default(default: object) -> BeforeValidator:
    """Take 0 and nothing for the default, as the reference does."""
    return BeforeValidator(lambda given: given or default)


def _check_namespace(text: str) -> str:
    try:
        path("jobs", namespace=text or _WITHOUT_NAMESPACE)
    except NotFound:
        raise PydanticCustomError("namespace", "no namespace can have such a name") from None
    return text


class Sysdig(PodActionner):
    """Capture the system calls of the pod, or of its whole node.

    A job runs sysdig, with the modern eBPF probe, on the node of the pod: not in the namespace of
    the pod but in that of Falco Talon. Its container is privileged, runs as root and sees the
    file system of the node at `/host`, read-only; nothing less loads a probe. The job is deleted
    after the capture, whatever comes of it. Should Falco Talon die meanwhile, the container ends by
    itself, and Kubernetes deletes the job a minute later.
    """

    name = "kubernetes:sysdig"
    source = ("syscalls", "k8s_audit")
    continue_ = False
    artifact = "always"
    required_output_fields = (
        "k8s.ns.name, k8s.pod.name",
        "ka.target.namespace, (ka.target.pod.name or ka.target.name)",
    )
    permissions = (
        PolicyRule(("pods",), ("get",)),
        PolicyRule(("pods",), ("watch",), own_namespace=True),
        replace(EXEC, own_namespace=True),
        PolicyRule(("jobs",), ("create", "delete"), ("batch",), own_namespace=True),
    )
    example = """
      - action: Capture system calls
        actionner: kubernetes:sysdig
        parameters:
          duration: 10
          buffer_size: 1024
          scope: pod
        output:
          target: local:file
          parameters:
            destination: /var/lib/falco-talon
    """

    class Parameters(CaptureParameters):
        """What to capture."""

        duration: Annotated[int, _or_default(5)] = Field(
            5, ge=1, le=30, description="Seconds of the capture; 0 means 5. Default: 5."
        )
        buffer_size: Annotated[int, _or_default(2048)] = Field(
            2048,
            ge=128,
            le=65535,
            description="Bytes of each buffer that is read or written (sysdig's snaplen);"
            " 0 means 2048. Default: 2048.",
        )
        scope: Annotated[Literal["pod", "node"], _or_default("pod")] = Field(
            "pod", description="What is captured: `pod` or `node`. Default: `pod`."
        )
        image: Annotated[str, _or_default("issif/sysdig:latest")] = Field(
            "issif/sysdig:latest",
            description="Image, with sysdig, a shell, cat and sleep."
            " Default: `issif/sysdig:latest`.",
        )
        namespace: Annotated[str, AfterValidator(_check_namespace)] = Field(
            "",
            description="Namespace of the job. Default: the one that Falco Talon runs in, `falco`"
            " outside of the cluster.",
        )
        cri_socket: str = Field(
            "/run/containerd/containerd.sock",
            pattern=r"^/[^\x00]*$",
            description="Path of the container runtime's socket on the node."
            " Default: `/run/containerd/containerd.sock`.",
        )

    parameters: Parameters

    @property
    def duration_seconds(self) -> float:
        """The capture and the start of its job."""
        return self.parameters.duration + self.parameters.ready_timeout_seconds

    def needs(self, known: Mapping[str, Collection[str]]) -> tuple[PolicyRule, ...]:
        """Return the permissions; in the whole cluster if the job is in another namespace."""
        if not self.parameters.namespace:
            return self.permissions
        return tuple(replace(rule, own_namespace=False) for rule in self.permissions)

    async def run(self, event: Event) -> Result:
        """Start the job, capture, and delete it.

        :raises PluginError: if the job does not start or the capture fails.
        """
        kubernetes, pod, parameters = self.clients.kubernetes, Pod.of(event), self.parameters
        found = await self.get(pod)
        words = self._words(pod, found)
        job = f"{_NAME}-{secrets.token_hex(3)[:5]}"
        body = self._job(job, _node(pod, found))
        namespace = parameters.namespace or kubernetes.own_namespace or _WITHOUT_NAMESPACE
        try:
            await kubernetes.post(path("jobs", namespace=namespace, api=_API), body)
            running = await wait_until_runs(
                kubernetes,
                path("pods", namespace=namespace),
                {"labelSelector": f"batch.kubernetes.io/job-name={job}"},
                _status,
                seconds=parameters.ready_timeout_seconds,
                what=f"the job '{job}' in the namespace '{namespace}' for the sysdig capture is",
            )
            outcome = await capture(
                kubernetes,
                path("pods", running["metadata"]["name"], namespace=namespace),
                _NAME,
                Command(
                    words, limit=parameters.max_bytes, end_at_limit=True, seal=secrets.token_hex(8)
                ),
                parameters.duration + parameters.margin_seconds / 2,
            )
        finally:
            await self._delete(job, namespace)
        objects = {**pod.objects, "job": job}
        text = f"a sysdig capture '{_FILE}' has been created{flaws(outcome)}"
        return Result(text, objects, Artifact(_FILE, outcome.stdout, objects))

    def _words(self, pod: Pod, found: Object) -> list[str]:
        """Return the command: one that captures, then hands the file over."""
        parameters = self.parameters
        words = ["/bin/sh", "-c", _CAPTURE, "sh", _FILE, "sysdig", "--modern-bpf"]
        words += ["--cri", parameters.cri_socket, "-M", str(parameters.duration)]
        words += ["-s", str(parameters.buffer_size), "-z", "-w", _FILE]
        if parameters.scope == "pod":
            short = [identity[:_SHORT_ID] for _, identity in container_ids(found)]
            ids = [identity for identity in short if _ID.fullmatch(identity)]
            if not ids:
                raise CheckError(f"{pod} has no container that has been started")
            words.append(f"container.id in ({', '.join(ids)})")
        return words

    def _job(self, name: str, node: str) -> Object:
        parameters = self.parameters
        lifetime = parameters.duration + parameters.margin_seconds
        container = {
            "name": _NAME,
            "image": parameters.image,
            "imagePullPolicy": parameters.image_pull_policy,
            "command": sleeper(lifetime),
            "env": [{"name": "HOST_ROOT", "value": "/host"}],
            "securityContext": parameters.security_context or {"privileged": True, "runAsUser": 0},
            "volumeMounts": [{"name": "host-fs", "mountPath": "/host", "readOnly": True}],
        }
        pod = {
            # Past the scheduler: nodes are captured that take no new pods.
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "host-fs", "hostPath": {"path": "/"}}],
        }
        return {
            "apiVersion": _API,
            "kind": "Job",
            "metadata": {"name": name, "labels": _LABELS},
            "spec": {
                "activeDeadlineSeconds": math.ceil(parameters.ready_timeout_seconds) + lifetime,
                "ttlSecondsAfterFinished": _TTL_SECONDS,
                "backoffLimit": 0,
                "completions": 1,
                "template": {"metadata": {"labels": _LABELS}, "spec": pod},
            },
        }

    async def _delete(self, job: str, namespace: str) -> None:
        """Delete the job and its pod. If that fails, Kubernetes does it when the time is over."""
        where = path("jobs", job, namespace=namespace, api=_API)
        with suppress(PluginError):
            await retrying(
                self.clients.kubernetes.delete, where, {"propagationPolicy": "Background"}
            )


def _node(pod: Pod, found: Object) -> str:
    name = found["spec"].get("nodeName")
    if not name:
        raise PluginError(f"{pod} is not on a node yet")
    return str(name)


def _status(pod: Object) -> dict[str, Any] | None:
    statuses = pod["status"].get("containerStatuses") or []
    return next((each for each in statuses if each["name"] == _NAME), None)
