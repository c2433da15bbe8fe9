"""The way to the control plane: where it is, a connection to it, and another one when that is lost.

A control plane that is away, hangs or talks nonsense must never disturb serving: every failure here ends in a log
line (one for each change, not for each attempt) and a further attempt.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read at import; its C code would write to stderr past our log

import grpc
import grpc.aio

from ccr_data.shell.logs import Log
from ccr_data.shell.node_tls import NodeTls, TlsUnusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_MESSAGE_BYTES = 64 << 20
MOVED_CHECK_S = 1.0
KNOCK_WITHIN_S = 5.0

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_http_proxy", 0),  # the environment's proxy is for what is not ours
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # how long an attempt may take: a busy machine is no reason to begin anew
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel must not inherit the back-off of the one before
)

Stream = grpc.aio.StreamStreamCall[bytes, bytes]

log = Log("control")


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """Where the control plane listens, and what opens that door."""

    target: str  # "unix:/path" or "host:port"
    token: str = field(default="", repr=False)  # empty on the private socket
    tls: NodeTls | None = None  # of a control plane on another machine


FindControl = Callable[[], ControlAddress | None]


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """How patient a node is with its control plane."""

    silence_s: float = 15.0  # without a word on the watch stream: heartbeats come every 5 s
    acknowledge_s: float = 10.0  # for a batch
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0
    first_wait_s: float = 2.0  # in which a control plane that is starting beside the node is not called away


PATIENT = LinkPolicy()


class LinkLost(Exception):
    """The connection is of no use any more; the message says why."""


def control_address(state_dir: Path) -> ControlAddress | None:
    """What a control plane wrote when it was ready; None if none ever was."""
    try:
        target = (state_dir / "control.address").read_text("utf-8").strip()
        if not target or target.startswith("unix:"):
            return ControlAddress(target) if target else None
        return ControlAddress(target, (state_dir / "control.token").read_text("utf-8").strip())
    except (OSError, ValueError):
        return None


class Link:
    """One connection to the control plane."""

    def __init__(self, channel: grpc.aio.Channel, token: str, say_alive: Callable[[], None]) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.say_alive = say_alive  # to be called when the control plane has answered

    @asynccontextmanager
    async def stream(self, method: str) -> AsyncIterator[Stream]:
        """A bidirectional stream of serialised messages; cancelled at the end of the block."""
        call: Stream = self._channel.stream_stream(
            method, request_serializer=_as_it_is, response_deserializer=_as_it_is
        )(metadata=self._metadata)
        try:
            yield call
        finally:
            call.cancel()


def _as_it_is(message: bytes) -> bytes:
    return message


async def read(call: Stream) -> bytes:
    """The next message. Raises LinkLost or AioRpcError; the caller bounds the wait, or says why it has no bound."""
    try:
        message = await call.read()
    except asyncio.CancelledError:
        _raise_unless_cancelled()
    if not isinstance(message, bytes):
        raise LinkLost("the control plane ended the stream")
    return message


async def write(call: Stream, message: bytes, within_s: float) -> None:
    """Send a message. Raises LinkLost, AioRpcError, or TimeoutError if the other side does not take it."""
    try:
        async with asyncio.timeout(within_s):
            await call.write(message)
    except asyncio.CancelledError:
        _raise_unless_cancelled()
    except asyncio.InvalidStateError:  # grpc.aio's word for a call that is over
        raise LinkLost("the control plane ended the stream") from None


def _raise_unless_cancelled() -> NoReturn:
    """grpc.aio raises CancelledError also when the other side cancels; only the loop's own may end a task."""
    if _is_cancelled():
        raise asyncio.CancelledError
    raise LinkLost("the control plane cancelled the stream") from None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def stay_connected(
    what: str, find_control: FindControl, talk: Callable[[Link], Awaitable[None]], policy: LinkPolicy
) -> NoReturn:
    """Connect and `talk`, again and again, with growing pauses while it fails. Ends only when cancelled."""
    state = _State(what, policy)
    while True:
        address = await asyncio.to_thread(find_control)
        if address is None:
            state.lost("no control plane has announced itself in the state directory")
        else:
            try:
                await _connect_once(address, find_control, talk, state)
            except* (LinkLost, TimeoutError, grpc.aio.AioRpcError) as group:
                state.lost(_reason(group))
            except* Exception:  # a mistake of ours must not end the node, nor spin
                log.exception("control_link_failed", stream=what)
                state.lost("internal error")
        if _is_cancelled():  # a task group that fails in the same moment keeps it to itself (until Python 3.13)
            raise asyncio.CancelledError
        await asyncio.sleep(state.next_pause_s())


