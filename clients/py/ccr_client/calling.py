"""Channels whose calls carry the token, have a deadline, and raise ControlError.

Stubs only ask a channel for callables, so what stands behind them is replaced there, once for all services.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import grpc
import grpc.aio

from ccr_client.door import Door, NoDoor
from ccr_client.errors import from_rpc

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # the control plane is ours, not the web's
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 250),  # who waits for a control plane that restarts wants it within seconds,
    ("grpc.max_reconnect_backoff_ms", 5000),  # not after gRPC's two minutes
)


def dial(door: Door) -> grpc.Channel:
    """A channel to the door. Raises NoDoor if its certificates cannot be read."""
    if (credentials := _credentials(door)) is None:
        return grpc.insecure_channel(door.target, options=_OPTIONS)
    return grpc.secure_channel(door.target, credentials, options=_OPTIONS)


def dial_async(door: Door) -> grpc.aio.Channel:
    """The same for asyncio."""
    if (credentials := _credentials(door)) is None:
        return grpc.aio.insecure_channel(door.target, options=_OPTIONS)
    return grpc.aio.secure_channel(door.target, credentials, options=_OPTIONS)


def _credentials(door: Door) -> grpc.ChannelCredentials | None:
    if door.ca_file is None or door.is_local:
        return None
    try:
        own = [file.read_bytes() if file else None for file in (door.key_file, door.cert_file)]
        return grpc.ssl_channel_credentials(door.ca_file.read_bytes(), *own)
    except OSError as error:
        raise NoDoor(f"{error.filename} cannot be read: {error.strerror}") from error


class Calls:
    """Stands in for a channel in front of stubs."""

    def __init__(self, channel: Any, token: str | None, timeout_s: float, wrap: Callable[[Any, bool], Any]) -> None:
        """`timeout_s` is for calls with one answer; a stream lasts until its reader ends it."""
        self._channel, self._timeout_s, self._wrap = channel, timeout_s, wrap
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Asked for by stubs."""
        return self._calling(self._channel.unary_unary(*args, **kwargs), self._timeout_s, is_stream=False)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Asked for by stubs."""
        return self._calling(self._channel.unary_stream(*args, **kwargs), None, is_stream=True)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Asked for by stubs."""
        return self._calling(self._channel.stream_unary(*args, **kwargs), None, is_stream=False)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Asked for by stubs."""
        return self._calling(self._channel.stream_stream(*args, **kwargs), None, is_stream=True)

    def _calling(self, method: Any, timeout_s: float | None, *, is_stream: bool) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = timeout_s, metadata: Any = (), **more: Any) -> Any:
            told = (*self._metadata, *(metadata or ()))
            return self._wrap(lambda: method(request, timeout=timeout, metadata=told, **more), is_stream)

        return call


def wrapped(start: Callable[[], Any], is_stream: bool) -> Any:
    """The answer, or the stream, with our errors."""
    try:
        begun = start()
    except grpc.RpcError as error:
        raise from_rpc(error) from None
    return Stream(begun) if is_stream else begun


def wrapped_async(start: Callable[[], Any], is_stream: bool) -> Any:
    """The same for asyncio."""
    return AsyncStream(start()) if is_stream else _Pending(start())


class Stream(Iterator[Any]):
    """Messages as they come. Ends with the server's end of it, or with `cancel()` (also as a context manager)."""

    def __init__(self, call: Any) -> None:
        self._call, self._is_cancelled = call, False

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            if self._is_cancelled and error.code() is grpc.StatusCode.CANCELLED:
                raise StopIteration from None
            raise from_rpc(error) from None

    def cancel(self) -> None:
        """Hang up."""
        self._is_cancelled = True
        self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class AsyncStream(AsyncIterator[Any]):
    """The same for asyncio."""

    def __init__(self, call: Any) -> None:
        self._call, self._messages = call, aiter(call)

    async def __anext__(self) -> Any:
        try:
            return await anext(self._messages)
        except grpc.RpcError as error:
            raise from_rpc(error) from None

    def cancel(self) -> None:
        """Hang up."""
        self._call.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class _Pending:
    """An answer to wait for."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except grpc.RpcError as error:
            raise from_rpc(error) from None
