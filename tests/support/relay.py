"""A relay of real processes for tests of the data plane: `ccr serve` with one worker in front of raw upstreams."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
from ccr_rpc.v1 import config_pb2, config_pb2_grpc

from support.client import RawClient
from support.serving import REAL_SERVE, Relay, served, until

KEY = "relay-key-for-tests"
BODY = b'{"model":"claude-test","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
STREAM_BODY = b'{"model":"claude-test","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}'
AUTH = f"x-api-key: {KEY}"


def provider(name: str, url: str, **more: object) -> dict[str, object]:
    """An Anthropic-type provider on loopback."""
    keys = [{"label": f"{name}-key", "key": f"sk-up-{name}"}]
    return {"name": name, "type": "anthropic", "base_url": url, "allow_private": True, "keys": keys, **more}


def config(*providers: dict[str, object], server: object = None, routing: object = None, health: object = None) -> str:
    """A configuration as text (JSON is YAML)."""
    settings = {"listen": "127.0.0.1:0", "drain_timeout": "5s", "auth": {"keys": [{"name": "tester", "key": KEY}]}}
    return json.dumps(
        {
            "version": 1,
            "server": {**settings, **(server if isinstance(server, dict) else {})},
            "control": {"listen": "127.0.0.1:0"},
            "routing": {"strategy": "failover", **(routing if isinstance(routing, dict) else {})},
            "providers": list(providers),
            "health": {"probe": {"idle_interval": "0"}, **(health if isinstance(health, dict) else {})},
        }
    )


@contextlib.contextmanager
def relaying(directory: Path, text: str, *arguments: str) -> Iterator[Relay]:
    """A relay that is ready."""
    with served(directory, text, *arguments, command=REAL_SERVE) as relay:
        relay.wait_ready()
        yield relay


def reconfigured(relay: Relay, text: str) -> Relay:
    """The relay as soon as its one worker serves this configuration, with the events from then on.

    Where names of providers and sessions come again it still knows what it learned of them.
    """
    (relay.state.parent / "ccr.yaml").write_text(text)
    with grpc.insecure_channel((relay.state / "control.address").read_text().strip()) as channel:
        told = config_pb2_grpc.ConfigServiceStub(channel).ReloadConfig(config_pb2.ReloadConfigRequest(), timeout=20)
    assert not told.problems, told.problems

    def is_served() -> bool:
        return any(int(str(one["version"])) >= told.snapshot_version for one in relay.events("snapshot_served"))

    until(is_served, "it is served")
    return replace(relay, since_byte=relay.log.stat().st_size, since_version=told.snapshot_version)


def client(relay: Relay, timeout_s: float = 20.0) -> RawClient:
    """A connection to it."""
    return RawClient(relay.url, timeout_s)


def records(relay: Relay) -> list[dict[str, object]]:
    """The request log so far; lines of requests under a configuration before may come late, and are left out."""
    return [one for one in relay.events("request_done") if int(str(one["snapshot_version"])) >= relay.since_version]
