"""Any bytes to every parser of a node: an error of ours or a value, never another exception, and the same however cut.

What once went wrong is kept in tests/corpus/fuzz/<parser>/ and tried first; add a file there for whatever is found.
`CCR_FUZZ=20` tries twenty times as many.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from ccr_data.core.answers import as_error_event
from ccr_data.core.errors import BadRequest, SnapshotInvalid, UpstreamBroken
from ccr_data.core.eventstream import EventStream
from ccr_data.core.frames import MAGIC, frame, frames_in
from ccr_data.core.http1 import ChunkWalker, LineMemory, RequestHeads, parse_answer_head, parse_request_head
from ccr_data.core.limit_headers import limits_told, rest_asked, told_by
from ccr_data.core.limits import Limits
from ccr_data.core.peek import peek, session_of, user_id, with_model
from ccr_data.core.records import Tokens
from ccr_data.core.sse import Beginning, UsageTap, ends_in_error, note_json_usage
from ccr_data.core.thinking import has_thinking, thoughts
from ccr_data.providers.anthropic_shaped import folded
from ccr_data.shell.kept_budgets import Clocks, KeptBudgets
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.shared_pins import _note
from ccr_data.shell.usage_wire import journal_of
from ccr_data.shell.wire import parse_snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.event_stream import chunk_frame
from support.node_values import snapshot_message
from support.relay import STREAM_BODY
from support.upstream import EVENTS, MESSAGE

CORPUS = Path(__file__).parents[2] / "corpus" / "fuzz"
MANY = 400 * int(os.environ.get("CCR_FUZZ", "1"))

REQUEST = b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: r\r\nx-api-key: k\r\ncontent-length: 5\r\nconnection: close, x-a\r\nx-a: 1"
ANSWER = b"HTTP/1.1 429 X\r\nretry-after: 5\r\nanthropic-ratelimit-requests-limit: 50\r\n"
ANSWER += b"anthropic-ratelimit-tokens-reset: 2026-01-01T00:00:00Z"
CHUNKS = b"".join(b"%x;a=b\r\n%b\r\n" % (len(one), one) for one in EVENTS) + b"0\r\nx: y\r\n\r\n"
THINKING = (
    b'{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":'
    b'[{"type":"thinking","thinking":"t","signature":"c2ln"},{"type":"redacted_thinking","data":"x"}]}],'
    b'"metadata":{"user_id":"user_1_session_0b1f7c1e-93e1-4d5e-8a0e"},"stream":true}'
)
NOTE = b'{"session":"0a0b","at_s":1.0,"provider":"p","key":"k","reader":"r","until_s":2.0,"blocks":{"ff":"r"}}'
BUDGETS = b'{"at_s":1.0,"spent":[[["p","s"],"opus-4",[1,2,3,4],null,0]]}'


def _http1(data: bytes) -> None:
    memory = LineMemory(of_request=True)
    heads = RequestHeads(memory)
    for _ in range(2):
        with contextlib.suppress(BadRequest):
            head = heads.read(data)
            assert all(b"\r" not in line and b"\n" not in line and b":" in line for line in head.lines)
            assert parse_request_head(data, LineMemory(of_request=True)).lines == head.lines


def _answer(data: bytes) -> None:
    with contextlib.suppress(UpstreamBroken):
        head = parse_answer_head(data, LineMemory(of_request=False))
        assert all(b":" in line for line in head.lines)
        told = told_by(head)
        limits_told(told)
        rest_asked(told, data, 1e9, 60.0)


def _chunks(data: bytes) -> None:
    at_once, cut = ChunkWalker(), ChunkWalker()
    payload: list[bytes] = []
    with contextlib.suppress(UpstreamBroken):
        at_once.feed(data)
        payload = [data[start:end] for start, end in at_once.ranges]
        pieces = []
        for at in range(len(data)):
            if not cut.is_done:
                cut.feed(data[at : at + 1])
                pieces += [data[at : at + 1][start:end] for start, end in cut.ranges]
        assert b"".join(pieces) == b"".join(payload)
        assert cut.is_done == at_once.is_done


def _peek(data: bytes) -> None:
    identity = user_id(data)
    session_of(identity or data.decode("latin-1"))
    with contextlib.suppress(BadRequest):
        found = peek(data)
        renamed = b"".join(with_model(data, found, "renamed"))
        with contextlib.suppress(ValueError, RecursionError):
            asked = json.loads(data.decode())
            if isinstance(asked, dict) and data.count(b"model") == 1:  # given twice, the fast way takes the first
                assert json.loads(renamed)["model"] == "renamed"
                assert {**json.loads(renamed), "model": 0} == {**asked, "model": 0}


def _conversation(data: bytes) -> None:
    folded(data)
    if has_thinking(data):
        thoughts(data)
    as_error_event(data)
    note_json_usage(Tokens(), data)


def _sse(data: bytes) -> None:
    whole, cut = Tokens(), Tokens()
    tap = UsageTap(whole)
    tap.feed(data, 0, len(data))
    pieces = UsageTap(cut)
    for at in range(len(data)):
        pieces.feed(data, at, at + 1)
    ends_in_error(data, len(data))
    first, second = Beginning(), Beginning()
    first.feed(data)
    for at in range(len(data)):
        second.feed(data[at : at + 1])
    assert first.verdict == second.verdict


def _event_stream(data: bytes) -> None:
    at_once, cut = EventStream(), EventStream()
    events = at_once.feed(data)
    assert b"".join(cut.feed(data[at : at + 1]) for at in range(len(data))) == events
    assert (cut.damage, cut.has_ended, cut.has_failed) == (at_once.damage, at_once.has_ended, at_once.has_failed)


def _snapshot(data: bytes) -> None:
    with contextlib.suppress(SnapshotInvalid):
        parse_snapshot(data)


def _spool(data: bytes) -> None:
    file = io.BytesIO(data)
    file.read(len(MAGIC))
    for found in frames_in(file.read):
        assert data[found.start : found.start + len(found.payload)] == found.payload
        journal_of(found.payload, found.number)


def _pins(data: bytes) -> None:
    for line in data.splitlines():
        _note(line)


PARSERS: dict[str, tuple[Callable[[bytes], None], bytes]] = {
    "http1": (_http1, REQUEST),
    "answer": (_answer, ANSWER),
    "chunks": (_chunks, CHUNKS),
    "peek": (_peek, STREAM_BODY),
    "conversation": (_conversation, THINKING),
    "sse": (_sse, b"".join(EVENTS)),
    "eventstream": (_event_stream, chunk_frame(MESSAGE) + chunk_frame(b'{"type":"message_stop"}')),
    "snapshot": (_snapshot, snapshot_message(1, providers=2).SerializeToString()),
    "spool": (_spool, MAGIC + frame(1, b"payload") + frame(2, b"x" * 50)),
    "pins": (_pins, NOTE + b"\n" + NOTE),
}

EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 30), st.sampled_from(["set", "cut", "double", "insert"]), st.binary(max_size=6)),
    max_size=5,
)
TOKENS = [b"\r", b"\n", b"\r\n\r\n", b":", b'"', b"\\", b"{", b"}", b"[", b"0", b"-1", b"event:", b"data:", b"\x00"]
TOKENS += [b"\xff", b"\\ud800", b"1e999"]


def edited(seed: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    """The seed with a few of its bytes changed, as a fuzzer would."""
    data = bytearray(seed)
    for where, how, what in edits:
        at = where % (len(data) + 1)
        new = what if len(what) % 2 else TOKENS[where % len(TOKENS)]
        match how:
            case "set":
                data[at : at + len(new)] = new
            case "cut":
                del data[at : at + 1 + len(what)]
            case "double":
                data[at:at] = data[at : at + 40]
            case _:
                data[at:at] = new
    return bytes(data)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_damaged_input_hurts_no_parser(name: str, edits: list[tuple[int, str, bytes]]) -> None:
    parse, seed = PARSERS[name]
    parse(edited(seed, edits))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=MANY // 3, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_hurt_no_parser(name: str, data: bytes) -> None:
    PARSERS[name][0](data)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_went_wrong_does_not_again(path: Path) -> None:
    PARSERS[path.parent.name][0](path.read_bytes())


def test_kept_budgets_survive_any_damage(tmp_path: Path) -> None:
    """A worker starts whatever is in the file of the one before."""
    directory = NodeDir(tmp_path, "n")
    directory.path.mkdir(parents=True)
    rolls = random.Random(1)
    for _ in range(300):
        edits = [
            (
                rolls.getrandbits(30),
                rolls.choice(["set", "cut", "double", "insert"]),
                rolls.randbytes(rolls.randint(0, 6)),
            )
        ]
        (directory.path / "budgets.json").write_bytes(edited(BUDGETS, edits))
        limits = Limits()
        KeptBudgets(directory, limits, clocks=Clocks(lambda: 2.0)).load()
        for model in ("claude-opus-4-1", "m"):
            limits.budget(("p", "s"), model)
