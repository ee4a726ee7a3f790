"""``talon events dead``, on a real nats-server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client
from typer.testing import CliRunner

from falco_talon.bus import DeadLetters, EmbeddedServer, Stream
from falco_talon.bus.dead import DeadLetter
from falco_talon.cli import app
from falco_talon.event import Event

Talon = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def talon(nats_server: EmbeddedServer, tmp_path: Path) -> Talon:
    """Run a command on the store of the running server; return exit code and output."""
    config = tmp_path / "config.yaml"
    config.write_text(f"nats: {{store_dir: '{nats_server.store_dir}'}}\n")

    async def run(*words: str) -> tuple[int, str]:
        command = ["-c", str(config), "events", "dead", *words]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        return result.exit_code, result.output + str(result.exception or "")

    return run


@pytest.fixture
async def letters(connection: Client, stream: Stream) -> list[Event]:
    """Give two events up; the text of the second is an attack on the terminal."""
    dead = DeadLetters(connection)
    await dead.open()
    events = [Event(rule="A", output="a"), Event(rule="B\x1b[2J", output="b\nreason: x")]
    for event in events:
        await dead.bury(
            DeadLetter(
                subject=f"EVENTS.{event.output_hash}",
                data=event.to_json(),
                headers={"traceparent": "t"},
                key=event.output,
                reason="interrupted",
                attempts=5,
                error="boom",
                accepted=datetime(2026, 1, 2, tzinfo=UTC),
            )
        )
    return events


@pytest.mark.usefixtures("letters")
async def test_list(talon: Talon) -> None:
    """One line each, for a terminal that nothing can harm; or JSON."""
    code, text = await talon("list")
    assert code == 0
    first, second = text.splitlines()
    assert first == "1 2026-01-02T00:00:00+00:00 interrupted attempts=5 rule='A' boom"
    assert "\x1b" not in second

    code, text = await talon("list", "--format", "json")
    assert [(line["number"], line["rule"]) for line in json.loads(text)] == [
        (1, "A"),
        (2, "B\x1b[2J"),
    ]


@pytest.mark.usefixtures("letters")
async def test_show(talon: Talon) -> None:
    """All that is known of one letter, and its event."""
    code, text = await talon("show", "1")
    assert code == 0
    assert "reason:     interrupted" in text
    assert '"rule": "A"' in text
    _, text = await talon("show", "2", "--format", "json")
    assert json.loads(text)["event"]["output"] == "b\nreason: x"


async def test_replay(
    talon: Talon, connection: Client, stream: Stream, letters: list[Event]
) -> None:
    """The event is on the bus again though an equal one was stored within the window."""
    assert await stream.publish(letters[0], {})

    assert await talon("replay", "1") == (0, "dead letter 1 is on the bus again\n")

    info = await connection.jetstream().stream_info("EVENTS")
    assert info.state.messages == 2
    message = await connection.jetstream().get_msg("EVENTS", 2)
    assert message.data == letters[0].to_json()
    assert message.headers is not None
    assert message.headers["traceparent"] == "t"
    assert "Talon-Reason" not in message.headers
    _, text = await talon("list")
    assert [line[0] for line in text.splitlines()] == ["2"]


@pytest.mark.usefixtures("letters")
async def test_drop(talon: Talon) -> None:
    """Numbers, or all; a number that does not exist drops none."""
    code, text = await talon("drop", "1", "7")
    assert code == 1
    assert "there is no dead letter 7" in text
    assert (await talon("drop", "1"))[0] == 0
    assert (await talon("drop", "--all"))[0] == 0
    assert await talon("list") == (0, "there are no dead letters\n")
    code, text = await talon("drop")
    assert (code, "their numbers, or --all" in text) == (1, True)


async def test_without_a_daemon(tmp_path: Path) -> None:
    """The error says where it looked."""
    (tmp_path / "config.yaml").write_text(f"nats: {{store_dir: '{tmp_path}'}}\n")
    command = ["-c", str(tmp_path / "config.yaml"), "events", "dead", "list"]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 1
    assert f"no daemon runs on '{tmp_path}' (nats.store_dir)" in str(result.exception)


def test_help_has_examples() -> None:
    """Each command shows how it is used."""
    for command in ("list", "show", "replay", "drop"):
        text = CliRunner().invoke(app, ["events", "dead", command, "--help"]).output
        assert f"talon events dead {command}" in text
