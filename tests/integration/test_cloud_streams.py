"""AWS's event stream through the relay: the client gets what Anthropic would have sent, byte for byte, whatever happens on the way.

Each case is told twice, by a Bedrock provider in frames and by an Anthropic provider as server-sent events, and must look the same.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from ccr_demo.clouds import frames
from support.client import Answer, RawClient
from support.clouds import BEDROCK, provider_of
from support.relay import AUTH, client, config, provider, relaying
from support.serving import Relay
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, event, json_answer

TOLD = [each for each in EVENTS if b"event: ping" not in each]  # Bedrock has no pings
SHORT = [*TOLD[:3], *TOLD[-3:]]
METRICS = b',"amazon-bedrock-invocationMetrics":{"inputTokenCount":7,"outputTokenCount":9}}'
HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\nx-amzn-requestid: req_up\r\n"
STREAMED = b'{"model":"%b","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}'

# The name in the stream -> Anthropic's type.
EXCEPTIONS = {
    "internalServerException": "api_error",
    "modelStreamErrorException": "api_error",
    "validationException": "invalid_request_error",
    "throttlingException": "rate_limit_error",
    "modelTimeoutException": "timeout_error",
    "serviceUnavailableException": "overloaded_error",
    "somethingNewException": "api_error",
}
every_exception = pytest.mark.parametrize("name", EXCEPTIONS)


@dataclass
class Stage:
    """Both providers, the one behind them, and the relay."""

    bedrock: RawUpstream
    anthropic: RawUpstream
    relay: Relay
    connections: dict[str, RawClient] = field(default_factory=dict)

    def ask(self, model: str) -> Answer:
        """A streamed request. Answers and breaks alike end it."""
        with client(self.relay) as connection:
            return connection.ask("POST", "/v1/messages", STREAMED % model.encode(), AUTH)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with RawUpstream() as bedrock, RawUpstream() as anthropic, RawUpstream() as rescue:
        rescue.answer = lambda request, wire: tell_as_events(wire, SHORT)
        providers = [
            provider_of(BEDROCK, bedrock.url),
            provider("plain", anthropic.url),
            provider("rescue", rescue.url),
        ]
        routes = [
            {"match": {"model": f"{name}-alone"}, "to": [{"provider": there, "model": model}]}
            for name, there, model in WAYS
        ] + [
            {
                "match": {"model": f"{name}-or-rescue"},
                "to": [{"provider": there, "model": model}, {"provider": "rescue"}],
            }
            for name, there, model in WAYS
        ]
        text = config(
            *providers,
            routing={"routes": routes, "cooldown": "0s", "affinity": "none"},
            health={"circuit": {"failures": 1000}},
        )
        with relaying(tmp_path_factory.mktemp("relay"), text) as relay:
            yield Stage(bedrock, anthropic, relay)


WAYS = (("bedrock", "bedrock", "us.anthropic.claude-opus-5-5"), ("anthropic", "plain", "claude-opus-5-5"))


@pytest.fixture(autouse=True)
def _nothing_went_wrong_upstream(stage: Stage) -> Iterator[None]:
    yield
    assert not stage.bedrock.failures + stage.anthropic.failures


def begin_frames(wire: Wire) -> None:
    wire.send(f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode())


def tell_as_frames(wire: Wire, *written: bytes) -> None:
    begin_frames(wire)
    for each in written:
        wire.chunk(each)
    wire.end_stream()


def tell_as_events(wire: Wire, events: list[bytes]) -> None:
    wire.begin_stream("request-id: req_up")
    for each in events:
        wire.chunk(each)
    wire.end_stream()


def framed(events: list[bytes]) -> list[bytes]:
    """Each event in a frame; the last carries Bedrock's figures."""
    told = [frames.data_of(each) for each in events]
    if b"message_stop" in told[-1]:
        told[-1] = told[-1][:-1] + METRICS
    return [frames.chunk(each) for each in told]


def error_event(kind: str, message: str) -> bytes:
    return event(
        "error", json.dumps({"type": "error", "error": {"type": kind, "message": message}}, separators=(",", ":"))
    )


