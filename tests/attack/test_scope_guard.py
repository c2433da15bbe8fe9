"""Credentials and text stay where they belong, over random routes, failures and second attempts.

Every secret is a canary of its own. No provider may ever see one that is not its own, the client's relay key never leaves the
relay, and nothing of either, nor of the conversation, is in a log, a file, an answer of the control plane or a process list.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.client import RawClient
from support.relay import config, relaying
from support.serving import Relay, environment, until
from support.tls import Certificates
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer, stream_answer

CLIENT_KEY = "canary-relay-key-of-a-client-0001"
TOKEN = "sk-ant-oat01-canary-subscription-0002"
PROMPT = "canary-prompt-text-0003"
ANSWER = "canary-model-output-0004"
ERROR = "canary-provider-error-0005"
MODELS = ["claude-a", "claude-b", "claude-c"]
REQUESTS = 60


class Guarded(RawUpstream):
    """A provider with credentials of its own."""

    def __init__(self, tls: Any = None) -> None:
        super().__init__(tls=tls)
        self.own: set[str] = set()
        self.rolls = random.Random(0)
        self.lock = threading.Lock()
        self.answer = self.any_answer

    def any_answer(self, request: Request, wire: Wire) -> None:
        """Any of the ways in which a provider answers or fails."""
        with self.lock:
            roll = self.rolls.random()
        body = MESSAGE.replace(b'"hi"', f'"{ANSWER}"'.encode())
        match int(roll * 13):
            case 0:
                wire.send(error_answer("529 X", "overloaded_error"))
            case 1:
                wire.send(error_answer("429 X", "rate_limit_error", "retry-after: 1"))
            case 2:
                wire.send(
                    json_answer(
                        json.dumps({"error": {"message": ERROR, "headers": request.head.decode("latin-1")}}).encode(),
                        "500 X",
                    )
                )
            case 3:
                wire.send(error_answer("401 X", "authentication_error"))
            case 4:
                wire.send(error_answer("400 X", "invalid_request_error"))
            case 5:
                wire.reset()
            case 6:
                wire.send(json_answer(b"{}", "307 X", "location: http://127.0.0.1:1/steal"))
            case 7:
                wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
                wire.sock.close()
            case 8 if b'"stream":true' in request.body:
                wire.begin_stream()
                wire.chunk(EVENTS[0] + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
                wire.end_stream()
            case 9 if b'"stream":true' in request.body:
                wire.begin_stream()
                wire.chunk(b"".join(EVENTS[:4]))
                wire.reset()
            case _:
                if b'"stream":true' in request.body:
                    stream_answer(request, wire)
                else:
                    wire.send(json_answer(body))


def some_provider(rolls: random.Random, n: int, upstream: Guarded, certificates: Certificates) -> dict[str, Any]:
    """A provider of any type, its credentials known to `upstream` alone."""
    secret = [f"sk-canary-provider-{n}-{m}-{rolls.getrandbits(40):x}" for m in range(3)]
    base: dict[str, Any] = {"name": f"p{n}", "base_url": upstream.url, "allow_private": True}
    mapping = {name: name for name in MODELS}
    if upstream.url.startswith("https"):  # where subscription tokens may go
        upstream.own |= {TOKEN}
        return {**base, "type": "anthropic", "keys": [], "ca_file": str(certificates.ca_file)}
    kind = rolls.choice(
        ["anthropic", "zai", "compatible", "both", "headers", "azure", "bedrock", "bedrock-key", "vertex"]
    )
    upstream.own |= set(secret)
    keys = [{"label": f"k{m}", "key": secret[m]} for m in range(rolls.randint(1, 2))]
    match kind:
        case "anthropic" | "zai":
            return {**base, "type": kind, "keys": keys}
        case "compatible" | "both":
            style = rolls.choice(["bearer", "x-api-key"]) if kind == "compatible" else "both"
            return {**base, "type": "anthropic-compatible", "keys": keys, "auth_style": style, "serves": ["*"]}
        case "headers":
            return {**base, "type": "anthropic", "keys": keys, "headers": {"x-extra-secret": secret[2]}}
        case "azure":
            return {
                **base,
                "type": "azure",
                "base_url": f"{upstream.url}/anthropic",
                "keys": keys,
                "model_mapping": mapping,
            }
        case "vertex":
            more = {"project": "my-project-123456", "location": "us-east5", "model_mapping": mapping}
            return {**base, "type": "vertex", "keys": keys[:1], **more}
        case _:
            names = dict.fromkeys(MODELS, "us.anthropic.claude-opus-5-5")
            aws = {"access_key_id": f"AKIDCANARY{n}", "secret_access_key": secret[0], "session_token": secret[1]}
            upstream.own |= {f"AKIDCANARY{n}"}
            how = {"aws": aws} if kind == "bedrock" else {"keys": keys[:1]}
            return {**base, "type": "bedrock", "region": "us-east-1", "model_mapping": names, **how}


def some_config(rolls: random.Random, upstreams: list[Guarded], certificates: Certificates) -> str:
    """Random providers, routes and policies."""
    providers = [some_provider(rolls, n, upstream, certificates) for n, upstream in enumerate(upstreams)]
    routes = []
    for model in MODELS[:2]:
        chain = rolls.sample([one["name"] for one in providers], rolls.randint(2, len(providers)))
        routes.append({"match": {"model": model}, "to": [{"provider": name} for name in chain]})
    origin = next(one.url for one in upstreams if one.url.startswith("https"))
    auth = {
        "keys": [{"name": "tester", "key": CLIENT_KEY}],
        "allow_subscription": True,
        "subscription_origins": [origin],
    }
    strategy = rolls.choice(["failover", "simple-shuffle", "round-robin", "least-loaded", "latency-based"])
    routing: dict[str, Any] = {"strategy": strategy, "routes": routes, "cooldown": "0s", "max_attempts": 6}
    if rolls.random() < 0.5:
        routing["hedging"] = {"after": "100ms", "max_share": "50%"}
    return config(*providers, server={"auth": auth}, routing=routing, health={"circuit": {"failures": 1000}})


def ask(relay: Relay, roll: random.Random) -> bytes:
    """One request with a credential of either kind, and others besides that are nobody's business; all that came back."""
    body = json.dumps(
        {
            "model": roll.choice(MODELS),
            "max_tokens": 9,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": roll.random() < 0.5,
        },
        separators=(",", ":"),
    ).encode()
    lines = roll.choice(
        [
            [f"x-api-key: {CLIENT_KEY}"],
            [f"authorization: Bearer {CLIENT_KEY}"],
            [f"x-api-key: {CLIENT_KEY}", f"authorization: Bearer {TOKEN}"],
            [f"authorization: Bearer {TOKEN}", "anthropic-beta: oauth-2025-04-20"],
            [f"x-api-key: {CLIENT_KEY}", f"api-key: {CLIENT_KEY}", f"cookie: a={CLIENT_KEY}"],
            [f"x-api-key: {CLIENT_KEY}", f"proxy-authorization: Bearer {CLIENT_KEY}"],
        ]
    )
    path = roll.choice(
        ["/v1/messages", "/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens", "/v1/files"]
    )
    said = b""
    with RawClient(relay.url, 20.0) as client, contextlib.suppress(ConnectionError):
        client.request("POST", path, body, *lines, "connection: close")
        while more := client.more():
            said += more
    return said


