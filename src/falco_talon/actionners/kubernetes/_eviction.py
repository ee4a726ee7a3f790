"""Evictions: many at once, in respect of PodDisruptionBudgets, and the wait for what they end."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from falco_talon.clients.kubernetes import Conflict, Kubernetes, NotFound, Object, path
from falco_talon.errors import PluginError, TransientError

_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Eviction:
    """How to evict the pods of a node; *seconds* is how long to try and to wait, 0 not at all."""

    node: str
    grace_period_seconds: int | None
    seconds: float
    not_awaited: frozenset[str]
    """Namespaces whose pods are not waited for."""
    parallel: int


async def evict(
    kubernetes: Kubernetes, pods: Sequence[Object], eviction: Eviction, version: str
) -> tuple[list[str], list[str]]:
    """Evict *pods*, which were listed at resource *version*.

    :returns: what was refused, and what is still there after the wait, in words.
    """
    deadline = time.monotonic() + eviction.seconds
    slots = asyncio.Semaphore(eviction.parallel)
    refused: list[str] = []
    awaited: dict[str, str] = {}
    left = asyncio.Event()
    gone: set[str] = set()

    async def one(pod: Object) -> None:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        try:
            async with slots:
                await _evict(kubernetes, pod, eviction, deadline)
        except PluginError as error:
            refused.append(f"pod '{name}' in the namespace '{namespace}': {error}")
            return
        if eviction.seconds and namespace not in eviction.not_awaited:
            awaited[metadata["uid"]] = f"pod '{name}' in the namespace '{namespace}' is still there"

    async with asyncio.TaskGroup() as tasks:
        uids = {pod["metadata"]["uid"] for pod in pods}
        watch = tasks.create_task(_watch(kubernetes, eviction.node, version, uids, gone, left))
        async with asyncio.TaskGroup() as evictions:
            for pod in pods:
                evictions.create_task(one(pod))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                while not gone.issuperset(awaited):
                    left.clear()
                    await left.wait()
        watch.cancel()
    return refused, [text for uid, text in awaited.items() if uid not in gone]


async def _evict(kubernetes: Kubernetes, pod: Object, eviction: Eviction, deadline: float) -> None:
    """Ask for the eviction, again while a budget forbids it and there is time.

    :raises PluginError: if it is refused to the end.
    """
    metadata = pod["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    options: Object = {"preconditions": {"uid": metadata["uid"]}}
    if eviction.grace_period_seconds is not None:
        options["gracePeriodSeconds"] = eviction.grace_period_seconds
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }
    where = path("pods", name, namespace=namespace, subresource="eviction")
    for attempt in range(1, 1_000_000):
        try:
            await kubernetes.post(where, body)
        except (NotFound, Conflict):
            return  # it is gone, or another one has its name
        except TransientError as error:
            pause = _PAUSE_SECONDS
            in_time = time.monotonic() + pause < deadline
            # A budget forbids as long as it lasts; other faults may be over in a moment.
            if not in_time and ("disruption budget" in str(error) or attempt >= _ATTEMPTS):
                raise
            await asyncio.sleep(pause)
        else:
            return


async def _watch(
    kubernetes: Kubernetes,
    node: str,
    version: str,
    uids: set[str],
    gone: set[str],
    left: asyncio.Event,
) -> None:
    """Put those of *uids* whose pods leave the node into *gone*, and say so by *left*."""
    selector = f"spec.nodeName={node}"
    while True:
        try:
            async with aclosing(
                kubernetes.watch(path("pods"), fieldSelector=selector, resourceVersion=version)
            ) as changes:
                async for change in changes:
                    uid = change["object"]["metadata"]["uid"]
                    version = change["object"]["metadata"]["resourceVersion"]
                    if change["type"] == "DELETED":
                        gone.add(uid)
                        left.set()
        except PluginError:  # it has been lost, or lasted longer than the server remembers
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                found = await kubernetes.get(path("pods"), fieldSelector=selector)
            except PluginError:
                continue
            version = found["metadata"]["resourceVersion"]
            gone |= uids - {pod["metadata"]["uid"] for pod in found["items"]}
            left.set()
