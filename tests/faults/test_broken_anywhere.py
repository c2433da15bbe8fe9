"""A provider breaks off at every byte of its answer: another one serves, or the answer ends properly; nobody hangs."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from support.load import Background, BackgroundServer
from support.relay import AUTH, config, provider, records, relaying
from support.serving import Relay, until
from support.tls import Certificates
from support.upstream import EVENTS, MESSAGE, json_answer

AT_A_TIME = 12
ANSWER_WITHIN_S = 30.0  # hours beside the milliseconds that it takes: whoever needs longer hangs
PAUSE_S = 0.001  # between two pieces of an answer, so that the relay reads them apart
SHORT = [*EVENTS[:5], *EVENTS[-3:]]
STREAM = b"".join(SHORT)
OTHER_STREAM = STREAM.replace(b"msg_1", b"msg_2")
OTHER_MESSAGE = MESSAGE.replace(b"msg_1", b"msg_2")
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
DONE = '"event":"request_done"'
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


@dataclass(frozen=True)
class Kind:
    """An answer, where its head ends, and up to where nothing in it is worth keeping a client waiting."""

    whole: bytes
    is_stream: bool
    content_at: int = field(default=0)  # before this byte the client must not have had any of it

    @property
    def expected(self) -> bytes:
        return STREAM if self.is_stream else MESSAGE

    @property
    def instead(self) -> bytes:
        return OTHER_STREAM if self.is_stream else OTHER_MESSAGE


def streamed(whole: bytes) -> Kind:
    return Kind(whole, is_stream=True, content_at=whole.index(b"content_block_start"))


def in_one_piece(whole: bytes) -> Kind:
    return Kind(whole, is_stream=False, content_at=len(whole))


KINDS = {
    "length": in_one_piece(json_answer(MESSAGE)),
    "chunked": in_one_piece(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + CHUNKED + chunked(MESSAGE[:70], MESSAGE[70:])
    ),
    "stream": streamed(SSE + CHUNKED + chunked(*SHORT)),
    "until-close": streamed(SSE + b"connection: close\r\n\r\n" + STREAM),
}
ENDS = ("fin", "rst")
_ASKED = re.compile(rb'"content":"(\S+) (\d+) of (\d+) then (\w+)"')


@dataclass(frozen=True)
class Case:
    """How a provider answers: so many bytes, in two pieces the first of which has `first` bytes, then it hangs up."""

    model: str
    kind: str
    size: int
    first: int
    end: str

    def body(self) -> bytes:
        asked = f"{self.kind} {self.first} of {self.size} then {self.end}"
        found = {"model": self.model, "max_tokens": 9, "messages": [{"role": "user", "content": asked}]}
        stream = {"stream": True} if KINDS[self.kind].is_stream else {}
        return json.dumps({**found, **stream}, separators=(",", ":")).encode()


class Breaking(BackgroundServer):
    """A provider that breaks off as a request asks it to; or one that never does, with another answer."""

    is_sound = False

    def hang_up(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        asked = _ASKED.search(await reader.readexactly(int(length[1]) if length else 0))
        assert asked
        name, end = asked[1].decode(), asked[4].decode()
        kind, first, size = KINDS[name], int(asked[2]), int(asked[3])
        if self.is_sound:
            writer.write(kind.whole.replace(b"msg_1", b"msg_2"))
            await writer.drain()
            return name != "until-close"
        if first:
            writer.write(kind.whole[:first])
            await asyncio.sleep(PAUSE_S)
        writer.write(kind.whole[first:size])
        await writer.drain()
        if end == "rst":
            await asyncio.sleep(PAUSE_S)  # a reset overtakes what has not been read
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        elif self._tls is None:
            writer.close()
            await writer.wait_closed()
        return False


class Sound(Breaking):
    is_sound = True


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.close()


@pytest.fixture(scope="module")
def relay(
    background: Background, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """One relay for all of it. No circuit opens and nobody rests: each request begins at the one that breaks."""
    with (
        Breaking(background) as plain,
        Breaking(background, tls=certificates.server_context()) as tls,
        Sound(background) as sound,
    ):
        providers = [
            provider("plain", plain.url, serves=["claude-plain", "claude-alone"]),
            provider("tls", tls.url, serves=["claude-tls"], ca_file=str(certificates.ca_file)),
            provider("sound", sound.url, priority=1, serves=["claude-plain", "claude-tls"]),
        ]
        text = config(
            *providers,
            routing={"cooldown": "0s", "affinity": "none"},
            health={"circuit": {"failures": 1000, "min_requests": 100_000}},
        )
        with relaying(tmp_path_factory.mktemp("broken"), text, "--workers", "2") as found:
            until(lambda: len(found.events("snapshot_served")) >= 2, "both workers have the configuration")
            yield found


@dataclass
class Seen:
    """What a client got."""

    case: Case
    status: int = 0
    provider: str = ""
    body: bytes = b""
    is_whole: bool = False  # as far as HTTP tells

    def __str__(self) -> str:
        end = "whole" if self.is_whole else "broken off"
        return f"{self.case}: {self.status} of {self.provider!r}, {end}: {self.body[-300:]!r}"


async def ask(address: tuple[str, int], case: Case) -> Seen:
    seen = Seen(case)
    body = case.body()
    async with asyncio.timeout(ANSWER_WITHIN_S):
        reader, writer = await asyncio.open_connection(*address)
        try:
            lines = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(lines.encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            seen.status = int(head.split(" ")[1])
            named = re.search(r"x-cc-relay-provider: (\S+)", head)
            seen.provider = named[1] if named else ""
            length = re.search(r"content-length: (\d+)", head)
            if length:
                seen.body = await reader.readexactly(int(length[1]))
            else:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    seen.body += await reader.readexactly(size)
                    assert await reader.readexactly(2) == b"\r\n", case
                assert await reader.readexactly(2) == b"\r\n", case
            seen.is_whole = True
        except asyncio.IncompleteReadError as error:
            seen.body += error.partial
        except ConnectionError:
            pass
        finally:
            writer.close()
    return seen


def asked(background: Background, relay: Relay, cases: list[Case]) -> list[Seen]:
    """Every case, several at a time."""
    host, _, port = relay.url.removeprefix("http://").rpartition(":")
    waiting, found = iter(cases), list[Seen]()

    async def client() -> None:
        for case in waiting:
            found.append(await ask((host, int(port)), case))

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(AT_A_TIME)))

    background.run(clients(), 120)
    return found


def wrong_with(seen: Seen) -> str:
    """What must not be; empty: nothing."""
    case, kind = seen.case, KINDS[seen.case.kind]
    if seen.provider == "sound":
        is_right = seen.status == 200 and seen.is_whole and seen.body == kind.instead
        return "" if is_right else "another answer than the second provider's"
    if seen.status != 200 or case.size < kind.content_at:
        return "the second provider could have served it"
    if not kind.is_stream:
        return "" if seen.is_whole and seen.body == kind.expected else "broken before it was whole"
    if seen.body == kind.expected:  # all that was missing is the end of the framing
        return "" if seen.is_whole else "its last event came, and yet it looks broken"
    return wrong_end(seen)


def wrong_end(seen: Seen) -> str:
    """What is wrong with a stream that broke after the client had its beginning."""
    if not seen.is_whole:
        return "broken off instead of ended"
    *events, last = [block for block in seen.body.replace(b"\r\n", b"\n").split(b"\n\n") if block.strip()]
    name, _, data = last.strip().partition(b"\n")
    if name != b"event: error":
        return "the last event is no error"
    if json.loads(data.removeprefix(b"data: "))["error"]["type"] != "api_error":
        return "another error than it should be"
    for block in events:  # all that a client would act upon is as the provider sent it
        names = [line for line in block.split(b"\n") if line.startswith(b"event:")]
        if names and names[-1] != b"event: incomplete" and block.strip(b"\n") + b"\n\n" not in SHORT:
            return f"an event that the provider did not send: {block!r}"
    return ""


def check(found: list[Seen], cases: list[Case]) -> None:
    assert len(found) == len(cases)
    wrong = [f"{problem}: {seen}" for seen in found if (problem := wrong_with(seen))]
    assert not wrong, f"{len(wrong)} of {len(found)}, for example:\n" + "\n".join(wrong[:: max(1, len(wrong) // 8)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte(background: Background, relay: Relay, kind: str) -> None:
    """Cut there with FIN or with RST, in one piece or in two: the second provider serves whatever had not begun."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    whole = KINDS[kind].whole
    cases = [
        Case("claude-plain", kind, size, roll.choice((0, roll.randrange(size + 1))), roll.choice(ENDS))
        for size in range(len(whole))
    ]
    for at in range(0, len(cases), 100):  # else so many failures in a row would open its circuit
        cases.insert(at, Case("claude-plain", kind, len(whole), 0, "fin"))
    before = relay.output.count(DONE)
    found = asked(background, relay, cases)
    check(found, cases)
    begun = [seen for seen in found if seen.provider == "plain"]
    assert all(seen.case.size >= KINDS[kind].content_at for seen in begun)
    assert all(seen in begun for seen in found if seen.case.size == len(whole))
    until(lambda: relay.output.count(DONE) - before >= len(cases), "every request has its record")
    tried = [one["attempts"][0]["provider"] for one in records(relay)[before:]]  # type: ignore[index]
    assert tried == ["plain"] * len(cases), "none passed the first one by"