def test_the_same_events_are_the_same_bytes(stage: Stage) -> None:
    """Bedrock's own figures are left out; everything else is as the model said it."""
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *framed(TOLD))
    stage.anthropic.answer = lambda request, wire: tell_as_events(wire, TOLD)

    told, expected = stage.ask("bedrock-alone"), stage.ask("anthropic-alone")

    assert told.status == expected.status == 200
    assert told.body == expected.body == b"".join(TOLD)
    assert told.header("content-type") == "text/event-stream; charset=utf-8"
    assert told.header("request-id") == "req_up"
    assert told.header("x-amzn-bedrock-content-type") is None
    assert told.header("content-length") is None


def test_what_is_no_event_is_skipped(stage: Stage) -> None:
    """Figures by themselves, frames of other kinds, headers of other types."""
    strange = [
        frames.chunk(b'{"amazon-bedrock-invocationMetrics":{"inputTokenCount":7}}'),
        frames.frame(b"{}", event_type="initial-response", message_type="event"),
        frames.frame(b"whatever", message_type="news"),
    ]
    written = [part for each in framed(TOLD) for part in (*strange, each)]
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *written)

    assert stage.ask("bedrock-alone").body == b"".join(TOLD)


def test_events_that_nobody_knows_yet_pass(stage: Stage) -> None:
    news = event("brand_new", '{"type":"brand_new","a":[1,2,{"é":"😀\\u2028"}]}')
    told = [*TOLD[:3], news, *TOLD[3:]]
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *framed(told))

    assert stage.ask("bedrock-alone").body == b"".join(told)


@dataclass
class Halting:
    """Tells a stream in two pieces, the second when the client has everything that the first completes."""

    first: bytes
    second: bytes
    goes_on: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request, wire: Wire) -> None:
        begin_frames(wire)
        if self.first:
            wire.chunk(self.first)
        self.goes_on.wait(10)
        if self.second:
            wire.chunk(self.second)
        wire.end_stream()


def test_the_bytes_may_be_cut_anywhere(stage: Stage) -> None:
    """At every single place; what is complete is passed on without waiting for the rest."""
    written, expected = b"".join(framed(SHORT)), b"".join(SHORT)
    ends = [sum(map(len, framed(SHORT)[:count])) for count in range(len(SHORT) + 1)]
    with client(stage.relay) as connection:
        for cut in range(len(written) + 1):
            halting = Halting(written[:cut], written[cut:])
            stage.bedrock.answer = halting
            complete = sum(1 for end in ends[1:] if end <= cut)
            visible = b"".join(SHORT[:complete]) if complete >= 2 else b""  # the answer begins with its content
            connection.request("POST", "/v1/messages", STREAMED % b"bedrock-alone", AUTH)
            if not visible:
                halting.goes_on.set()
            assert connection.head().status == 200
            body = b""
            while len(body) < len(visible):
                body += connection.payload()
            assert body == visible
            halting.goes_on.set()
            while payload := connection.payload():
                body += payload
            assert body == expected, cut


def test_one_byte_at_a_time(stage: Stage) -> None:
    def tell(request: Request, wire: Wire) -> None:
        begin_frames(wire)
        for byte in b"".join(framed(TOLD)):
            wire.chunk(bytes([byte]))
        wire.end_stream()

    stage.bedrock.answer = tell

    assert stage.ask("bedrock-alone").body == b"".join(TOLD)


def test_a_large_event_passes(stage: Stage) -> None:
    """More than one read, and more than the relay passes on at once."""
    text = "é" * 600_000
    big = event("content_block_delta", json.dumps({"type": "content_block_delta", "text": text}, ensure_ascii=False))
    told = [*TOLD[:3], big, *TOLD[3:]]
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *framed(told))

    assert stage.ask("bedrock-alone").body == b"".join(told)


@every_exception
@pytest.mark.parametrize("count", [0, 1, 2, 3, len(TOLD) - 1])
def test_an_exception_is_anthropics_error_event(stage: Stage, name: str, count: int) -> None:
    """And the last, wherever it comes, if there is no other provider to ask."""
    failure = frames.exception(name, "It is no use.")
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *framed(TOLD)[:count], failure)
    ending = error_event(EXCEPTIONS[name], "It is no use.")
    stage.anthropic.answer = lambda request, wire: tell_as_events(wire, [*TOLD[:count], ending])

    told, expected = stage.ask("bedrock-alone"), stage.ask("anthropic-alone")

    assert told.status == expected.status == 200
    assert told.body == expected.body == b"".join(TOLD[:count]) + ending


