"""The context of a call that came from a browser: as much of grpc.aio's ServicerContext as servicers may rely on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

Metadata = tuple[tuple[str, str | bytes], ...]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Aborted(grpc.aio.AbortError):
    """The handler ended its call with a status, which is in the context."""


class WebContext:
    """One call. `write` sends a message; `timeout_s` is how long the caller waits, None for ever."""

    def __init__(
        self, metadata: Metadata, timeout_s: float | None, peer: str, write: Callable[[Any], Awaitable[None]]
    ) -> None:
        self._metadata, self._peer, self._write = metadata, peer, write
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._callbacks: list[Callable[[Any], None]] = []
        self.initial: Metadata = ()
        self.status: grpc.StatusCode | None = None
        self.words = ""
        self.trailing: Metadata = ()
        self.is_cancelled = False
        self.is_done = False

    # the call

    def invocation_metadata(self) -> Metadata:
        """What the caller sent as headers; values of names in -bin are bytes."""
        return self._metadata

    def peer(self) -> str:
        """Who called, as gRPC spells it: `ipv4:127.0.0.1:41234`."""
        return self._peer

    def peer_identities(self) -> None:
        """None: browsers have no certificate; who they are is in their token."""

    def peer_identity_key(self) -> None:
        """None, as above."""

    def auth_context(self) -> dict[str, Sequence[bytes]]:
        """Empty, as above."""
        return {}

    def time_remaining(self) -> float | None:
        """Seconds until the caller stops to wait; None: it does not."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    # its end

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """The status to end with."""
        self.status = code if isinstance(code, grpc.StatusCode) else _CODES[code]

    def set_details(self, details: str) -> None:
        """Words for it."""
        self.words = details

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """What to say besides."""
        self.trailing = tuple((key, value) for key, value in metadata)

    def code(self) -> int:
        """The status so far, as a number."""
        code: int = 0 if self.status is None else self.status.value[0]
        return code

    def details(self) -> str:
        """The words so far."""
        return self.words

    def trailing_metadata(self) -> Metadata:
        """What is to be said besides."""
        return self.trailing

    async def abort(
        self,
        code: grpc.StatusCode | int,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call now. Raises Aborted."""
        self.set_code(code)
        self.words = details
        if self.status is grpc.StatusCode.OK:
            self.status, self.words = grpc.StatusCode.UNKNOWN, "abort() was called with OK"
        if more := tuple(trailing_metadata):
            self.set_trailing_metadata(more)
        raise Aborted

    async def abort_with_status(self, status: Any) -> NoReturn:
        """The same with a grpc.Status."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    # messages

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Kept, and sent with the first message."""
        self.initial = tuple((key, value) for key, value in metadata)

    async def write(self, message: Any) -> None:
        """Send a message."""
        await self._write(message)

    async def read(self) -> Any:
        """Not for browsers: they send one message, which the handler was given."""
        raise NotImplementedError("use the request iterator")

    def set_compression(self, compression: object) -> None:
        """Nothing is compressed."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    # who wants to know

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call this with the context when the call has ended."""
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        """Whether the caller left."""
        return self.is_cancelled

    def done(self) -> bool:
        """Whether the call has ended."""
        return self.is_done

    def finish(self) -> list[Callable[[Any], None]]:
        """The call has ended. Returns who wanted to be called."""
        self.is_done = True
        return self._callbacks
