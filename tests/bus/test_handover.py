"""Events that wait here go to another replica, between two real nats-servers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client

from falco_talon.bus import Journal, Peers, Progress, Stream
from falco_talon.bus.handover import HandOver
from falco_talon.bus.link import Link
from falco_talon.event import Event
from tests.bus.fixtures import consuming, open_stream
from tests.bus.replicas import SECRET, Leader, stored, usable


@asynccontextmanager
async def leaving(
    connection: Client, leader: Leader, *, window_seconds: float = 60
) -> AsyncIterator[HandOver]:
    """Be the replica that goes."""
    link = Link(Peers.derive(4222, SECRET))
    link.follow(leader.where)
    async with asyncio.TaskGroup() as tasks:
        journal = Journal(connection, tasks)
        await journal.open()
        running = tasks.create_task(link.run())
        await usable(link)
        yield HandOver(connection, link, journal, window_seconds=window_seconds)
        running.cancel()
        journal.close()


async def outputs(client: Client) -> list[str]:
    jetstream, found = client.jetstream(), []
    for sequence in range(1, (await stored(client)) + 1):
        message = await jetstream.get_msg("EVENTS", sequence)
        found.append(Event.from_message(message.data or b"").output)
    return found


async def test_all_go_in_their_order(connection: Client, stream: Stream, leader: Leader) -> None:
    """With their headers; our own stream is empty then, though it takes no more."""
    names = [str(number) for number in range(250)]
    for name in names:
        await stream.publish(Event(output=name), {"traceparent": f"t{name}"})
    await stream.close()

    async with leaving(connection, leader) as work:
        assert await work.waiting() == 250
        assert await work.run() == 250
        assert await work.waiting() == 0

    assert await outputs(leader.client) == names
    message = await leader.client.jetstream().get_msg("EVENTS", 7)
    assert (message.headers or {})["traceparent"] == "t6"
    assert (message.headers or {})["Nats-Msg-Id"] == Event(output="6").output_hash


async def test_what_the_leader_knows_is_not_stored_twice(
    connection: Client, stream: Stream, leader: Leader
) -> None:
    """Equal events of two replicas that knew nothing of each other act once."""
    await stream.publish(Event(output="a"), {})
    await leader.stream.publish(Event(output="a"), {})

    async with leaving(connection, leader) as work:
        await work.waiting()
        assert await work.run() == 1

    assert (await stored(connection), await stored(leader.client)) == (0, 1)


async def test_legitimate_repeats_stay_two(connection: Client, leader: Leader) -> None:
    """Equal events accepted in different windows wait together, and both act."""
    stream = await open_stream(connection, window_seconds=1)
    await stream.publish(Event(output="a"), {})
    async with asyncio.timeout(5):
        while not await stream.publish(Event(output="a"), {}):
            await asyncio.sleep(0.1)

    async with leaving(connection, leader, window_seconds=1) as work:
        await work.waiting()
        assert await work.run() == 2

    assert await outputs(leader.client) == ["a", "a"]


async def test_what_is_not_taken_stays(connection: Client, stream: Stream, leader: Leader) -> None:
    """A leader that refuses gets nothing, and nothing is lost."""
    for name in ("a", "b"):
        await stream.publish(Event(output=name), {})
    await leader.stream.close()

    async with leaving(connection, leader) as work:
        await work.waiting()
        assert await work.run() == 0

    assert await outputs(connection) == ["a", "b"]


async def test_a_begun_event_goes_on_after_its_last_action(
    connection: Client, stream: Stream, leader: Leader
) -> None:
    """What was done here is known there, as are the attempts and the age."""
    await stream.publish(Event(output="a"), {})
    begun = asyncio.Event()

    async def interrupted(event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        await progress.begin()
        progress.finished("rule", 0, "failure")
        await progress.save()
        begun.set()
        await asyncio.Event().wait()
        return True

    async with consuming(connection, interrupted, grace_seconds=0):
        async with asyncio.timeout(5):
            await begun.wait()
    accepted = (await connection.jetstream().get_msg("EVENTS", 1)).time
    async with leaving(connection, leader) as work:
        await work.waiting()
        assert await work.run() == 1

    seen: list[tuple[int, str | None, str | None]] = []

    async def again(event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        await progress.begin()
        seen.append((progress.attempt, progress.status("rule", 0), progress.status("rule", 1)))
        await progress.end()
        return True

    message = await leader.client.jetstream().get_msg("EVENTS", 1)
    assert accepted is not None
    since = float((message.headers or {})["Talon-Accepted-At"])
    assert since == pytest.approx(accepted.timestamp(), abs=0.001)
    async with consuming(leader.client, again):
        async with asyncio.timeout(5):
            while not seen:
                await asyncio.sleep(0.01)
    assert seen == [(2, "failure", None)]


async def test_the_age_counts_from_the_first_replica(
    connection: Client, stream: Stream, leader: Leader
) -> None:
    """An event does not grow young by being handed over."""
    await stream.publish(Event(output="a"), {})
    await asyncio.sleep(1.1)
    async with leaving(connection, leader) as work:
        await work.waiting()
        await work.run()
    handled: list[bool] = []

    async def handle(event: Event, headers: Mapping[str, str], progress: Progress) -> bool:
        handled.append(await progress.begin())
        return True

    async with consuming(leader.client, handle, retention_seconds=1):
        async with asyncio.timeout(5):
            while not handled:
                await asyncio.sleep(0.01)
    assert handled == [False]
    dead = await leader.client.jetstream().get_msg("EVENTS_DEAD", 1)
    assert (dead.headers or {})["Talon-Reason"] == "expired"
