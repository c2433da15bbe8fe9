"""grpc-web for browsers, on top of sonora: the same servicers and the same guards as the gRPC doors.

The one place that knows sonora. Of sonora 0.2.3 we use the registration of services and the format of messages; its path of a
request fails with what browsers send (docs/adr/0011), so that is ours:

- errors arrive as grpc-web says, in a frame of trailers, also after messages were sent;
- a caller that leaves ends its call at once, also one that waits;
- a request is one message within a limit; half of one is an error;
- nothing is answered to other sites: no CORS, grpc-web's content type only, and `Origin` must be our own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

import grpc
import grpc.aio
from sonora import protocol
from sonora.asgi import grpcASGI

from ccr_control.shell.log import Log
from ccr_control.shell.web_context import Aborted, Metadata, WebContext

MAX_REQUEST_BYTES = 4 << 20
_MAX_CHUNKS = 16  # of a request's body, read ahead
_PLAIN_TEXT = " ~!@#$&*()_+-=[]{}|;:'\",./<>?`^"  # of a status message, sent as it is
_NOT_METADATA = frozenset(
    (b"connection", b"content-length", b"transfer-encoding", b"te", b"host", b"accept-encoding", b"grpc-timeout")
)

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
_Rpc: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

log = Log("web")


class _Left(Exception):
    """The caller hung up."""


class _Details:
    """What interceptors see of a call."""

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method, self.invocation_metadata = method, metadata


class GrpcWeb(grpcASGI):  # type: ignore[misc]  # sonora has no types
    """An ASGI application that serves what generated `add_…_to_server` functions add to it."""

    def __init__(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor] = (), *, max_request_bytes: int = MAX_REQUEST_BYTES
    ) -> None:
        super().__init__(None, enable_cors=False)
        self._interceptors = tuple(interceptors)
        self.max_request_bytes = max_request_bytes

    def add_registered_method_handlers(self, service_name: str, method_handlers: object) -> None:
        """Generated code calls this besides `add_generic_rpc_handlers`, which is enough."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = {key.lower(): value for key, value in reversed(scope["headers"])}
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if _is_foreign(headers):
            await _refuse(send, 403)
        elif not kind.startswith(b"application/grpc-web"):
            await _refuse(send, 415)
        elif scope["method"] != "POST":
            await _refuse(send, 405, (b"allow", b"POST"))
        else:
            is_text = kind.startswith(b"application/grpc-web-text")
            await _Call(self, scope, receive, send, headers.get(b"grpc-timeout"), is_text=is_text).run()

    async def handler(self, method: str, metadata: Metadata) -> _Rpc | None:
        """What serves a method, wrapped by the interceptors; None if nothing does."""

        async def registered(details: Any) -> _Rpc | None:
            return next((found for one in self._handlers if (found := one.service(details))), None)

        find: Callable[[Any], Awaitable[_Rpc | None]] = registered
        for one in reversed(self._interceptors):
            find = _around(one, find)
        return await find(_Details(method, metadata))


