"""Logs: whole lines, no secrets, nothing that steers a terminal, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable

import pytest
from ccr_data.core.records import AttemptRecord, Outcome, Reason
from ccr_data.shell.logs import LineWriter, Log, LogFormat, logging_to, masked, stderr_write, whole_lines, word
from ccr_data.shell.request_log import RequestLog, json_lines, text_line
from support.node_values import record

SECRETS = (
    "sk-ant-api03-AAAAAAAAAAAA",
    "sk-ant-oat01-BBBBBBBBBBBB",
    "sk-proj-CCCCCCCCCCCC",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.DDDDDDDDDDDD",
)
EVIL = "a\nb\r\x1b[31m\x9b2J\u2028\u202e\x7f\ud800"


class Sink:
    """Collects what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.data.splitlines()]


def logged(log_format: LogFormat, act: Callable[[], object]) -> Sink:
    sink = Sink()
    with logging_to(sink.write, log_format, is_terminal=False):
        act()
    return sink


# secrets


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "Bearer {}", "x\x1b{}", "key={},", 'a"{}"', "authorization: BEARER  {}"])
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_never_appear_in_events(secret: str, around: str, log_format: LogFormat) -> None:
    """In a message, a field, a nested value or a traceback, whoever put them there."""
    text = around.format(secret)

    def act() -> None:
        Log("test").warning("odd", said=text, nested={"deep": [text]})
        logging.getLogger("library").error("failed: %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            Log("test").exception("broke")

    data = logged(log_format, act).data.decode()

    assert secret not in data
    assert secret[-12:] not in data
    assert data.count("***") >= 4


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_never_appear_in_request_lines(secret: str) -> None:
    """A client may put its key where a name belongs."""
    one = record("r")
    one.model_asked = one.session = one.agent = one.upstream_request_id = one.warning = f"\n{secret}"
    one.attempts[-1].model = f"\n{secret}"

    for line in (json_lines([one], "n").decode(), text_line(one), text_line(one, has_colours=True)):
        assert secret[-12:] not in line
        assert "***" in line


def test_any_bearer_token_is_masked_and_words_that_look_alike_are_not() -> None:
    assert masked("Authorization: Bearer abcdef123") == "Authorization: Bearer ***"
    for harmless in ("task-management-long", "disk-usage-report", "a bearer of news", "risk-assessment", "eyJ"):
        assert masked(harmless).replace("bearer ***", "bearer of") == harmless.replace("bearer ***", "bearer of")
    assert masked("task-management-long") == "task-management-long"


# text that comes from outside


def test_no_text_from_outside_can_fake_a_line_or_steer_a_terminal() -> None:
    one = record("r")
    one.model_asked = one.session = one.agent = one.upstream_request_id = one.warning = EVIL
    one.attempts[-1].model = EVIL

    def act() -> None:
        Log("test").warning("odd", said=EVIL)
        logging.getLogger("library").error(EVIL)

    outputs = [json_lines([one], "n"), text_line(one).encode(errors="replace")]
    outputs += [logged("json", act).data, logged("text", act).data]

    for output in outputs:
        text = output.decode()
        assert all(line.isprintable() for line in text.split("\n")), ascii(text)
        assert text.count("\n") == text.rstrip("\n").count("\n") + 1
    assert [len(output.splitlines()) for output in outputs] == [1, 1, 2, 2]
    assert json.loads(outputs[0])["session"] == EVIL.replace("\ud800", "?")


def test_words_of_a_text_line_stay_apart() -> None:
    assert word("plain") == "plain"
    assert word("two words") == '"two words"'
    assert word("") == '""'
    assert word("a=b") == '"a=b"'
    assert word("größe") == "größe"


# request lines


def test_a_request_line_says_everything_that_programs_need() -> None:
    one = record("req_1", failed=True)
    one.warning = "provider local does not read document blocks"

    [line] = [json.loads(text) for text in json_lines([one], "laptop/worker-0").splitlines()]

    attempts = line.pop("attempts")
    assert line == {
        "ts": "2026-09-21T14:13:29.560000Z",
        "level": "info",
        "logger": "ccr.data.requests",
        "event": "request_done",
        "node": "laptop/worker-0",
        "request_id": "req_1",
        "client": "laptop",
        "session": "0b1f7c1e-93e1-4d5e-8a0e-0123456789ab",
        "agent": "",
        "endpoint": "messages",
        "model_asked": "claude-test",
        "model_used": "claude-test",
        "route": "default",
        "provider": "anthropic",
        "key_label": "team-a",
        "streamed": True,
        "status": 200,
        "outcome": "served",
        "first_byte_ms": 412.0,
        "total_ms": 9310.0,
        "overhead_ms": 0.3,
        "input_tokens": 5120,
        "output_tokens": 811,
        "cache_read_tokens": 100,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
        "thinking_tokens": 0,
        "request_bytes": 51234,
        "answer_bytes": 9999,
        "snapshot_version": 12,
        "upstream_request_id": "req_up",
        "warning": "provider local does not read document blocks",
    }
    assert [(one["provider"], one["status"], one["reason"]) for one in attempts] == [
        ("zai", 529, "overloaded"),
        ("anthropic", 200, ""),
    ]


def test_the_text_line_is_for_people() -> None:
    line = text_line(record("req_1", failed=True))

    assert line.split(" ", 1)[1] == (
        "200 messages     claude-test → anthropic/team-a 412 ms/9.3 s 5120+100 cached→811 tokens "
        "[zai: overloaded] req_1\n"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"attempts": [], "status": 404, "outcome": Outcome.REFUSED, "model_asked": ""}, " 404 messages     - "),
        ({"status": 0, "outcome": Outcome.CLIENT_LEFT}, " --- "),
        ({"outcome": Outcome.FAILED, "status": 529}, " failed "),
        ({"total_s": 0.0123}, " 12 ms "),
    ],
)
def test_the_text_line_of_what_went_otherwise(change: dict[str, object], expected: str) -> None:
    one = record("req_1")
    for name, value in change.items():
        setattr(one, name, value)
    one.streamed = False

    assert expected in text_line(one)


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    outputs = []
    for is_terminal, no_colour in ((True, ""), (False, ""), (True, "1")):
        monkeypatch.setenv("NO_COLOR", no_colour)
        sink = Sink()
        with logging_to(sink.write, "text", is_terminal=is_terminal) as output:
            RequestLog(output, "n").note([record("r")])
        outputs.append(b"\x1b[32m200\x1b[0m" in sink.data)

    assert outputs == [True, False, False]


