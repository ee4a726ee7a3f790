"""kubernetes:log, from real containers."""

from typing import Any

import pytest
from pydantic import ValidationError

from falco_talon.actionners.kubernetes.log import Log
from falco_talon.clients import Clients
from falco_talon.errors import CheckError, PluginError
from falco_talon.event import Event
from falco_talon.plugin import Artifact, Result
from tests.actionners.conftest import Running, about


async def fetch(clients: Clients, event: Event, **parameters: Any) -> Result:
    """Check and run it, as the engine does."""
    plugin = Log(Log.Parameters.model_validate(parameters), clients)
    await plugin.check(event)
    return await plugin.run(event)


async def test_ac_33_each_container(clients: Clients, running: Running) -> None:
    """Without a container in the event all are fetched, each under its name."""
    result = await fetch(clients, running.about())
    objects = {"pod": "web", "namespace": running.namespace, "container": "web,other"}
    data = b"==> web <==\nI am web\n==> other <==\nI am other\n"
    text = f"the logs for the pod 'web' in the namespace '{running.namespace}' has been downloaded"
    assert result == Result(text, objects, Artifact("log", data, objects))


async def test_ac_33_one_container(clients: Clients, running: Running) -> None:
    """The container of the parameter, or of the event, is fetched alone and named."""
    for event, parameters in (
        (running.about(), {"container": "other"}),
        (running.about(**{"container.name": "other"}), {}),
    ):
        result = await fetch(clients, event, **parameters)
        assert result.artifact
        assert (result.artifact.name, result.artifact.data) == ("other.log", b"I am other\n")
        assert result.objects["container"] == "other"
    with pytest.raises(CheckError, match="no container 'absent'"):
        await fetch(clients, running.about(), container="absent")


async def test_lines_bytes_and_runs(clients: Clients, running: Running) -> None:
    """The last lines, the newest ones, the run before, binary and long logs; and nothing."""
    command = (
        "if [ -e /kept/again ]; then echo second; exec sleep 3600; fi; touch /kept/again;"
        " for n in $(seq 30); do echo line $n; done; printf '\\377\\000\\n'"
    )
    mounts = [{"name": "kept", "mountPath": "/kept"}]
    containers = [
        {"name": "web", "image": "busybox:latest", "command": ["sh", "-c", command],
         "volumeMounts": mounts},
        {"name": "silent", "image": "busybox:latest", "command": ["sleep", "3600"]},
    ]  # fmt: skip
    running.cluster.create_pod(
        running.namespace,
        "again",
        containers=containers,
        volumes=[{"name": "kept", "emptyDir": {}}],
    )

    def restarted() -> bool:
        pod = running.cluster.pod(running.namespace, "again")
        found = {each["name"]: each for each in pod["status"].get("containerStatuses") or []}
        return bool(found and found["web"]["restartCount"] and "running" in found["web"]["state"])

    running.cluster.wait_for(restarted, what="the second run")
    event = about(running.namespace, "again")

    async def data(**parameters: Any) -> bytes:
        artifact = (await fetch(clients, event, container="web", **parameters)).artifact
        assert artifact
        return artifact.data

    assert await data() == b"second\n"
    before = await data(previous=True)
    assert before.splitlines()[0] == b"line 12"
    assert before.endswith(b"line 30\n\xff\x00\n")
    assert await data(previous=True, tail_lines=0) == before
    assert await data(previous=True, tail_lines=2) == b"line 30\n\xff\x00\n"
    assert await data(previous=True, tail_lines=100, since="1h") != b""
    cut = await fetch(clients, event, container="web", previous=True, max_bytes=10)
    assert cut.artifact
    assert cut.artifact.data == b"line 12\nli"
    assert cut.text.endswith("has been downloaded (truncated to 10 bytes)")
    with pytest.raises(PluginError, match="previous terminated container"):
        await fetch(clients, event, container="silent", previous=True)
    result = await fetch(clients, event, previous=True)
    assert result.objects["container"] == "web"
    assert "has been downloaded; container 'silent': previous terminated container" in result.text
    result = await fetch(clients, event, container="silent")
    assert result.artifact is None
    assert result.text.endswith("are empty")


async def test_missing_pod(clients: Clients, running: Running) -> None:
    """A pod that is not there is an error of the event."""
    with pytest.raises(CheckError, match="the pod 'absent' .* doesn't exist"):
        await fetch(clients, about(running.namespace, "absent"))


@pytest.mark.parametrize(
    ("given", "seconds"), [("90", 90), ("10m", 600), ("2h", 7200), (5, 5), ("", None)]
)
def test_since(given: Any, seconds: int | None) -> None:
    """A duration is a number of seconds, or has a unit."""
    assert Log.Parameters.model_validate({"since": given}).since == seconds


@pytest.mark.parametrize(
    "parameters",
    [{"tail_lines": -1}, {"since": "soon"}, {"since": -1}, {"max_bytes": 0}],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any]) -> None:
    """Values that mean nothing stop the load of the rules."""
    with pytest.raises(ValidationError):
        Log.Parameters.model_validate(parameters)
