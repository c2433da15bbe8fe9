"""The demo provider on the wire: steps, cuts, raw bytes, records, leaving clients."""

import asyncio
import base64
import gzip
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ccr_demo import DemoServer
from ccr_demo.tls import server_context, write_self_signed

HEADERS = {"x-api-key": "sk-demo", "anthropic-version": "2023-06-01"}


@asynccontextmanager
async def open_stream(demo: DemoServer, ask: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(f"{demo.url}/v1/messages", json={**ask, "stream": True}, headers=HEADERS) as response,
    ):
        yield response


async def read_event(response: aiohttp.ClientResponse) -> str:
    """The name of the next event."""
    text = (await response.content.readuntil(b"\n\n")).decode()
    return text.split("\n", maxsplit=1)[0].removeprefix("event: ")


async def test_a_lock_step_stream_sends_one_event_for_each_step(demo: DemoServer, ask: dict[str, Any]) -> None:
    """To prove that event k is at the client before the provider sends k + 1."""
    demo.play({"text": ["a", "b"], "step": True, "id": "slow"})

    async with open_stream(demo, ask) as response:
        names = [await read_event(response)]
        while names[-1] != "message_stop":
            assert demo.requests[0].events_sent == len(names)
            assert await demo.step("slow") == len(names) + 1
            names.append(await read_event(response))

    assert names.count("content_block_delta") == 2
    assert demo.stats.aborted_streams == 0


async def test_a_client_that_leaves_is_noticed_at_once(demo: DemoServer, ask: dict[str, Any]) -> None:
    """Also while the provider has nothing to send."""
    demo.play({"text": "a", "step": True})

    async with open_stream(demo, ask) as response:
        await read_event(response)
        assert demo.stats.open_streams == 1
        left_s = asyncio.get_running_loop().time()
        response.close()
        await demo.until(lambda: demo.stats.aborted_streams == 1)

    assert demo.requests[0].aborted_s is not None
    assert demo.requests[0].aborted_s - left_s < 0.5
    assert demo.stats.open_streams == 0
    await demo.until(lambda: demo.stats.open_connections == 0)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_cut_stream_ends_after_the_event(demo: DemoServer, ask: dict[str, Any], how: str) -> None:
    demo.play({"text": "a", "cut_after_event": 2, "cut": how})

    async with open_stream(demo, ask) as response:
        assert await read_event(response) == "message_start"
        assert await read_event(response) == "content_block_start"
        with pytest.raises(aiohttp.ClientError):
            await response.content.readany()


async def test_a_stream_can_end_without_message_stop(demo: DemoServer, ask: dict[str, Any]) -> None:
    demo.play({"text": "a", "cut_after_event": 2, "cut": "end"})

    async with open_stream(demo, ask) as response:
        assert (await response.read()).count(b"event: ") == 2


async def test_a_connection_can_break_before_any_answer(demo: DemoServer, ask: dict[str, Any]) -> None:
    demo.play({"cut_after_event": -1, "times": 0})

    with pytest.raises(aiohttp.ClientError):
        async with open_stream(demo, ask):
            pass


