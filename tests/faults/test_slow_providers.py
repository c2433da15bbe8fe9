"""Providers that drip, and answers that never end: others are served, and nobody waits without a bound."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator

import pytest
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, relaying
from support.serving import Relay, until
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, json_answer, stream_answer

pytestmark = pytest.mark.long

DRIP_S = 0.06  # well within the idle limit
IDLE = "2s"


def other(request: Request, wire: Wire) -> None:
    if b'"stream":true' in request.body:
        stream_answer(request, wire)
    else:
        wire.send(json_answer(MESSAGE.replace(b"msg_1", b"msg_2")))


@pytest.fixture(scope="module")
def slow() -> Iterator[RawUpstream]:
    with RawUpstream() as found:
        yield found


@pytest.fixture(scope="module")
def relay(slow: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with RawUpstream(other) as sound:
        times = {"idle": IDLE, "first_byte": "20s"}
        text = config(
            provider("slow", slow.url, serves=["claude-test"], timeouts=times),
            provider("whole", slow.url, serves=["claude-limited"], timeouts={**times, "total": "2s"}),
            provider("sound", sound.url, priority=1),
            routing={"cooldown": "0s"},
            health={"circuit": {"failures": 1000, "min_requests": 100_000}},
        )
        with relaying(tmp_path_factory.mktemp("slow"), text) as found:
            until(lambda: found.events("snapshot_served"), "it has the configuration")
            yield found


def test_a_few_bytes_at_a_time_are_an_answer_all_the_same(relay: Relay, slow: RawUpstream) -> None:
    """Whatever the cuts, the client gets what was sent; others are served at once meanwhile."""
    begun = threading.Event()

    def answer(request: Request, wire: Wire) -> None:
        data = json_answer(MESSAGE)
        wire.send(data[: -len(MESSAGE)])
        for at in range(0, len(MESSAGE), 4):
            wire.send(MESSAGE[at : at + 4])
            begun.set()
            time.sleep(DRIP_S)  # not to wait: a provider that is slow, longer in all than the idle limit

    slow.answer = answer
    with client(relay) as connection, client(relay) as quick:
        connection.request("POST", "/v1/messages", BODY, AUTH)
        assert begun.wait(10)
        for _ in range(5):
            assert quick.ask("POST", "/v1/messages", BODY.replace(b"claude-test", b"claude-x"), AUTH).status == 200
        answered = connection.answer()
    assert (answered.status, answered.body) == (200, MESSAGE)
    assert answered.header("x-cc-relay-provider") == "slow"


@pytest.mark.parametrize("sent", [b"", MESSAGE[:1], MESSAGE[:-1]], ids=["no byte", "one byte", "all but one"])
def test_an_answer_in_one_piece_that_never_ends_is_served_by_another(
    relay: Relay, slow: RawUpstream, sent: bytes
) -> None:
    """After the idle limit, without the client having seen any of it."""

    def answer(request: Request, wire: Wire) -> None:
        wire.send(json_answer(MESSAGE)[: -len(MESSAGE)] + sent)
        with contextlib.suppress(TimeoutError):
            wire.wait_gone(20)

    slow.answer = answer
    with client(relay) as connection:
        answered = connection.ask("POST", "/v1/messages", BODY, AUTH)
    assert (answered.status, answered.header("x-cc-relay-provider")) == (200, "sound")
    assert json.loads(answered.body)["id"] == "msg_2"


def test_an_answer_that_drips_for_ever_ends_by_its_whole_time(relay: Relay, slow: RawUpstream) -> None:
    """Each byte comes in time, and there is no last one: `timeouts.total` is the bound."""

    def answer(request: Request, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                wire.send(b" ")
                time.sleep(DRIP_S)  # not to wait: a provider that is slow

    slow.answer = answer
    with client(relay) as connection:
        answered = connection.ask("POST", "/v1/messages", BODY.replace(b"claude-test", b"claude-limited"), AUTH)
    assert (answered.status, answered.header("x-cc-relay-provider")) == (200, "sound")


def test_a_stream_that_falls_silent_behind_its_last_event_is_whole(relay: Relay, slow: RawUpstream) -> None:
    """The provider forgets to end its chunks: after the idle limit the client has a proper end, and no error."""

    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for piece in EVENTS:
            wire.chunk(piece)
        with contextlib.suppress(TimeoutError):
            wire.wait_gone(20)

    slow.answer = answer
    with client(relay) as connection:
        answered = connection.ask("POST", "/v1/messages", STREAM_BODY, AUTH)
        assert (answered.status, answered.body) == (200, b"".join(EVENTS))
        slow.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
        assert connection.ask("POST", "/v1/messages", BODY, AUTH).status == 200, "the connection goes on"