class _Call:
    """One call from a browser."""

    def __init__(
        self, app: GrpcWeb, scope: Scope, receive: Receive, send: Send, timeout: bytes | None, *, is_text: bool
    ) -> None:
        self._app, self._receive, self._send, self._is_text = app, receive, send, is_text
        self._method: str = scope["path"]
        self._timeout_s = _timeout_s(timeout)
        self._metadata = _metadata(scope["headers"])
        self._context = WebContext(self._metadata, self._timeout_s, _peer(scope.get("client")), self._write)
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_CHUNKS)
        self._serialize: Callable[[Any], bytes] | None = None
        self._has_begun = False

    async def run(self) -> None:
        """Serve it, until it is answered or the caller has left."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(), name="web request")
                serving = tasks.create_task(self._served(), name="web call")
                await asyncio.wait([serving])  # until the group is cancelled, at the latest when the caller leaves
                if serving.cancelled():  # by whoever ends calls, for example of tokens that have ended
                    self._end(grpc.StatusCode.CANCELLED, "the call was ended by the control plane")
                await self._send_trailers()
                reading.cancel()
        except* _Left:
            pass
        finally:
            for callback in self._context.finish():
                try:
                    callback(self._context)
                except Exception:
                    log.exception("web_callback_failed", method=self._method)

    async def _read(self) -> None:
        """The only reader of the connection: notices at once when the caller leaves. Raises _Left."""
        is_complete = False
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                self._context.is_cancelled = True
                raise _Left
            if not is_complete:
                await self._chunks.put(event.get("body", b""))
                if not event.get("more_body"):
                    is_complete = True
                    await self._chunks.put(None)

    async def _served(self) -> None:
        """Run the handler; how it ended is in the context afterwards."""
        is_late = False
        try:
            try:
                async with asyncio.timeout(self._timeout_s) as limit:
                    await self._handled()
            except TimeoutError:
                is_late = limit.expired()
                raise
        except Aborted:
            pass
        except NotImplementedError:
            self._end(grpc.StatusCode.UNIMPLEMENTED, "no such method here")
        except Exception:
            if is_late:
                self._end(grpc.StatusCode.DEADLINE_EXCEEDED, "it took longer than the caller waits")
            else:
                log.exception("handler_failed", method=self._method)
                self._end(grpc.StatusCode.INTERNAL, "internal error")

    async def _handled(self) -> None:
        context = self._context
        found: Any = await self._app.handler(self._method, self._metadata)
        if found is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method here")
        self._serialize = found.response_serializer
        requests = self._requests(found.request_deserializer or bytes)
        behaviour = found.unary_unary or found.unary_stream or found.stream_unary or found.stream_stream
        argument = requests if found.request_streaming else await self._only(requests)
        if inspect.isasyncgenfunction(behaviour):
            async for message in behaviour(argument, context):
                await self._write(message)
            return
        answer = await behaviour(argument, context)
        if not found.response_streaming and context.status in (None, grpc.StatusCode.OK):
            await self._write(answer)

    async def _only(self, requests: AsyncGenerator[Any, None]) -> Any:
        """The first message: those who send one send no more."""
        request = await anext(requests, None)
        await requests.aclose()
        if request is None:
            await self._context.abort(grpc.StatusCode.INTERNAL, "the request holds no message")
        return request

    async def _requests(self, deserialize: Callable[[bytes], Any]) -> AsyncGenerator[Any, None]:
        """The caller's messages."""
        async for data in self._frames():
            try:
                message = deserialize(data)
            except Exception:
                await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no such message")
            yield message

    async def _frames(self) -> AsyncIterator[bytes]:
        """The caller's messages as bytes: a byte of flags, four of length, then the message."""
        buffer, limit = bytearray(), self._app.max_request_bytes
        async for chunk in self._body():
            buffer += chunk
            while len(buffer) >= 5:
                flags, length = struct.unpack_from(">BI", buffer)
                if length > limit:
                    await self._context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes is over the limit of {limit}"
                    )
                if flags & 1:
                    await self._context.abort(grpc.StatusCode.UNIMPLEMENTED, "compressed requests are not read here")
                if len(buffer) < 5 + length:
                    break
                data = bytes(buffer[5 : 5 + length])
                del buffer[: 5 + length]
                if not flags & 0x80:  # trailers of the caller's
                    yield data
        if buffer:
            await self._context.abort(grpc.StatusCode.INTERNAL, "the request ended inside a message")

    async def _body(self) -> AsyncIterator[bytes]:
        """The request's body, decoded if it is text."""
        rest = b""
        while (chunk := await self._chunks.get()) is not None:
            if not self._is_text:
                yield chunk
                continue
            rest += chunk
            whole = len(rest) & ~3
            try:
                yield base64.b64decode(rest[:whole], validate=True)
            except binascii.Error:
                await self._context.abort(grpc.StatusCode.INTERNAL, "the request is no base64")
            rest = rest[whole:]

    async def _write(self, message: Any) -> None:
        data = self._serialize(message) if self._serialize else message
        try:
            await self._send_frame(data, is_last=False)
        except OSError:  # it has left, and `_read` has yet to hear of it: no fault of the handler's
            self._context.is_cancelled = True
            raise Aborted from None

    async def _send_trailers(self) -> None:
        context = self._context
        trailers: list[tuple[str, str]] = [("grpc-status", str(context.code()))]
        if context.words:
            trailers.append(("grpc-message", quote(context.words, safe=_PLAIN_TEXT)))
        trailers += protocol.encode_headers(context.trailing)
        try:
            await self._send_frame(protocol.pack_trailers(trailers), is_last=True)
        except OSError:  # it left meanwhile
            raise _Left from None

    async def _send_frame(self, data: bytes, *, is_last: bool) -> None:
        if not self._has_begun:
            self._has_begun = True
            form = b"application/grpc-web-text+proto" if self._is_text else b"application/grpc-web+proto"
            headers = [
                (b"content-type", form),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
            headers += [
                (key.encode(), value.encode("latin1")) for key, value in protocol.encode_headers(self._context.initial)
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        wrap = protocol.b64_wrap_message if self._is_text else protocol.wrap_message
        body = wrap(is_last, False, data)
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

    def _end(self, status: grpc.StatusCode, words: str) -> None:
        self._context.status, self._context.words = status, words


def _around(
    interceptor: grpc.aio.ServerInterceptor, find: Callable[[Any], Awaitable[_Rpc | None]]
) -> Callable[[Any], Awaitable[_Rpc | None]]:
    async def intercepted(details: Any) -> _Rpc | None:
        return await interceptor.intercept_service(find, details)

    return intercepted


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    """Whether the page of another site asks."""
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none")
    return origin.partition(b"://")[2] != headers.get(b"host", b"")


def _timeout_s(value: bytes | None) -> float | None:
    """What `grpc-timeout` says; None if it says nothing that is one."""
    if value is None:
        return None
    try:
        seconds: float = protocol.parse_timeout(value)
    except (KeyError, ValueError):
        return None
    return seconds


def _metadata(headers: Sequence[tuple[bytes, bytes]]) -> Metadata:
    """Headers as metadata; what is neither text nor, in -bin, base64 (padded or not) is left out."""
    found: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        if key in _NOT_METADATA:
            continue
        try:
            is_binary = key.endswith(b"-bin")
            padded = value + b"=" * (-len(value) % 4)
            found.append((key.decode("ascii"), base64.b64decode(padded) if is_binary else value.decode("latin1")))
        except (binascii.Error, ValueError):
            continue
    return tuple(found)


def _peer(client: tuple[str, int] | None) -> str:
    if not client:
        return "unknown"
    host, port = client
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


async def _refuse(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0"), *headers]})
    await send({"type": "http.response.body", "body": b""})
