"""Streams as they are wanted, and key-value buckets, which are streams with conventions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.kv import KeyValue

from falco_talon.errors import BusError

_T = TypeVar("_T")

ANSWER_SECONDS = 2.0
"""When a write is made again: what went to a server that was killed is never answered."""

_PATIENCE_SECONDS = 30.0
_RETRY_SECONDS = 0.5
_NO_LEADER, _NO_PEERS = 10008, 10005
"""Codes by which a cluster says that it is not complete yet."""


async def settled(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask the server, again for half a minute while its cluster has not come together yet.

    Until its servers have found each other and a leader, a cluster refuses, or does not answer.
    What is asked for must be the same when it is asked twice.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + _PATIENCE_SECONDS
    while True:
        try:
            return await ask()
        except nats.js.errors.APIError as error:
            if error.err_code not in (_NO_LEADER, _NO_PEERS) or clock() > deadline:
                raise
        except TimeoutError:
            if clock() > deadline:
                raise
        await asyncio.sleep(_RETRY_SECONDS)


async def ensure(jetstream: JetStreamContext, wanted: StreamConfig) -> None:
    """Create the stream, or bring the one that is there into the shape of *wanted*.

    :raises BusError: if the server refuses that, or the stream cannot be changed so.
    """

    async def attempt() -> None:
        try:
            await jetstream.stream_info(str(wanted.name))
        except nats.js.errors.NotFoundError:
            await jetstream.add_stream(wanted)
        else:
            await jetstream.update_stream(wanted)

    try:
        await settled(attempt)
    except (nats.js.errors.APIError, nats.errors.Error, TimeoutError) as error:
        raise BusError(f"the stream {wanted.name} cannot be set up: {reason(error)}") from None


async def open_bucket(
    jetstream: JetStreamContext, name: str, description: str, *, ttl_seconds: float, replicas: int
) -> KeyValue:
    """Return the bucket, created or updated: one value a key, gone after *ttl_seconds*.

    :raises BusError: if the server refuses it.
    """
    await ensure(
        jetstream,
        StreamConfig(
            name=f"KV_{name}",
            description=description,
            subjects=[f"$KV.{name}.>"],
            max_msgs_per_subject=1,
            max_age=ttl_seconds,
            # The default of two minutes must not be longer than what the bucket holds.
            duplicate_window=min(ttl_seconds, 120),
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            allow_rollup_hdrs=True,
            allow_direct=True,
            deny_delete=True,
            num_replicas=replicas,
        ),
    )
    try:
        return await settled(lambda: jetstream.key_value(name))
    except (nats.js.errors.Error, nats.errors.Error, TimeoutError) as error:
        raise BusError(f"the bucket {name} cannot be opened: {reason(error)}") from None


async def entries(bucket: KeyValue) -> AsyncIterator[KeyValue.Entry]:
    """Give every entry of the bucket, in the order they were written.

    :raises BusError: if they cannot be read.
    """
    try:
        watcher = await bucket.watchall(ignore_deletes=True)
        try:
            async for entry in watcher:
                if entry is None:  # those were all that there are now
                    break
                yield entry
        finally:
            await watcher.stop()  # type: ignore[no-untyped-call]
    except (nats.js.errors.Error, nats.errors.Error, TimeoutError) as error:
        raise BusError(f"a bucket cannot be read: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Return why the server or the way to it failed, in words."""
    return str(getattr(error, "description", None) or "") or str(error) or type(error).__name__
