"""The pod of the demo, in a namespace of its own that goes away with it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from falco_talon.clients import Clients
from falco_talon.clients.kubernetes import path
from falco_talon.errors import PluginError, TalonError

_CREATE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DemoPod:
    """A pod that the daemon of the demo works on."""

    clients: Clients
    namespace: str
    name: str = "web"

    async def labels(self) -> dict[str, str]:
        """Read its labels back."""
        pod = await self.clients.kubernetes.get(path("pods", self.name, namespace=self.namespace))
        labels: dict[str, str] = pod["metadata"]["labels"]
        return labels

    async def create(self) -> None:
        """Create it, as soon as the namespace has its service account.

        :raises TalonError: if the cluster does not let us.
        """
        spec = {
            "containers": [{"name": "web", "image": "registry.k8s.io/pause:3.10"}],
            "terminationGracePeriodSeconds": 0,
        }
        pod = {"metadata": {"name": self.name, "labels": {"app": "web"}}, "spec": spec}
        deadline = asyncio.get_running_loop().time() + _CREATE_SECONDS
        while True:
            try:
                await self.clients.kubernetes.post(path("pods", namespace=self.namespace), pod)
            except PluginError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise TalonError(f"the demo cannot create its pod: {error}") from None
                await asyncio.sleep(0.2)
            else:
                return


@asynccontextmanager
async def demo_pod(kubeconfig: str) -> AsyncIterator[DemoPod]:
    """Create a namespace and a pod in the cluster of *kubeconfig*; delete both at the end.

    :raises TalonError: if that cluster cannot be used.
    """
    async with Clients(kubeconfig=kubeconfig) as clients:
        await clients.ready({"kubernetes"})
        pod = DemoPod(clients, f"talon-demo-{os.urandom(3).hex()}")
        api = clients.kubernetes
        try:
            await api.post(path("namespaces"), {"metadata": {"name": pod.namespace}})
        except PluginError as error:
            raise TalonError(f"the demo cannot create a namespace: {error}") from None
        try:
            await pod.create()
            yield pod
        finally:
            await api.delete(path("namespaces", pod.namespace))
