"""Evictions: many at once, in respect of PodDisruptionBudgets, and the wait for what they end."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from falco_talon.actionners.kubernetes._departures import Departures
from falco_talon.clients.kubernetes import Conflict, Kubernetes, NotFound, Object, path
from falco_talon.errors import PluginError, TransientError
from falco_talon.plugin import Tell

_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 10.0
_PROGRESS_SECONDS: Final = 5.0
_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Eviction:
    """How to evict the pods of a node; *seconds* is how long to try and to wait, 0 not at all."""

    node: str
    grace_period_seconds: int | None
    seconds: float
    not_awaited: frozenset[str]
    """Namespaces whose pods are not waited for."""
    parallel: int


@dataclass(slots=True)
class Outcome:
    """What came of it: the pods that were evicted, what was refused, what is still there."""

    evicted: set[str] = field(default_factory=set)
    """By uid."""
    refused: list[str] = field(default_factory=list)
    """In words, as ``staying``."""
    staying: list[str] = field(default_factory=list)


async def evict(
    kubernetes: Kubernetes, pods: Sequence[Object], eviction: Eviction, version: str, tell: Tell
) -> Outcome:
    """Evict *pods*, in this order, which were listed at resource *version*.

    :raises PluginError: if the pods cannot be watched that are to be waited for.
    """
    departures = Departures(kubernetes, eviction.node, {pod["metadata"]["uid"] for pod in pods})
    evictor = _Evictor(kubernetes, eviction, tell)
    awaited: dict[str, str] = {}
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(evictor.progress(len(pods), departures))]
        if eviction.seconds:
            beside.append(tasks.create_task(departures.follow(version)))
        async with asyncio.TaskGroup() as evictions:
            for pod in pods:
                evictions.create_task(evictor.evict(pod))
        if eviction.seconds:
            awaited = evictor.awaited(pods)
            await departures.wait_for(awaited.keys(), evictor.deadline - time.monotonic())
        for task in beside:
            task.cancel()
    if departures.fault:
        raise departures.fault
    for uid in awaited.keys() - departures.gone:
        text = f"pod '{awaited[uid]}' did not terminate within the max_wait_period"
        evictor.outcome.staying.append(text)
    for text in evictor.outcome.staying[:_LINES]:
        tell(text)
    return evictor.outcome


async def evict_one(
    kubernetes: Kubernetes, pod: Object, *, grace_period_seconds: int | None, seconds: float
) -> None:
    """Evict *pod*, trying again for *seconds* while a budget forbids it.

    :raises PluginError: with the last refusal.
    """
    eviction = Eviction("", grace_period_seconds, seconds, frozenset(), 1)
    await _Evictor(kubernetes, eviction, lambda text: None).insist(pod)


class _Evictor:
    def __init__(self, kubernetes: Kubernetes, eviction: Eviction, tell: Tell) -> None:
        self.outcome = Outcome()
        self.deadline = time.monotonic() + eviction.seconds
        self._kubernetes = kubernetes
        self._eviction = eviction
        self._tell = tell
        self._slots = asyncio.Semaphore(eviction.parallel)

    def awaited(self, pods: Sequence[Object]) -> dict[str, str]:
        """Return the names of the pods to wait for, by uid."""
        found = [pod["metadata"] for pod in pods if pod["metadata"]["uid"] in self.outcome.evicted]
        passed_over = self._eviction.not_awaited
        return {each["uid"]: each["name"] for each in found if each["namespace"] not in passed_over}

    async def progress(self, number: int, departures: Departures) -> None:
        """Tell how far it is, every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            evicted = self.outcome.evicted
            gone = len(evicted & departures.gone)
            self._tell(f"{len(evicted)} of {number} pods evicted, {gone} of them are gone")

    async def evict(self, pod: Object) -> None:
        """Evict *pod*, and note what came of it."""
        metadata = pod["metadata"]
        try:
            await self.insist(pod)
        except PluginError as error:
            text = f"error evicting pod '{metadata['name']}': {error}"
            self.outcome.refused.append(text)
            if len(self.outcome.refused) <= _LINES:
                self._tell(text)
        else:
            self.outcome.evicted.add(metadata["uid"])

    async def insist(self, pod: Object) -> None:
        """Evict *pod*, trying again while a budget forbids it and there is time.

        :raises PluginError: with the last refusal.
        """
        attempt = 0
        while refused := await self._refusal(pod):
            attempt += 1
            asked = refused.retry_after if isinstance(refused, TransientError) else None
            pause = max(_PAUSE_SECONDS, asked or 0)
            # A budget forbids as long as it lasts; other faults may be over in a moment.
            hopeless = "disruption budget" in str(refused) or pause > _LONGEST_PAUSE_SECONDS
            in_time = time.monotonic() + pause < self.deadline
            if not in_time and (hopeless or attempt >= _ATTEMPTS):
                raise PluginError(str(refused))  # tried enough, whoever asks
            await asyncio.sleep(pause)

    async def _refusal(self, pod: Object) -> PluginError | None:
        """Ask for the eviction once; return the refusal if it may pass.

        :raises PluginError: if it will not.
        """
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        options: Object = {"preconditions": {"uid": metadata["uid"]}}
        if self._eviction.grace_period_seconds is not None:
            options["gracePeriodSeconds"] = self._eviction.grace_period_seconds
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        try:
            async with self._slots:  # not during the pauses: a budget holds nobody else up
                await self._kubernetes.post(
                    path("pods", name, namespace=namespace, subresource="eviction"), body
                )
        except NotFound:
            return None
        except Conflict as error:
            return None if await self._is_another(pod) else error
        except TransientError as error:
            return error
        except PluginError as error:
            if "is being terminated" not in str(error):  # its namespace is: it goes with that
                raise
        return None

    async def _is_another(self, pod: Object) -> bool:
        """Whether *pod* is gone, or its name belongs to another one by now."""
        metadata = pod["metadata"]
        where = path("pods", metadata["name"], namespace=metadata["namespace"])
        try:
            return bool((await self._kubernetes.get(where))["metadata"]["uid"] != metadata["uid"])
        except NotFound:
            return True
        except TransientError:
            return False
