"""What stands between gRPC and every servicer: the token, the end of long calls, and mistakes of ours.

An exception that leaves a handler would reach the caller with its text. Here it is logged, and the caller gets
INTERNAL.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from ccr_control.shell.log import Log
from ccr_control.shell.streams import OpenStreams

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Services that need no token: they say nothing about anybody."""

log = Log("grpc")

# Strings, because gRPC's types are generic for type checkers only; what goes through them is anything here.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Call: TypeAlias = "Callable[[Any, _Context], Awaitable[Any]]"
_StreamCall: TypeAlias = "Callable[[Any, _Context], AsyncIterator[Any]]"


def needs_token(method: str) -> bool:
    """Whether a method (`/package.Service/Method`) is for holders of the token only."""
    return not method.startswith(OPEN_SERVICES)


def is_bearer(header: str | bytes | None, token: str) -> bool:
    """Whether an `authorization` value carries the token. Takes the same time for every wrong token."""
    given = header if isinstance(header, bytes) else (header or "").encode(errors="replace")
    scheme, _, credential = given.partition(b" ")
    is_right = hmac.compare_digest(credential.strip(), token.encode())
    return is_right and scheme.lower() == b"bearer"


class TokenGuard(grpc.aio.ServerInterceptor):
    """Lets a call through only with `authorization: Bearer <token>` in its metadata."""

    def __init__(self, token: str) -> None:
        assert token, "an empty token would let everybody in"
        self._token = token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """The method's handler, or one of the same kind that refuses."""
        handler = await continuation(handler_call_details)
        details: Any = handler_call_details  # typed without its attributes
        given = dict(details.invocation_metadata or ()).get("authorization")
        if handler is None or not needs_token(details.method) or is_bearer(given, self._token):
            return handler
        return _with_behaviour(handler, _refuse)


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
                if not is_long:
                    return await behaviour(request, context)
                steady: Any = _SteadyContext(context)  # all that a handler uses of a context
                async with self._streams.until_stopping():
                    return await behaviour(request, steady)
            except grpc.aio.AbortError:  # the handler's own answer
                raise
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


async def _refuse(_: Any, context: _Context) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "bad or missing token")


def _written_out(behaviour: _StreamCall) -> _Call:
    """A handler that yields, as one that writes."""

    async def call(request: Any, context: _Context) -> None:
        async for response in behaviour(request, context):
            await context.write(response)

    return call


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
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