@pytest.mark.parametrize(("is_terminal", "is_json"), [(True, False), (False, True)])
def test_auto_means_text_on_a_terminal_only(is_terminal: bool, is_json: bool) -> None:
    sink = Sink()
    with logging_to(sink.write, "auto", is_terminal=is_terminal):
        Log("test").info("event", duration_s=1)

    assert sink.data.startswith(b"{") == is_json


def test_a_record_that_cannot_be_told_ends_nothing() -> None:
    sink = Sink()
    with logging_to(sink.write, "json", is_terminal=False) as output:
        RequestLog(output, "n").note([None])  # type: ignore[list-item]  # the mistake
        RequestLog(output, "n").note([record("next")])

    assert [line["event"] for line in sink.lines] == ["request_line_failed", "request_done"]


# the writer


def test_a_reader_who_stops_reading_stops_nobody() -> None:
    """Lines that find no room are dropped and counted; the count is told when there is room again."""
    goes_on, wrote = threading.Event(), threading.Event()
    written: list[bytes] = []

    def write(data: bytes) -> None:
        wrote.set()
        assert goes_on.wait(10)
        written.append(data)

    writer = LineWriter(write, lambda count: b"dropped %d\n" % count, max_queued_bytes=100)
    writer.put(b"first\n")
    assert wrote.wait(10)
    for _ in range(30):
        writer.put(b"x" * 9 + b"\n")
    writer.put(b"y" * 99 + b"\n", line_count=7)
    goes_on.set()
    writer.close(10)

    assert written[0] == b"first\n"
    assert written[1:11] == [b"x" * 9 + b"\n"] * 10
    assert written[11:] == [b"dropped 27\n"]


def test_a_blocked_reader_does_not_keep_the_process_from_ending() -> None:
    forever = threading.Event()
    writer = LineWriter(lambda _: forever.wait(10), lambda _: b"")
    writer.put(b"line\n")

    writer.close(patience_s=0.01)

    forever.set()
    writer.close(10)


def test_pieces_are_whole_lines() -> None:
    """Several workers share one pipe: what is written at once must neither be cut nor be too long to be atomic."""
    data = b"".join(b"%d" % index * (index % 7 + 1) + b"\n" for index in range(50)) + b"z" * 60 + b"\nlast\n"

    pieces = list(whole_lines(data, 32))

    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [piece for piece in pieces if len(piece) > 32] == [b"z" * 60 + b"\n"]


def test_lines_of_several_writers_stay_whole_in_a_pipe() -> None:
    """A pipe takes up to 4096 bytes at once; more may be mixed with what others write."""
    reading, writing = os.pipe()
    line = b"w%d" + b"x" * 700 + b"\n"
    writers = [threading.Thread(target=stderr_write(writing), args=((line % number) * 400,)) for number in range(4)]
    for thread in writers:
        thread.start()
    data = b""
    while data.count(b"\n") < 1600:
        data += os.read(reading, 1 << 16)
    for thread in writers:
        thread.join()
    os.close(reading)
    os.close(writing)

    assert set(data.splitlines(keepends=True)) == {line % number for number in range(4)}


def test_a_closed_stderr_is_no_reason_to_fail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)

    stderr_write(writing)(b"line\n")


def test_attempts_without_a_model_are_told() -> None:
    """Batches and files have none."""
    one = record("r")
    one.attempts = [AttemptRecord("anthropic", "k", "s", "", 1.0, 0, Reason.CONNECT)]
    one.model_asked = ""

    assert "→ anthropic/k " in text_line(one)