async def test_an_error_event_ends_a_stream(demo: DemoServer, ask: dict[str, Any]) -> None:
    demo.play({"text": "a", "error_event": "overloaded_error", "error_event_after": 3})

    async with open_stream(demo, ask) as response:
        text = (await response.read()).decode()

    assert text.count("event: ") == 4
    assert text.endswith(
        'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    )


async def test_compressed_events_can_be_read_one_by_one(demo: DemoServer, ask: dict[str, Any]) -> None:
    demo.play({"text": "a b", "content_encoding": "gzip"})

    async with open_stream(demo, ask) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert gzip.decompress(await response.read()).endswith(
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        )


async def test_raw_chunks_keep_their_borders(demo: DemoServer, ask: dict[str, Any]) -> None:
    """A relay must survive any chunking, even inside a character."""
    chunks = [b"event: x\nda", b'ta: {"\xc3', b'\xa4":1}\n', b"\n"]
    demo.play({"raw_chunks": [base64.b64encode(chunk).decode() for chunk in chunks], "headers": {"x-odd": "1"}})
    reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
    body = json.dumps(ask).encode()
    writer.write(
        b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nx-api-key: k\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )

    head = await reader.readuntil(b"\r\n\r\n")
    sent = await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    await writer.wait_closed()

    assert b"x-odd: 1" in head
    assert sent == b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def test_a_raw_response_is_written_as_it_stands(demo: DemoServer) -> None:
    raw = [b"HTTP/1.1 200 Odd Reason\r\nX-Odd:  1\r\n", b"\r\nno length, so it ends with the connection"]
    demo.play({"raw_response": [base64.b64encode(each).decode() for each in raw]})
    reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
    writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")

    assert await reader.read() == b"".join(raw)
    writer.close()
    await writer.wait_closed()


async def test_requests_are_recorded_verbatim(demo: DemoServer, ask: dict[str, Any]) -> None:
    """Order and case of names, the query, and every byte of the body."""
    body = b'{"model":"m", "max_tokens":1,"max_tokens":2, "messages":[{"role":"user","content":"\\u00e4"}] }\n'
    head = b"POST /v1/messages?beta=true&x=%20 HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\nx-Odd: b\r\nX-odd: a\r\n"
    head += b"anthropic-version: 2023-06-01\r\ncontent-length: %d\r\n\r\n" % len(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
    writer.write(head + body)
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()

    record = demo.requests[0]
    assert record.body == body
    assert record.target == "/v1/messages?beta=true&x=%20"
    assert [name for name, _ in record.headers] == [
        b"Host",
        b"X-API-Key",
        b"x-Odd",
        b"X-odd",
        b"anthropic-version",
        b"content-length",
    ]
    async with aiohttp.ClientSession() as session, session.get(f"{demo.url}/__demo/requests") as response:
        shown = (await response.json())["requests"][0]
    assert base64.b64decode(shown["body"]) == body
    assert shown["headers"][3] == ["X-odd", "a"]
    assert shown["status"] == 200


async def test_records_are_bounded(ask: dict[str, Any]) -> None:
    async with DemoServer(record_last=2) as demo:
        for _ in range(3):
            async with open_stream(demo, ask) as response:
                await response.read()

        assert [record.number for record in demo.requests] == [2, 3]


async def test_other_processes_use_the_control_endpoints(demo: DemoServer, ask: dict[str, Any]) -> None:
    async with aiohttp.ClientSession(demo.url) as session:

        async def call(method: str, name: str, **more: Any) -> tuple[int, Any]:
            async with session.request(method, f"/__demo/{name}", **more) as response:
                return response.status, await response.json()

        assert await call("POST", "script", json=[{"text": "a", "step": True, "id": "s"}]) == (200, {"steps": 1})
        assert (await call("POST", "script", data="- {txet: a}"))[0] == 400
        assert await call("POST", "settings", json={"pace_ms": 1}) == (200, {})
        assert (await call("POST", "settings", json={"pase_ms": 1}))[0] == 400
        async with open_stream(demo, ask) as response:
            await read_event(response)
            assert await call("POST", "step?id=s") == (200, {"events_sent": 2})
        await demo.until(lambda: demo.stats.aborted_streams == 1)
        assert (await call("GET", "stats"))[1]["aborted_streams"] == 1
        assert await call("GET", "script") == (200, {"steps_left": 0})
        assert await call("POST", "reset") == (200, {})
        assert (await call("GET", "requests"))[1] == {"requests": []}
        assert (await call("GET", "nonsense"))[0] == 404


async def test_it_speaks_tls(tmp_path: Path, ask: dict[str, Any]) -> None:
    cert, key = write_self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)
    async with (
        DemoServer(ssl_context=server_context(cert, key)) as demo,
        aiohttp.ClientSession() as session,
        session.post(f"{demo.url}/v1/messages", json=ask, headers=HEADERS, ssl=trusting) as response,
    ):
        assert demo.url.startswith("https://")
        assert (await response.json())["role"] == "assistant"


async def test_the_program_serves_a_script_until_it_is_told_to_stop(tmp_path: Path, ask: dict[str, Any]) -> None:
    """`ccr serve --demo` starts it like this."""
    script = tmp_path / "script.yaml"
    script.write_text("- {text: from a file}\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ccr_demo", "--listen", "127.0.0.1:0", "--script", str(script), "--pace", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            url = (await process.stdout.readline()).decode().split()[-1]
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{url}/v1/messages", json=ask, headers=HEADERS) as response,
            ):
                assert (await response.json())["content"][0]["text"] == "from a file"
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_program_takes_a_socket_from_its_parent(ask: dict[str, Any]) -> None:
    """A supervisor binds first, so that a restart loses no connection."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ccr_demo", "--listen-fd", str(bound.fileno()), "--quiet", "--pace", "0"),
            pass_fds=[bound.fileno()],
        )
        try:
            async with (
                asyncio.timeout(20),
                aiohttp.ClientSession() as session,  # the kernel keeps the connection until somebody accepts it
                session.post(
                    f"http://127.0.0.1:{bound.getsockname()[1]}/v1/messages", json=ask, headers=HEADERS
                ) as response,
            ):
                assert response.status == 200
        finally:
            process.terminate()
            assert await process.wait() == 0


async def test_the_program_says_why_it_cannot_start(demo: DemoServer) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ccr_demo", "--listen", f"127.0.0.1:{demo.port}"), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        _, errors = await process.communicate()

    assert process.returncode == 2
    assert b"cannot start" in errors
