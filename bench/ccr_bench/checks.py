"""Is what is about to be measured the real thing? A wrong answer, or work left out, fails the bench before any figure."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Mapping

from ccr_bench.targets import Target, Upstream
from ccr_bench.workload import CLIENT_KEY, HEADERS, UPSTREAM_KEY, mock_model, request_body

SESSION = {"x-claude-code-session-id": "00000000-0000-4000-8000-999999999999"}


class Wrong(Exception):
    """A target does not do what it should."""


def check(target: Target, upstream: Upstream) -> None:
    """Raises Wrong."""
    try:
        _check(target, upstream)
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        raise Wrong(f"{target.name}: {error!r}") from error


def _check(target: Target, upstream: Upstream) -> None:
    for over_tls in (False,) if target.is_peer else (False, True):
        _check_json(target, upstream, over_tls)
        _check_stream(target, over_tls)
    if target.name == "relay":
        _check_refusals(target, upstream)
        _check_log(target)
        _check_records(target)


def _check_json(target: Target, upstream: Upstream, over_tls: bool) -> None:
    for kib in (0, 200):
        status, answer = _ask(target, "b256", stream=False, over_tls=over_tls, kib=kib)
        if status != 200 or "lorem ipsum" not in json.loads(answer)["content"][0]["text"]:
            raise Wrong(f"{target.name}: JSON answer {status} {answer[:300]!r}")
        seen = upstream.get("/__last").decode("latin-1")
        head, _, body = seen.partition("\r\n\r\n")
        if not target.is_peer and not body.startswith(f'{{"model":"{mock_model("b256")}",'):
            raise Wrong(f"{target.name}: the provider was asked for {body[:60]!r}")
        if target.name == "relay" and (
            UPSTREAM_KEY not in head or CLIENT_KEY in seen or "anthropic-beta: claude-code" not in head
        ):
            raise Wrong(f"{target.name}: the provider saw the wrong headers: {head!r}")


def _check_stream(target: Target, over_tls: bool) -> None:
    connection = _connect(target, over_tls)
    _send(connection, target, "n5-d100", True, over_tls, target.headers, 0)
    response = connection.getresponse()
    kinds, times = [], []
    for line in response:
        if line.startswith(b"data:"):
            kinds.append(json.loads(line[5:])["type"])
            times.append(time.monotonic())
    connection.close()
    if kinds[:1] != ["message_start"] or kinds[-1:] != ["message_stop"] or kinds.count("content_block_delta") != 5:
        raise Wrong(f"{target.name}: stream {response.status} {kinds}")
    if times[-1] - times[0] < 0.3:
        raise Wrong(f"{target.name}: the stream was held back, not passed on event by event")


def _check_refusals(target: Target, upstream: Upstream) -> None:
    before = upstream.stats()["requests"]
    for headers in ({}, {"x-api-key": "sk-bench-wrong"}, {"authorization": f"Bearer {UPSTREAM_KEY}"}):
        status, answer = _ask(target, "b256", stream=False, headers=headers)
        if status != 401:
            raise Wrong(f"{target.name}: {status} instead of 401 for the credentials {headers}: {answer[:200]!r}")
    if upstream.stats()["requests"] != before:
        raise Wrong(f"{target.name}: a request without a valid key reached the provider")


def _check_log(target: Target) -> None:
    """One JSON line a request, with the provider's name and the tokens that the mock reports."""
    give_up = time.monotonic() + 5
    lines: list[bytes] = []
    while target.log and time.monotonic() < give_up:
        lines = [
            line
            for line in target.log.read_bytes().splitlines()
            if line.startswith(b"{") and b"1200" in line and b"bench" in line
        ]
        if len(lines) >= 6 and all(isinstance(json.loads(line), dict) for line in lines):
            return
        time.sleep(0.1)
    raise Wrong(f"{target.name}: 6 requests with 1200 input tokens each gave {len(lines)} lines in the request log")


def _check_records(target: Target) -> None:
    """The control plane has counted the same requests."""
    give_up = time.monotonic() + 10
    counted: object = None
    while time.monotonic() < give_up:
        status = subprocess.run(target.status, capture_output=True, text=True, check=False)
        with contextlib.suppress(ValueError, KeyError):
            providers = json.loads(status.stdout)["providers"]
            counted = [(each["requests"], each["input_tokens"]) for each in providers]
            if counted == [(3, 3600), (3, 3600)]:
                return
        time.sleep(0.2)
    raise Wrong(f"{target.name}: 3 requests to each provider were counted as {counted}. {status.stderr[-300:]}")


def _connect(target: Target, over_tls: bool) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", target.tls_port if over_tls else target.port, timeout=30)


def _ask(
    target: Target,
    answer: str,
    *,
    stream: bool,
    over_tls: bool = False,
    headers: Mapping[str, str] | None = None,
    kib: int = 0,
) -> tuple[int, bytes]:
    connection = _connect(target, over_tls)
    _send(connection, target, answer, stream, over_tls, target.headers if headers is None else headers, kib)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def _send(
    connection: http.client.HTTPConnection,
    target: Target,
    answer: str,
    stream: bool,
    over_tls: bool,
    headers: Mapping[str, str],
    kib: int,
) -> None:
    body = request_body(target.model(answer, over_tls), stream, kib)
    connection.request("POST", target.path, body, {"content-type": "application/json", **HEADERS, **SESSION, **headers})
