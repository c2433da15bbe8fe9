"""An error inside a stream that began with 200: unseen where another provider is left, told as what it is where none is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.relay import AUTH, STREAM_BODY, client, config, provider, records, relaying
from support.serving import until
from support.upstream import EVENTS, Answer, RawUpstream, Request, Wire, event, stream_answer

ERROR_EVENT = event("error", '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
STREAMS = 510
SESSION = "x-claude-code-session-id: 7b0c0000-0000-4000-8000-000000000001"


def failing(*events: bytes, in_one_piece: bool = False) -> Answer:
    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for piece in [b"".join(events)] if in_one_piece else events:
            wire.chunk(piece)
        wire.end_stream()

    return answer


SHAPES = [
    failing(ERROR_EVENT),
    failing(EVENTS[0], ERROR_EVENT),
    failing(EVENTS[0], EVENTS[2], ERROR_EVENT),
    failing(EVENTS[0], EVENTS[2], ERROR_EVENT, in_one_piece=True),
]


def test_no_error_inside_a_stream_reaches_a_client_while_another_provider_lives(tmp_path: Path) -> None:
    """The bar: 510 streams that begin with 200 and then fail; none is passed on as an answer."""
    with RawUpstream() as first, RawUpstream(stream_answer) as second:
        shapes = iter(range(10**9))

        def any_shape(request: Request, wire: Wire) -> None:
            SHAPES[next(shapes) % len(SHAPES)](request, wire)

        first.answer = any_shape
        text = config(
            provider("first", first.url, priority=0),
            provider("second", second.url, priority=1),
            routing={"cooldown": "0", "affinity": "none"},
            health={"circuit": {"failures": 1000, "min_requests": 1_000_000}},  # it is to fail every time
        )
        with relaying(tmp_path, text) as relay:

            def ask(count: int) -> list[bytes]:
                with client(relay) as connection:
                    return [connection.ask("POST", "/v1/messages", STREAM_BODY, AUTH).body for _ in range(count)]

            with ThreadPoolExecutor(10) as threads:
                bodies = [body for each in threads.map(ask, [STREAMS // 10] * 10) for body in each]
            until(lambda: len(records(relay)) == STREAMS, "all told")
            told = records(relay)
            asked = sum(request.line.startswith("POST") for request in first.requests)

    whole = b"".join(EVENTS)
    wrong = [body for body in bodies if body != whole]
    failed = [[attempt["reason"] for attempt in one["attempts"] if attempt["reason"]] for one in told]  # type: ignore[attr-defined]
    print(f"\n{asked} streams failed inside 200, {len(wrong)} of them reached a client")
    assert not wrong, wrong[:1]
    assert failed.count(["stream_error"]) == asked
    assert asked == STREAMS


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(SHAPES[0], "failed"), (SHAPES[3], "failed"), (failing(*EVENTS[:4], ERROR_EVENT), "broken")],
)
def test_an_error_that_reaches_the_client_is_the_providers_failure(
    tmp_path: Path, answer: Answer, outcome: str
) -> None:
    """It is passed on word for word, recorded as what it is, opens the circuit, and the session is not at home there."""
    with RawUpstream(answer) as only:
        text = config(
            provider("only", only.url),
            routing={"cooldown": "0"},
            health={"circuit": {"failures": 3, "open_for": "60s"}},
        )
        with relaying(tmp_path, text) as relay:
            with client(relay) as connection:
                for _ in range(3):
                    got = connection.ask("POST", "/v1/messages", STREAM_BODY, AUTH, SESSION)
                    assert got.status == 200
                    assert got.body.endswith(ERROR_EVENT)
                    assert got.body.count(b"event: error") == 1
            until(lambda: relay.events("circuit_opened"), "opened")
            until(lambda: len(records(relay)) == 3, "told")
            opened, told = relay.events("circuit_opened"), records(relay)
        pins = [path.read_bytes() for path in (tmp_path / "state" / "pins").glob("**/*") if path.is_file()]

    assert [one["outcome"] for one in told] == [outcome] * 3
    assert {attempt["reason"] for one in told for attempt in one["attempts"]} == {"stream_error"}  # type: ignore[attr-defined]
    assert opened[0]["reason"] == "stream_error"
    assert not any(b"only" in pin for pin in pins), json.dumps([str(pin) for pin in pins])
