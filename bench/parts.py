"""Single parts of the relay, in µs of CPU for each call: what a row of the table measures is too large to see them.

Run by the relay's own Python (`bench/run` does). Prints JSON: for each row its name, title, bar and the µs of each round. To add a
part, add a `Part` to PARTS: `make` prepares it, and what it returns is what is timed.

    .venv/bin/python bench/parts.py [--rounds N] [--window SECONDS] [NAME-BEGINS…]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time_ns
from zlib import crc32

from ccr_data.core.eventstream import EventStream
from ccr_data.core.matching import Asked, Conditions
from ccr_data.core.records import Decision
from ccr_data.core.routing import Needs, NodeState, plan
from ccr_data.core.snapshot import (
    AuthMode,
    AuthPolicy,
    AuthStyle,
    AwsCredentials,
    AwsSigning,
    Candidate,
    Key,
    ModelPrice,
    Origin,
    Provider,
    ProviderType,
    RelayPolicy,
    Route,
    Snapshot,
    Strategy,
    WireFormat,
    target,
)
from ccr_data.providers.adapter import UpstreamRequest
from ccr_data.providers.cloud_lines import signed, upstream_head

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is done for a request."""

    name: str
    title: str
    bar_us: float
    make: Callable[[], Call]


def decision(strategy: Strategy, count: int = 100) -> Call:
    """Match, plan and keep the decision for a request that `count` providers serve, all of which have been used."""
    providers = [
        Provider(
            name=f"p{n}",
            type=ProviderType.ANTHROPIC,
            origin=Origin("https", f"p{n}.example.com", 443),
            base_path="",
            auth_style=AuthStyle.X_API_KEY,
            keys=(Key(f"k{n}", "secret", f"scope{n}"),),
            prices=(ModelPrice("*", 1 + n * 37 % 100, 1, 1, 1),),
            serves=("claude-*" if n % 3 else "*",),
        )
        for n in range(count)
    ]
    candidates = tuple(Candidate(one.name, None, n % 5 + 1, n) for n, one in enumerate(providers))
    routes = (
        Route("subagents", (), candidates[:2], strategy, Conditions(subagent=True)),
        Route("default", (), candidates, strategy),
    )
    snapshot = Snapshot(1, AuthPolicy(AuthMode.NONE), {one.name: one for one in providers}, routes, RelayPolicy())
    model, body, lines = "claude-sonnet-5", b"{}", [b"content-type: application/json"]
    node, roll, needs = NodeState(), random.Random(1).random, Needs(streams=True)
    for n, choice in enumerate(snapshot.routed(model).choices):
        node.load.enter(choice.targets[0])
        node.latencies.sample(choice.measured[True], 0.2 + n / 50, 0.0)

    def decide() -> Decision:
        routed = snapshot.routed(model, Asked("laptop", False, False, lines, body))
        planned = plan(routed, model, needs, None, node, 1.0, roll)
        targets = tuple(planned.targets)
        return Decision(routed.route.strategy, targets, planned.passed_over, planned.pin, planned.scored)

    assert len(decide().targets) == count
    return decide


def signing() -> Call:
    """Sign a request to Bedrock with Claude Code's header lines. Without a body: hashing 200 KB takes as long as SHA-256 takes."""
    aws = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "token" * 200)
    provider = Provider(
        name="bedrock",
        type=ProviderType.BEDROCK,
        origin=Origin("https", "bedrock-runtime.us-east-1.amazonaws.com", 443),
        base_path="",
        auth_style=AuthStyle.SIGV4,
        keys=(Key("role", "", "account", aws=aws),),
        wire_format=WireFormat.BEDROCK_INVOKE,
        aws_signing=AwsSigning("us-east-1", "bedrock"),
    )
    to = target(provider, provider.keys[0], None)
    lines = [b"content-type: application/json", *(b"x-stainless-header-%d: value" % n for n in range(16))]
    path = b"/model/us.anthropic.claude-opus-5-5/invoke-with-response-stream"
    request = UpstreamRequest(upstream_head(b"POST", to, path, lines, 0), (), 0)
    return lambda: signed(request, to, 1_790_000_000.0)


def event_stream() -> Call:
    """One event of an AWS event stream, in a piece of its own."""
    event = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"and so the story went on"}}'
    names = ((b":event-type", b"chunk"), (b":content-type", b"application/json"), (b":message-type", b"event"))
    headers = b"".join(
        b"%c%b\x07%b%b" % (len(name), name, len(value).to_bytes(2, "big"), value) for name, value in names
    )
    payload = b'{"bytes":"%b","p":"abcdefghijklm"}' % b64encode(event)
    lengths = (len(headers) + len(payload) + 16).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    message = lengths + crc32(lengths).to_bytes(4, "big") + headers + payload
    frame = message + crc32(message).to_bytes(4, "big")
    stream = EventStream()
    assert event in stream.feed(frame)
    return lambda: stream.feed(frame)


PARTS: list[Part] = [
    Part("sigv4", "AWS signature of a request, without its body's hash", 60, signing),
    Part("event-stream", "event of an AWS event stream", 15, event_stream),
]
PARTS += [
    Part(
        f"routing-{strategy.value}",
        f"decision where to go, 100 candidates, {strategy.value}",
        60,
        lambda strategy=strategy: decision(strategy),  # type: ignore[misc]
    )
    for strategy in Strategy
]


def measured_us(call: Call, window_s: float) -> float:
    """µs of CPU for each call, over a window."""
    window_ns, count, spent_ns = window_s * 1e9, 0, 0
    gc.collect()
    gc.disable()  # as far as a worker is concerned: it collects seldom, and not what it had at the start
    while spent_ns < window_ns:
        began_ns = process_time_ns()
        for _ in range(200):
            call()
        spent_ns += process_time_ns() - began_ns
        count += 200
    gc.enable()
    return spent_ns / count / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=float, default=0.1, metavar="SECONDS")
    parser.add_argument("names", nargs="*", metavar="NAME-BEGINS")
    options = parser.parse_args()
    chosen = [part for part in PARTS if not options.names or part.name.startswith(tuple(options.names))]
    calls = [part.make() for part in chosen]
    for call in calls:
        measured_us(call, 0.02)
    rounds = [[measured_us(call, options.window) for call in calls] for _ in range(options.rounds)]
    rows = [
        {"name": part.name, "title": part.title, "bar_us": part.bar_us, "us": list(us)}
        for part, us in zip(chosen, zip(*rounds, strict=True), strict=True)
    ]
    json.dump(rows, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
