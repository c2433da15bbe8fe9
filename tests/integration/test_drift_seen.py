"""A client and a provider that say something new: the whole way from a request to `StatsService.ListUnknowns`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from ccr_rpc.v1 import stats_pb2, stats_pb2_grpc
from support.serving import REAL_SERVE, Relay, served, until

pytestmark = pytest.mark.timeout(120)


def ask(relay: Relay) -> Any:
    """An answer to a request of a client from the future."""
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "stream": True,
        "brand_new": {"value": "SECRET-OF-THE-USER"},
    }
    body["messages"] = [{"role": "user", "content": "[[text:Hello]]"}]
    headers = {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "brand-new-2027-01-31",
        "x-brand-new": "SECRET-OF-THE-USER",
        "user-agent": "claude-cli/9.9.9 (external)",
        "authorization": "Bearer relay",
    }
    request = urllib.request.Request(f"{relay.url}/v1/messages", json.dumps(body).encode(), headers)
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)


def unknowns(relay: Relay) -> list[stats_pb2.Unknown]:
    address = (relay.state / "control.address").read_text().strip()
    with grpc.insecure_channel(address) as channel:
        return list(stats_pb2_grpc.StatsServiceStub(channel).ListUnknowns(stats_pb2.ListUnknownsRequest()).unknowns)


def test_what_a_client_of_the_future_says_is_told_by_name(tmp_path: Path) -> None:
    with served(tmp_path, None, "--demo", "--listen", "127.0.0.1:0", command=REAL_SERVE) as relay:
        relay.wait_ready()

        def is_known() -> bool:
            """One request a second is looked at: this asks until it was one of these."""
            with ask(relay) as answer:
                answer.read()
            return len(unknowns(relay)) >= 3

        until(is_known, "the names are known")
        found = unknowns(relay)
        assert {(one.kind, one.name, one.said_by) for one in found} == {
            ("beta", "brand-new-2027-01-31", "claude-cli/9.9.9"),
            ("body_key", "brand_new", "claude-cli/9.9.9"),
            ("header", "x-brand-new", "claude-cli/9.9.9"),
        }
        assert "SECRET-OF-THE-USER" not in str(found)
