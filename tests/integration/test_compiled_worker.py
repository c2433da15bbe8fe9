"""A worker runs its hot modules compiled where they are, and gives the same bytes without."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ccr_data import compiled
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider
from support.serving import REAL_SERVE, environment, served
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer, stream_answer

BODIES = (BODY, STREAM_BODY, b"{", BODY.replace(b"claude-test", b"unknown"), STREAM_BODY[:-1] + b" }")


def answers(request: Request, wire: Wire) -> None:
    if b"unknown" in request.body:
        wire.send(error_answer("404 Not Found", "not_found_error"))
    elif b'"stream":true' in request.body:
        stream_answer(request, wire)
    else:
        wire.send(json_answer(MESSAGE))


def served_bytes(directory: Path, env: dict[str, str]) -> tuple[object, list[tuple[int, bytes]], list[bytes]]:
    """Whether the worker ran compiled code; what a client got, and what the provider got, for all bodies."""
    directory.mkdir()
    with RawUpstream() as upstream:
        upstream.answer = answers
        text = config(provider("home", upstream.url))
        with served(directory, text, env=env, command=REAL_SERVE) as relay:
            relay.wait_ready()
            with client(relay) as connection:
                got = [connection.ask("POST", "/v1/messages", body, AUTH) for body in BODIES]
            (ready,) = relay.events("node_ready")
        sent = [request.body for request in upstream.requests]
    return ready["is_compiled"], [(one.status, one.body if one.status < 300 else b"") for one in got], sent


def test_compiled_or_not_the_bytes_are_the_same(tmp_path: Path) -> None:
    compiled_files = compiled.files()
    if not compiled_files and shutil.which("cc") is None:
        pytest.skip("no C compiler here: there is nothing to compare with the sources")
    is_compiled, got, sent = served_bytes(tmp_path / "default", environment())
    assert is_compiled is bool(compiled_files)
    assert (200, MESSAGE) in got
    assert any(b"".join(EVENTS) in body for _, body in got)

    as_sources = served_bytes(tmp_path / "sources", environment(CCR_INTERPRETED="1"))

    assert as_sources == (False, got, sent)
