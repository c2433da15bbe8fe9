"""grpc-web as browsers speak it, line by line what sonora's own path of a request gets wrong, and the files of the page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import grpc
import grpc.aio
import pytest
from aiohttp import web
from ccr_control.shell.guard import HandlerGuard
from ccr_control.shell.streams import OpenStreams
from ccr_control.shell.web import LOOPBACK_NAMES, application
from ccr_control.shell.web_grpc import GrpcWeb
from ccr_control.shell.web_pages import NOT_BUILT, POLICY, pages
from ccr_rpc.v1 import events_pb2
from support.control import CONFIG, running_control, until

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
LIMIT = 1000
_who: ContextVar[str] = ContextVar("who", default="nobody")


@dataclass
class Answer:
    """What a browser makes of an answer."""

    http: int
    messages: list[bytes]
    trailers: dict[str, str]
    headers: Mapping[str, str]

    @property
    def status(self) -> int:
        return int(self.trailers["grpc-status"])


class Servicer:
    """Methods that end in every way there is. `left` tells what was cancelled."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.started = asyncio.Event()

    async def Echo(self, request: bytes, context: Any) -> bytes:
        return request + b" " + _who.get().encode()

    async def Metadata(self, request: bytes, context: Any) -> bytes:
        return repr(sorted(one for one in context.invocation_metadata() if one[0].startswith("x-"))).encode()

    async def Abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü\n100 %")
        return b""

    async def AbortWithMore(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "changed", (("etag", "7"), ("why-bin", b"\xff\x00")))
        return b""

    async def SetCode(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        context.set_details("not now")
        return b"not for you"

    async def Fail(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError("the secret is swordfish")

    async def Hang(self, request: bytes, context: Any) -> bytes:
        with self._noting("unary"):
            await asyncio.Event().wait()
        return b""

    async def EndedByOthers(self, request: bytes, context: Any) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()
        return b""

    async def TwoThenAbort(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        await context.abort(grpc.StatusCode.DATA_LOSS, "three is lost")

    async def Tick(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        with self._noting("ticking"):
            while True:
                yield b"tick"
                await asyncio.sleep(0.002)

    async def Idle(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        with self._noting("idle"):
            yield b"first"
            await asyncio.Event().wait()

    async def Join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"+".join([one async for one in requests])

    async def Parsed(self, request: events_pb2.Event, context: Any) -> bytes:
        return request.action.encode()

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        self.started.set()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.left.append(what)
            raise


def handlers_of(servicer: Servicer) -> grpc.GenericRpcHandler:
    unary = {
        name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name))
        for name in ("Echo", "Metadata", "Abort", "AbortWithMore", "SetCode", "Fail", "Hang", "EndedByOthers")
    }
    streams = {
        name: grpc.unary_stream_rpc_method_handler(getattr(servicer, name)) for name in ("TwoThenAbort", "Tick", "Idle")
    }
    others = {
        "Join": grpc.stream_unary_rpc_method_handler(servicer.Join),
        "Parsed": grpc.unary_unary_rpc_method_handler(
            servicer.Parsed, request_deserializer=events_pb2.Event.FromString
        ),
    }
    return grpc.method_handlers_generic_handler("ccr.rpc.v1.Test", {**unary, **streams, **others})


class Named(grpc.aio.ServerInterceptor):
    """Says who calls, as the door does."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        _who.set(dict(handler_call_details.invocation_metadata).get("x-name", "nobody"))
        return await continuation(handler_call_details)


class Door:
    """A served `GrpcWeb`, and how a browser calls it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, servicer: Servicer) -> None:
        self.url, self.session, self.servicer = url, session, servicer

    def opened(self, method: str, body: bytes, **headers: str) -> Any:
        named = {
            "content-type": BINARY,
            "accept": "*/*",
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        return self.session.post(f"{self.url}/ccr.rpc.v1.Test/{method}", data=body, headers=named)

    async def call(self, method: str, *messages: bytes, raw: bytes | None = None, **headers: str) -> Answer:
        body = b"".join(frame(one) for one in messages or (b"hello",)) if raw is None else raw
        async with self.opened(method, body, **headers) as response:
            return read(await response.read(), response)


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def read(data: bytes, response: Any) -> Answer:
    if response.content_type.startswith("application/grpc-web-text"):
        data = b"".join(base64.b64decode(part) for part in _texts(data))
    found: list[bytes] = []
    trailers: dict[str, str] = {}
    while data:
        flags, length = struct.unpack_from(">BI", data)
        part, data = data[5 : 5 + length], data[5 + length :]
        assert len(part) == length, "the answer ends inside a frame"
        if flags & 0x80:
            lines = part.decode("ascii").split("\r\n")
            trailers = {key: unquote(value.strip()) for key, _, value in (line.partition(":") for line in lines) if key}
            assert not data, "nothing comes after the trailers"
        else:
            found.append(part)
    return Answer(response.status, found, trailers, response.headers)


def _texts(data: bytes) -> Iterator[bytes]:
    """Each frame was encoded by itself, with its own padding."""
    rest = data
    while rest:
        end = rest.find(b"=")
        if end < 0:
            yield rest
            return
        stop = end + 2 if rest[end : end + 2] == b"==" else end + 1
        yield rest[:stop]
        rest = rest[stop:]


@contextlib.asynccontextmanager
async def door(*interceptors: grpc.aio.ServerInterceptor, folder: Path | None = None) -> AsyncIterator[Door]:
    servicer = Servicer()
    calls = GrpcWeb(interceptors or (Named(),), max_request_bytes=LIMIT)
    calls.add_generic_rpc_handlers((handlers_of(servicer),))
    known = pages(folder or Path("/nonexistent"))
    runner = web.AppRunner(application(calls, known, LOOPBACK_NAMES), handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield Door(f"http://{host}:{port}", session, servicer)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("accept", ["*/*", "application/grpc-web+proto", "application/grpc-web-text"])
async def test_an_answer_and_its_status_arrive(accept: str) -> None:
    """Whatever the client says it accepts."""
    async with door() as web_door:
        answer = await web_door.call("Echo", accept=accept, x_name="jo")
        assert (answer.http, answer.messages, answer.status) == (200, [b"hello jo"], 0)
        assert answer.headers["content-type"] == BINARY


async def test_text_is_spoken_to_those_who_speak_it() -> None:
    """The older form of grpc-web, in base64."""
    async with door() as web_door:
        answer = await web_door.call("Echo", raw=base64.b64encode(frame(b"hello")), content_type=TEXT)
        assert (answer.messages, answer.status) == ([b"hello nobody"], 0)
        assert answer.headers["content-type"] == TEXT
        assert (await web_door.call("Echo", raw=b"!!!!", content_type=TEXT)).status == grpc.StatusCode.INTERNAL.value[0]


async def test_every_end_of_a_call_arrives_as_a_status() -> None:
    """In trailers, with words and metadata, and with no message besides."""
    async with door() as web_door:
        answer = await web_door.call("Abort")
        assert (answer.messages, answer.status) == ([], 5)
        assert answer.trailers["grpc-message"] == "no such thing: ü\n100 %"
        answer = await web_door.call("AbortWithMore")
        assert (answer.status, answer.trailers["etag"]) == (10, "7")
        assert base64.b64decode(answer.trailers["why-bin"]) == b"\xff\x00"
        answer = await web_door.call("SetCode")
        assert (answer.messages, answer.status, answer.trailers["grpc-message"]) == ([], 9, "not now")
        answer = await web_door.call("NoSuchMethod")
        assert (answer.http, answer.status) == (200, 12)
        answer = await web_door.call("TwoThenAbort")
        assert (answer.messages, answer.status) == ([b"one", b"two"], 15)


@pytest.mark.parametrize("is_guarded", [False, True])
async def test_the_text_of_an_exception_stays_here(is_guarded: bool) -> None:
    """Also should the guard be missing."""
    async with door(*((HandlerGuard(OpenStreams()),) if is_guarded else ())) as web_door:
        answer = await web_door.call("Fail")
        assert (answer.status, answer.trailers["grpc-message"]) == (13, "internal error")


async def test_the_guards_of_the_other_doors_work_here() -> None:
    """They turn streams into calls that write."""
    async with door(HandlerGuard(OpenStreams())) as web_door:
        answer = await web_door.call("TwoThenAbort")
        assert (answer.messages, answer.status) == ([b"one", b"two"], 15)


async def test_a_deadline_ends_a_stream_with_a_status() -> None:
    """And not by breaking the connection."""
    async with door() as web_door:
        answer = await web_door.call("Tick", grpc_timeout="60m")
        assert answer.messages
        assert answer.status == 4
        assert (await web_door.call("Echo", grpc_timeout="soon")).status == 0, "what is no time is none"


@pytest.mark.parametrize(("method", "what"), [("Tick", "ticking"), ("Idle", "idle"), ("Hang", "unary")])
async def test_a_browser_that_leaves_ends_its_call(method: str, what: str) -> None:
    """At once, also while nothing is to be said: or every closed tab would cost for ever."""
    async with door() as web_door:
        asking = asyncio.ensure_future(web_door.call(method))
        await asyncio.wait_for(web_door.servicer.started.wait(), 10)
        asking.cancel()
        await asyncio.wait([asking])
        await until(lambda: web_door.servicer.left == [what], "the call has ended")


async def test_a_message_to_a_browser_that_has_just_left_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """The writer may hear of it before the reader does: no traceback in the log for every tab that is closed."""
    calls = GrpcWeb((HandlerGuard(OpenStreams()),))
    calls.add_generic_rpc_handlers((handlers_of(Servicer()),))
    asked = [{"type": "http.request", "body": frame(b"hello"), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not asked:
            await asyncio.Event().wait()
        return asked.pop()

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.body":
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    headers = [(b"content-type", BINARY.encode()), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": "/ccr.rpc.v1.Test/Tick", "headers": headers, "client": None}
    await asyncio.wait_for(calls(scope, receive, send), 10)
    assert caplog.text == ""


async def test_a_call_that_is_ended_here_says_so() -> None:
    """For example when its token has ended."""
    async with door() as web_door:
        assert (await web_door.call("EndedByOthers")).status == 1


async def test_half_a_request_is_none() -> None:
    """And what is too large, compressed or of another kind is refused with the reason."""
    async with door() as web_door:
        whole = frame(b"hello")
        for cut in (0, 3, len(whole) - 1):
            assert (await web_door.call("Echo", raw=whole[:cut])).status == 13
        assert (await web_door.call("Echo", b"x" * LIMIT)).status == 0
        assert (await web_door.call("Echo", b"x" * (LIMIT + 1))).status == 8
        assert (await web_door.call("Echo", raw=b"\x01" + whole[1:])).status == 12
        assert (await web_door.call("Parsed", b"\xff\xff")).status == 3
        assert (await web_door.call("Parsed", events_pb2.Event(action="go").SerializeToString())).messages == [b"go"]


async def test_all_messages_of_one_body_arrive() -> None:
    """However many there are."""
    async with door() as web_door:
        assert (await web_door.call("Join", b"a", b"b", b"c")).messages == [b"a+b+c"]


async def test_headers_become_metadata() -> None:
    """Binary ones with padding or without; what is no base64 is left out."""
    async with door() as web_door:
        answer = await web_door.call("Metadata", x_a_bin="/w", x_b_bin="/w==", x_c_bin="a", x_d="plain")
        assert answer.messages == [b"[('x-a-bin', b'\\xff'), ('x-b-bin', b'\\xff'), ('x-d', 'plain')]"]


async def test_other_sites_get_nothing() -> None:
    """No foreign origin, no content type that a form could send, no preflight, no foreign name of this host."""
    async with door() as web_door:
        port = web_door.url.rpartition(":")[2]
        for headers, http in (
            ({"origin": "https://evil.example"}, 403),
            ({"origin": "null"}, 403),
            ({"sec_fetch_site": "cross-site"}, 403),
            ({"sec_fetch_site": "same-site"}, 403),
            ({"content_type": "text/plain"}, 415),
            ({"content_type": "application/json"}, 415),
            ({"host": f"evil.example:{port}"}, 421),
            ({"host": "127.0.0.1.evil.example"}, 421),
            ({"origin": f"http://127.0.0.1:{port}", "sec_fetch_site": "same-origin"}, 200),
            ({"host": f"localhost:{port}", "origin": f"http://localhost:{port}"}, 200),
        ):
            async with web_door.opened("Echo", frame(b"hello"), **headers) as response:
                assert (response.status, headers) == (http, headers)
                assert "access-control-allow-origin" not in response.headers
        preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        async with web_door.session.options(f"{web_door.url}/ccr.rpc.v1.Test/Echo", headers=preflight) as response:
            assert response.status == 403
            assert not [name for name in response.headers if name.lower().startswith("access-control")]
        async with web_door.session.get(web_door.url, headers={"host": "evil.example"}) as response:
            assert response.status == 421


async def test_both_doors_give_the_same_answers() -> None:
    """One servicer, served by gRPC and to browsers."""
    async with door() as web_door:
        server = grpc.aio.server(interceptors=[Named(), HandlerGuard(OpenStreams())])
        server.add_generic_rpc_handlers((handlers_of(web_door.servicer),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                for method in ("Echo", "Abort", "AbortWithMore", "SetCode", "Fail", "NoSuchMethod"):
                    call = channel.unary_unary(f"/ccr.rpc.v1.Test/{method}")(b"hello")
                    of_web = await web_door.call(method)
                    assert (method, of_web.status) == (method, (await call.code()).value[0])
                    if of_web.status in (5, 9, 10):
                        assert of_web.trailers["grpc-message"] == await call.details()
        finally:
            await server.stop(0)


async def test_the_page_is_served_with_its_policy(tmp_path: Path) -> None:
    """Files with hashes in their names for ever, the rest asked for each time; paths without a file are the page's own."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>the page")
    (tmp_path / "assets" / "index-abc.js").write_text("1")
    (tmp_path / ".made-of").write_text("a secret of the build")
    async with door(folder=tmp_path) as web_door:
        for path, http, caching in (
            ("/", 200, "no-cache"),
            ("/providers", 200, "no-cache"),
            ("/assets/index-abc.js", 200, "public, max-age=31536000, immutable"),
            ("/assets/other.js", 404, None),
            ("/.made-of", 404, None),
            ("/../../../etc/passwd.txt", 404, None),
        ):
            async with web_door.session.get(web_door.url + path) as response:
                assert (path, response.status, response.headers.get("cache-control")) == (path, http, caching)
                assert response.headers["content-security-policy"] == POLICY
                assert response.headers["x-content-type-options"] == "nosniff"
                assert "set-cookie" not in response.headers
                etag = response.headers.get("etag")
            if etag:
                async with web_door.session.get(web_door.url + path, headers={"if-none-match": etag}) as response:
                    assert (response.status, await response.read()) == (304, b"")
        assert "unsafe" not in POLICY


async def test_a_page_that_is_not_built_says_how_to_build_it() -> None:
    """The calls work all the same."""
    async with door() as web_door:
        async with web_door.session.get(web_door.url) as response:
            assert (response.status, await response.text()) == (503, NOT_BUILT)
        assert (await web_door.call("Echo")).status == 0


async def test_a_taken_port_does_not_keep_the_control_plane_from_starting(tmp_path: Path) -> None:
    """It says so in the log, and nowhere is an address that somebody would send a token to."""
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    config = CONFIG.replace('listen: "127.0.0.1:0"', f'listen: "127.0.0.1:0", web_listen: "127.0.0.1:{port}"')
    async with taken, running_control(tmp_path, config) as control:
        event = control.event("web_unavailable")
        assert event is not None
        assert str(port) in event["problem"]
        assert "(control.web_listen)" in event["problem"], "another setting would move the relay"
        assert (control.state_dir / "web.address").read_text().strip() == ""


async def test_nodes_and_their_secrets_are_not_behind_this_door(tmp_path: Path) -> None:
    """Not even for the owner's token: snapshots hold secrets, and no page needs them."""
    config = CONFIG.replace('listen: "127.0.0.1:0"', 'listen: "127.0.0.1:0", web_listen: "127.0.0.1:0"')
    async with running_control(tmp_path, config) as control, aiohttp.ClientSession() as session:
        ready = control.event("control_ready")
        assert ready is not None

        async def status(method: str, token: str) -> int:
            headers = {"content-type": BINARY, "authorization": f"Bearer {token}"}
            async with session.post(
                f"{ready['web']}/ccr.rpc.v1.{method}", data=frame(b""), headers=headers
            ) as response:
                return read(await response.read(), response).status

        assert await status("AccessService/WhoAmI", control.token) == 0
        assert await status("AccessService/WhoAmI", "wrong") == 16
        assert await status("SnapshotService/WatchSnapshots", control.token) == 12
        assert await status("UsageService/ReportUsage", control.token) == 12