async def _connect_once(
    address: ControlAddress, find_control: FindControl, talk: Callable[[Link], Awaitable[None]], state: _State
) -> None:
    await _knock(address)
    async with await _channel(address) as channel, asyncio.TaskGroup() as tasks:
        tasks.create_task(_raise_when_moved(address, find_control), name="control address")
        await talk(Link(channel, address.token, lambda: state.alive(address)))
        raise LinkLost("the stream ended")


async def _channel(address: ControlAddress) -> grpc.aio.Channel:
    """A channel to it. Raises LinkLost if its certificates cannot be read."""
    if address.tls is None:
        return grpc.aio.insecure_channel(address.target, options=OPTIONS)
    try:
        credentials = await asyncio.to_thread(address.tls.credentials)
    except TlsUnusable as error:
        raise LinkLost(str(error)) from None
    return grpc.aio.secure_channel(address.target, credentials, options=OPTIONS)


async def _knock(address: ControlAddress) -> None:
    """Raise LinkLost if nobody listens there, or not for us.

    An attempt of gRPC's costs ten times as much, and leaves about 120 bytes behind for ever (measured with 1.85): a
    control plane may be away for weeks.
    """
    target = address.target
    path, (host, _, port) = target.removeprefix("unix:"), target.rpartition(":")
    try:
        async with asyncio.timeout(KNOCK_WITHIN_S):
            if path != target:
                _, writer = await asyncio.open_unix_connection(path)
            elif address.tls is not None:
                writer = await _greeted(address.tls, target, host.strip("[]"), int(port))
            else:
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise LinkLost(f"nobody listens at {target}: {str(error) or 'it does not answer'}") from None
    writer.transport.abort()


async def _greeted(tls: NodeTls, target: str, host: str, port: int) -> asyncio.StreamWriter:
    """A connection on which the control plane takes our certificate: gRPC does not tell why a handshake fails.

    Raises LinkLost or OSError.
    """
    try:
        context = await asyncio.to_thread(tls.context)
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            # Its word on our certificate comes after the handshake. HTTP/2 servers speak first.
            is_taken = bool(await reader.read(1))
        except BaseException:
            writer.transport.abort()
            raise
    except TlsUnusable as error:
        raise LinkLost(str(error)) from None
    except (ssl.SSLError, ConnectionResetError) as error:
        raise _turned_away(tls, target, error) from None
    if not is_taken:
        writer.transport.abort()
        raise _turned_away(tls, target, None)
    return writer


def _turned_away(tls: NodeTls, target: str, error: OSError | None) -> LinkLost:
    why = tls.refusal(error if isinstance(error, ssl.SSLError) else None, datetime.now(UTC))
    return LinkLost(f"no way to the control plane at {target}: {why}")


async def _raise_when_moved(address: ControlAddress, find_control: FindControl) -> None:
    while True:
        await asyncio.sleep(MOVED_CHECK_S)
        found = await asyncio.to_thread(find_control)
        if found is not None and found != address:
            raise LinkLost(f"the control plane has moved to {found.target}")


class _State:
    """Whether the control plane is there: told once for each change. And how long to wait before the next attempt."""

    def __init__(self, what: str, policy: LinkPolicy) -> None:
        self._what = what
        self._policy = policy
        self._is_up: bool | None = None
        self._quiet_until_s = time.monotonic() + policy.first_wait_s
        self._pause_s = policy.first_pause_s

    def alive(self, address: ControlAddress) -> None:
        self._pause_s = self._policy.first_pause_s
        if self._is_up is not True:
            self._is_up = True
            log.info("control_connected", stream=self._what, address=address.target)

    def lost(self, reason: str) -> None:
        if self._is_up is None and time.monotonic() < self._quiet_until_s:
            return
        if self._is_up is not False:
            self._is_up = False
            log.warning("control_away", stream=self._what, reason=reason)

    def next_pause_s(self) -> float:
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, self._policy.longest_pause_s)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - so that nodes do not come back all at once


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    """Why, in words: the first cause in a group."""
    cause: BaseException = group
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, grpc.aio.AioRpcError):
        return f"{cause.code().name}: {cause.details()}"
    if isinstance(cause, TimeoutError):
        return "the control plane was silent for too long"
    return str(cause)
