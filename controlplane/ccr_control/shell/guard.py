"""What stands between gRPC and every servicer: who may call, the end of long calls, refusals as statuses, and mistakes of ours.

An exception that leaves a handler would reach the caller with its text. Here it is logged, and the caller gets
INTERNAL.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ccr_control.core.access import NODE_METHODS, Caller
from ccr_control.core.errors import (
    Forbidden,
    Malformed,
    NoSuchThing,
    NotNow,
    NotPossible,
    OutOfDate,
    Refused,
    TakenAlready,
    TooManyFailures,
    Unauthenticated,
)
from ccr_control.shell.access import OWNER, Doorman, acting_as, needs_token, permitted
from ccr_control.shell.log import Log
from ccr_control.shell.peers import PeerCertificate, certificate_of
from ccr_control.shell.streams import OpenStreams

log = Log("grpc")

# Strings, because gRPC's types are generic for type checkers only; what goes through them is anything here.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Call: TypeAlias = "Callable[[Any, _Context], Awaitable[Any]]"
_StreamCall: TypeAlias = "Callable[[Any, _Context], AsyncIterator[Any]]"


STATUS: dict[type[Refused], grpc.StatusCode] = {
    NoSuchThing: grpc.StatusCode.NOT_FOUND,
    TakenAlready: grpc.StatusCode.ALREADY_EXISTS,
    OutOfDate: grpc.StatusCode.ABORTED,
    Malformed: grpc.StatusCode.INVALID_ARGUMENT,
    NotPossible: grpc.StatusCode.FAILED_PRECONDITION,
    NotNow: grpc.StatusCode.UNAVAILABLE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    TooManyFailures: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
}
"""What callers get for our errors; why, for programs, is in the trailing metadata."""

REASON = "ccr-reason"
NOT_A_MESSAGE = "the request is not a message of this method"
MAX_DETAILS_CHARS = 2000  # gRPC sends them as a header


class DoorGuard(grpc.aio.ServerInterceptor):
    """Lets a call through only for those who may make it: by token, for nodes by certificate, or (without a doorman) for the owner
    of the private socket.
    """

    def __init__(self, doorman: Doorman | None) -> None:
        self._doorman = doorman

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """The method's handler, knowing who calls, or one of the same kind that refuses."""
        handler = await continuation(handler_call_details)
        details: Any = handler_call_details  # typed without its attributes
        method = str(details.method)
        if handler is None or not needs_token(method):
            return handler
        behaviour = _behaviour(handler)  # never a generator: HandlerGuard has wrapped it
        given = dict(details.invocation_metadata or ()).get("authorization")

        async def call(request: Any, context: _Context) -> Any:
            try:
                shown = certificate_of(context.auth_context()) if self._wants_certificate(method) else None
                who = self._admitted(method, shown, given, context.peer())
                async with self._ending_with(who, shown, is_long=handler.response_streaming):
                    with acting_as(who):
                        return await behaviour(request, context)
            except Refused as error:
                return await refuse(context, error)

        return _with_behaviour(handler, call)

    def _wants_certificate(self, method: str) -> bool:
        return self._doorman is not None and method in NODE_METHODS

    def _ending_with(
        self, who: Caller, shown: PeerCertificate | None, *, is_long: bool
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """A block that ends when the caller's token does, or a node's certificate."""
        if self._doorman is None or not is_long:
            return contextlib.nullcontext()
        if shown is not None:
            return self._doorman.ending_with_certificate(shown.ends_at_s)
        return self._doorman.ending_with(who)

    def _admitted(
        self, method: str, shown: PeerCertificate | None, authorization: str | bytes | None, peer: str
    ) -> Caller:
        if self._doorman is None:
            return permitted(method, OWNER)
        if method in NODE_METHODS:
            return self._doorman.admit_node(method, shown, authorization, peer)
        return self._doorman.admit(method, authorization, peer)


async def refuse(context: _Context, error: Refused) -> None:
    """End a call with the status of an error of ours, and its reason."""
    context.set_trailing_metadata(((REASON, error.reason),))
    await context.abort(STATUS[type(error)], str(error)[:MAX_DETAILS_CHARS])


class HandlerGuard(grpc.aio.ServerInterceptor):
    """Ends long calls when the server stops, and keeps the text of exceptions from callers."""

    def __init__(self, streams: OpenStreams) -> None:
        self._streams = streams

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """The method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = str(getattr(handler_call_details, "method", ""))
        behaviour = _behaviour(handler)
        if inspect.isasyncgenfunction(behaviour):
            return _with_behaviour(handler, self._guarded(method, _written_out(behaviour)))
        return _with_behaviour(handler, self._guarded(method, behaviour, is_long=handler.response_streaming))

    def _guarded(self, method: str, behaviour: _Call, *, is_long: bool = True) -> _Call:
        async def call(request: Any, context: _Context) -> Any:
            try:
                if request is _NO_MESSAGE:
                    raise Malformed("NOT_A_MESSAGE", NOT_A_MESSAGE)  # noqa: TRY301
                if not is_long:
                    return await behaviour(request, context)
                steady: Any = _SteadyContext(context)  # all that a handler uses of a context
                async with self._streams.until_stopping():
                    return await behaviour(request, steady)
            except grpc.aio.AbortError:  # the handler's own answer
                raise
            except Refused as error:
                return await refuse(context, error)
            except DecodeError:  # in a stream of messages
                return await refuse(context, Malformed("NOT_A_MESSAGE", NOT_A_MESSAGE))
            except Exception:
                log.exception("handler_failed", method=method)
                return await context.abort(grpc.StatusCode.INTERNAL, "internal error")

        return call


class _SteadyContext:
    """A call's context whose writes are finished even if the handler is cancelled.

    gRPC cannot take a write back: ending the call while one is under way breaks it off with an error
    (GRPC_CALL_ERROR_TOO_MANY_OPERATIONS) instead of the handler's status. A write to a peer that does not read ends
    with the server's grace.
    """

    def __init__(self, context: _Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        writing = asyncio.ensure_future(self._context.write(message))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()  # of no interest any more
            raise


def _written_out(behaviour: _StreamCall) -> _Call:
    """A handler that yields, as one that writes."""

    async def call(request: Any, context: _Context) -> None:
        async for response in behaviour(request, context):
            await context.write(response)

    return call


_NO_MESSAGE = object()
"""Stands for bytes that are no message: gRPC itself would end the call with UNKNOWN, and log it as a mistake of ours."""


def _reading(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read_or_not(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _NO_MESSAGE

    return read_or_not


def _behaviour(handler: Any) -> Any:
    """The function that serves: exactly one of four is set."""
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def _with_behaviour(handler: Any, behaviour: _Call) -> _Handler:
    """The same handler with another function."""
    kind = (
        f"{'stream' if handler.request_streaming else 'unary'}_"
        f"{'stream' if handler.response_streaming else 'unary'}_rpc_method_handler"
    )
    make: Callable[..., _Handler] = getattr(grpc, kind)
    read = handler.request_deserializer
    return make(
        behaviour,
        request_deserializer=read if handler.request_streaming or read is None else _reading(read),
        response_serializer=handler.response_serializer,
    )
