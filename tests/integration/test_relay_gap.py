"""Silence below the bound: nothing is added to it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from support.relay import AUTH, STREAM_BODY, client, config, provider, relaying
from support.upstream import EVENTS, RawUpstream, Request, Wire


def test_a_gap_of_ten_seconds_passes_as_it_is(tmp_path: Path) -> None:
    """Below the silence bound the relay adds nothing: long tool calls and slow models pause like this."""

    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for piece in EVENTS[:4]:
            wire.chunk(piece)
        threading.Event().wait(10)  # the gap itself, not a wait for something
        for piece in EVENTS[4:]:
            wire.chunk(piece)
        wire.end_stream()

    with RawUpstream(answer) as slow, relaying(tmp_path, config(provider("slow", slow.url))) as relay:
        began = time.monotonic()
        with client(relay) as connection:
            connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
            connection.head()
            seen = []
            while payload := connection.payload():
                seen.append(payload)

    assert seen == EVENTS
    assert time.monotonic() - began >= 10