def test_an_error_frame_is_an_error_event_too(stage: Stage) -> None:
    failure = frames.error("InternalFailure", "An unknown error occurred.")
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *framed(TOLD)[:3], failure)

    ending = error_event("api_error", "An unknown error occurred.")
    assert stage.ask("bedrock-alone").body == b"".join(TOLD[:3]) + ending


@every_exception
@pytest.mark.parametrize("count", [0, 1])
def test_an_exception_before_content_moves_on(stage: Stage, name: str, count: int) -> None:
    """To another provider, and nobody sees it."""
    failure = frames.exception(name, "It is no use.")
    stage.bedrock.answer = lambda request, wire: tell_as_frames(wire, *framed(TOLD)[:count], failure)

    told = stage.ask("bedrock-or-rescue")

    assert (told.status, told.body) == (200, b"".join(SHORT))


def corrupt(count: int) -> Callable[[Wire], None]:
    def tell(wire: Wire) -> None:
        written = framed(TOLD)
        written[count] = frames.corrupted(written[count])
        tell_as_frames(wire, *written)

    return tell


def corrupt_prelude(count: int) -> Callable[[Wire], None]:
    def tell(wire: Wire) -> None:
        written = framed(TOLD)
        written[count] = b"\x7f" + written[count][1:]
        tell_as_frames(wire, *written)

    return tell