def test_behind_tls_it_is_the_same(background: Background, relay: Relay) -> None:
    """A provider that vanishes without a word of TLS is no proper end either."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    cases = [
        Case("claude-tls", kind, size, roll.choice((0, roll.randrange(size + 1))), end)
        for kind, one in KINDS.items()
        for end in ENDS
        for size in sorted(roll.sample(range(len(one.whole)), 12))
    ]
    check(asked(background, relay, cases), cases)


def test_without_another_provider_nothing_is_taken_for_whole(background: Background, relay: Relay) -> None:
    """The client is told, by the status, by an error event, or by a connection that breaks off."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    cases = [
        Case("claude-alone", kind, size, roll.choice((0, roll.randrange(size + 1))), roll.choice(ENDS))
        for kind, one in KINDS.items()
        for size in sorted(roll.sample(range(len(one.whole)), 60))
    ]
    for seen in asked(background, relay, cases):
        one = KINDS[seen.case.kind]
        if seen.status == 200 and seen.is_whole and seen.body != one.expected:
            assert one.is_stream, seen
            assert not wrong_end(seen), f"{wrong_end(seen)}: {seen}"
        elif seen.status == 200 and seen.is_whole:
            assert one.is_stream, "an answer in one piece that was cut is never whole"
        else:
            assert seen.status in (200, 502), seen
