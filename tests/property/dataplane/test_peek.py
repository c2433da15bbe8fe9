"""Peeking at a request body finds what a full parse would, and a rename changes nothing else."""

from __future__ import annotations

import contextlib
import json

import pytest
from ccr_data.core.errors import BadRequest
from ccr_data.core.peek import peek, session_of, user_id, with_model
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12) | st.just("model"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("model"), inner, max_size=3)
    ),
    max_leaves=12,
)
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable())


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, object]]:
    fields = draw(st.dictionaries(st.sampled_from(["messages", "system", "tools", "metadata", "x"]), JSON, max_size=4))
    order = draw(st.permutations([*fields, "model", *(["stream"] if draw(st.booleans()) else [])]))
    known = {**fields, "model": draw(NAMES), "stream": draw(st.booleans())}
    value = {key: known[key] for key in order}
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 1])),
        separators=draw(st.sampled_from([None, (",", ":")])),
    )
    return text.encode(), value


@given(bodies())
def test_peek_agrees_with_a_full_parse(made: tuple[bytes, dict[str, object]]) -> None:
    """Routing by anything else than what the provider will read would send requests to the wrong place."""
    body, value = made
    peeked = peek(body)

    assert peeked.model == value["model"]
    assert peeked.wants_stream == bool(value.get("stream", False))


@given(bodies(), NAMES)
def test_a_rename_changes_only_the_model(made: tuple[bytes, dict[str, object]], name: str) -> None:
    """Everything else stays, to the byte."""
    body, value = made
    renamed = b"".join(with_model(body, peek(body), name))

    assert json.loads(renamed) == {**value, "model": name}
    start = renamed.index(json.dumps(name, ensure_ascii=False).encode()) if renamed != body else 0
    assert renamed[:start] == body[:start]


@given(st.binary(max_size=120))
def test_any_bytes_are_peeked_at_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        peek(body)


def test_a_model_given_twice_is_the_last_one() -> None:
    """As JSON parsers have it; and a rename renames both."""
    body = b'{"model":"a","x":{"model":"n"},"model":"b"}'

    assert peek(body).model == "b"
    assert b"".join(with_model(body, peek(body), "c")) == b'{"model":"c","x":{"model":"n"},"model":"c"}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model":1}', b'{"model":""}', b'{"model":"a"', b"\xff\xfe"])
def test_a_body_without_a_model_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        peek(body)


def test_sessions_are_read_from_both_forms_of_user_id() -> None:
    """Claude Code 2.1 writes a JSON object; older ones a joined text."""
    new = json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": "11111111-2222-3333-4444-555555555555"})
    body = json.dumps({"model": "m", "metadata": {"user_id": new}, "stream": True}).encode()

    assert session_of(user_id(body) or "") == "11111111-2222-3333-4444-555555555555"
    assert (
        session_of("user_ab_account__session_11111111-2222-3333-4444-555555555555")
        == "11111111-2222-3333-4444-555555555555"
    )
    assert session_of("someone") == ""