def check_state(relay: Relay, secrets: set[str]) -> None:
    """Files are for this user alone. Text is in none of them; credentials only in the snapshot that a cold start needs."""
    for path in [relay.state, *relay.state.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # half-written ones get their name meanwhile
            check_file(path, secrets)


def check_file(path: Path, secrets: set[str]) -> None:
    """One of them."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode):
        assert stat.S_IMODE(mode) & 0o077 == 0, f"{path} {oct(mode)}"
    if stat.S_ISREG(mode):
        data = path.read_bytes()
        held = {one for one in secrets if one.encode() in data}
        is_for_cold_starts = "snapshot.pb" in path.name
        assert not (held & {PROMPT, ANSWER, ERROR, CLIENT_KEY, TOKEN} if is_for_cold_starts else held), (path, held)


def check_processes(relay: Relay, secrets: set[str]) -> None:
    """`ps` shows arguments to everybody on the machine."""
    for pid in [relay.process.pid, *relay.every_pid()]:
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            assert not [one for one in secrets if one in arguments]


def check_status(relay: Relay, secrets: set[str]) -> None:
    """What the command line is told."""
    for command in (["status", "--json"], ["explain", "--last"], ["providers", "list"]):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ccr_cli.main", *command, "--state-dir", str(relay.state)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(),
        )
        shown = done.stdout + done.stderr
        assert not [one for one in secrets if one in shown], command


@pytest.mark.parametrize("run", range(4))
def test_no_credential_and_no_text_is_where_it_does_not_belong(
    run: int, certificates: Certificates, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CCR_SEED", "0")) or int.from_bytes(os.urandom(4))
    print(f"CCR_SEED={seed}")
    rolls = random.Random(seed + run)
    upstreams = [Guarded() for _ in range(4)] + [Guarded(certificates.server_context())]
    with contextlib.ExitStack() as stack:
        for n, upstream in enumerate(upstreams):
            stack.enter_context(upstream)
            upstream.rolls = random.Random(seed + n)
        text = some_config(rolls, upstreams, certificates)
        relay = stack.enter_context(relaying(tmp_path, text))
        (tmp_path / "ccr.yaml").chmod(0o600)
        with ThreadPoolExecutor(8) as threads:
            said = list(threads.map(lambda n: ask(relay, random.Random(seed * 1000 + n)), range(REQUESTS)))
        until(lambda: len(relay.events("request_done")) >= REQUESTS // 2, "records")

        everything = set().union(*(one.own for one in upstreams)) | {CLIENT_KEY, TOKEN}
        assert sum(len(one.requests) for one in upstreams) > REQUESTS // 2, "little went upstream"
        for upstream in upstreams:
            for request in upstream.requests:
                seen = request.head + request.body
                foreign = [one for one in everything - upstream.own if one.encode() in seen]
                assert not foreign, (upstream.url, request.line, foreign)
                assert "steal" not in request.line
        assert CLIENT_KEY.encode() not in b"".join(said)
        planted = everything | {PROMPT, ANSWER, ERROR}
        assert not [one for one in planted if one in relay.output]
        check_state(relay, planted)
        check_processes(relay, planted)
        if run == 0:
            check_status(relay, planted)