def truncated(count: int) -> Callable[[Wire], None]:
    """The answer ends, as if whole, in the middle of a frame."""

    def tell(wire: Wire) -> None:
        written = framed(TOLD)
        tell_as_frames(wire, *written[:count], written[count][: len(written[count]) // 2])

    return tell


def ended_early(count: int) -> Callable[[Wire], None]:
    """The answer ends, as if whole, between two frames."""
    return lambda wire: tell_as_frames(wire, *framed(TOLD)[:count])


def broken(count: int) -> Callable[[Wire], None]:
    def tell(wire: Wire) -> None:
        begin_frames(wire)
        for each in framed(TOLD)[:count]:
            wire.chunk(each)
        wire.reset()

    return tell


def no_frames(count: int) -> Callable[[Wire], None]:
    """A proxy's page behind some frames."""
    return lambda wire: tell_as_frames(wire, *framed(TOLD)[:count], b"<html>Bad gateway</html>" * 10)


DAMAGES = {
    "a checksum": corrupt,
    "a prelude": corrupt_prelude,
    "cut in a frame": truncated,
    "cut between frames": ended_early,
    "a broken connection": broken,
    "no frames at all": no_frames,
}
every_damage = pytest.mark.parametrize("damage", DAMAGES)


@every_damage
@pytest.mark.parametrize("count", [2, 3, len(TOLD) - 1])
def test_damage_behind_content_ends_in_an_error_event(stage: Stage, damage: str, count: int) -> None:
    """Everything before it has been passed on, nothing of the damage is, and the client knows that it was no end."""
    tell = DAMAGES[damage](count)
    stage.bedrock.answer = lambda request, wire: tell(wire)

    told = stage.ask("bedrock-alone")

    before, _, data = told.body.partition(b"event: error\ndata: ")
    assert told.status == 200
    assert b"".join(TOLD[:count]).startswith(before)
    if damage != "a broken connection":  # what had arrived may be lost with a reset connection
        assert before == b"".join(TOLD[:count])
    assert json.loads(data)["error"]["type"] == "api_error"


@every_damage
@pytest.mark.parametrize("count", [0, 1])
def test_damage_before_content_moves_on(stage: Stage, damage: str, count: int) -> None:
    tell = DAMAGES[damage](count)
    stage.bedrock.answer = lambda request, wire: tell(wire)

    told = stage.ask("bedrock-or-rescue")

    assert (told.status, told.body) == (200, b"".join(SHORT))


@every_damage
def test_damage_with_nowhere_to_go_is_an_error(stage: Stage, damage: str) -> None:
    """Nothing but an error event, since the answer had begun."""
    tell = DAMAGES[damage](0)
    stage.bedrock.answer = lambda request, wire: tell(wire)

    told = stage.ask("bedrock-alone")

    before, _, data = told.body.partition(b"event: error\ndata: ")
    assert (told.status, before) == (200, b"")
    assert json.loads(data)["error"]["type"] == "api_error"


AWS_ERRORS = [
    (400, "ValidationException", 400, "invalid_request_error"),
    (403, "AccessDeniedException", 403, "permission_error"),
    (404, "ResourceNotFoundException", 404, "not_found_error"),
    (429, "ThrottlingException", 429, "rate_limit_error"),
    (400, "ServiceQuotaExceededException", 429, "rate_limit_error"),
    (429, "ModelNotReadyException", 529, "overloaded_error"),
    (408, "ModelTimeoutException", 504, "timeout_error"),
    (424, "ModelErrorException", 500, "api_error"),
    (500, "InternalServerException", 500, "api_error"),
    (503, "ServiceUnavailableException", 529, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "name", "answered", "kind"), AWS_ERRORS)
@pytest.mark.parametrize("place", ["header", "header with more", "body"])
def test_errors_are_told_in_anthropics_words(
    stage: Stage, status: int, name: str, answered: int, kind: str, place: str
) -> None:
    """As docs/providers/bedrock.md has it; accounts and resources are nobody's business."""
    text = "no access to arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x for account 123456789012"
    body: dict[str, str] = {"message": text} if place != "body" else {"__type": f"com.amazon#{name}", "Message": text}
    mark = {"header": f"x-amzn-errortype: {name}", "header with more": f"X-Amzn-ErrorType: {name}:http://x/"}.get(place)
    lines = [mark] if mark else []
    stage.bedrock.answer = lambda request, wire: wire.send(
        json_answer(json.dumps(body).encode(), f"{status} No", *lines)
    )

    told = stage.ask("bedrock-alone")

    assert (told.status, json.loads(told.body)["error"]["type"]) == (answered, kind)
    assert b"123456789012" not in told.body
    assert told.header("x-amzn-errortype") is None


def test_too_long_is_said_so_that_claude_code_understands(stage: Stage) -> None:
    """It then compacts the conversation."""
    body = b'{"message":"Input is too long for requested model."}'
    stage.bedrock.answer = lambda request, wire: wire.send(
        json_answer(body, "400 Bad Request", "x-amzn-errortype: ValidationException")
    )

    assert b"prompt is too long" in stage.ask("bedrock-alone").body


def test_a_whole_answer_passes_as_it_came(stage: Stage) -> None:
    stage.bedrock.answer = lambda request, wire: wire.send(json_answer(MESSAGE, "200 OK", "x-amzn-requestid: req_up"))
    with client(stage.relay) as connection:
        told = connection.ask("POST", "/v1/messages", STREAMED.replace(b"true", b"false") % b"bedrock-alone", AUTH)

    assert told.body == MESSAGE
    assert told.header("request-id") == "req_up"


def test_the_relay_pings_where_bedrock_does_not(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a pause behind content, too: Claude Code gives a silent stream up."""
    goes_on = threading.Event()

    def tell(request: Request, wire: Wire) -> None:
        begin_frames(wire)
        for each in framed(TOLD)[:3]:
            wire.chunk(each)
        goes_on.wait(10)
        for each in framed(TOLD)[3:]:
            wire.chunk(each)
        wire.end_stream()

    with RawUpstream(tell) as upstream:
        text = config(provider_of(BEDROCK, upstream.url), routing={"silence_bound": "1s"})
        with relaying(tmp_path_factory.mktemp("silent"), text) as relay, client(relay) as connection:
            connection.request("POST", "/v1/messages", STREAMED % b"claude-opus-5-5", AUTH)
            assert connection.head().status == 200
            body = b""
            while b"event: ping" not in body:
                body += connection.payload()
            goes_on.set()
            while payload := connection.payload():
                body += payload

    assert body.replace(b'event: ping\ndata: {"type": "ping"}\n\n', b"") == b"".join(TOLD)
