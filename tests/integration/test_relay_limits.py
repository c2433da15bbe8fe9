"""Rate limits: what a provider's accounts allow is used and not exceeded, and what is too much gets an honest answer."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from ccr_rpc.v1 import keys_pb2, keys_pb2_grpc
from support.client import Answer
from support.relay import AUTH, BODY, client, config, provider, reconfigured, records, relaying
from support.serving import Relay, until
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer

Configured = Callable[[str], Relay]
NUMBERS = itertools.count()


class Strict:
    """A provider that counts the requests of each account over a sliding minute, and refuses what is too much."""

    def __init__(self, limit: int, accounts: dict[str, str]) -> None:
        self.limit, self.accounts = limit, accounts
        self.times: dict[str, deque[float]] = {account: deque() for account in accounts.values()}
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request, wire: Wire) -> None:
        account = self.accounts[request.header("x-api-key") or ""]
        with self._lock:
            now, times = time.monotonic(), self.times[account]
            while times and times[0] <= now - 60:
                times.popleft()
            has_room = len(times) < self.limit
            if has_room:
                times.append(now)
            else:
                self.refused += 1
        if has_room:
            wire.send(json_answer(MESSAGE, "200 OK", f"anthropic-organization-id: {account}"))
        else:
            wire.send(error_answer("429 Too Many", "rate_limit_error", "retry-after: 30"))


def keyed(url: str, *keys: dict[str, object]) -> dict[str, object]:
    return provider(f"provider-{next(NUMBERS)}", url, keys=list(keys))


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with RawUpstream() as server:
        yield server
        assert not server.failures


def requests_kept(path: Path) -> int:
    """How many requests a worker has noted for its successor."""
    return sum(one[2][0] for one in json.loads(path.read_bytes())["spent"])


def ask(relay: Relay, count: int) -> list[Answer]:
    with client(relay) as connection:
        return [connection.ask("POST", "/v1/messages", BODY, AUTH) for _ in range(count)]


def test_two_accounts_serve_their_sum_and_no_request_too_many(configured: Configured, upstream: RawUpstream) -> None:
    """60 requests a minute each: 120 are served, and the provider never has to refuse one."""
    strict = Strict(60, {"sk-a": "a", "sk-b": "b"})
    upstream.answer = strict
    keys = [{"label": one, "key": f"sk-{one}", "scope": one, "rpm_limit": 60} for one in "ab"]
    relay = configured(config(keyed(upstream.url, *keys)))
    answers = ask(relay, 150)

    assert [answer.status for answer in answers] == [200] * 120 + [429] * 30
    assert strict.refused == 0
    last = answers[-1]
    assert json.loads(last.body)["error"]["type"] == "rate_limit_error"
    assert last.header("request-id") == json.loads(last.body)["request_id"]
    assert 30 < int(last.header("retry-after") or 0) <= 61
    assert last.header("x-should-retry") == "false"
    assert last.header("anthropic-ratelimit-requests-limit") == "120"
    assert last.header("anthropic-ratelimit-requests-remaining") == "0"
    until(lambda: records(relay)[-1]["status"] == 429, "the last one is told")


def test_two_keys_of_one_account_do_not_double_it(configured: Configured, upstream: RawUpstream) -> None:
    """Limits belong to the account, however many keys it has and however often they say so."""
    strict = Strict(20, {"sk-a": "one", "sk-b": "one"})
    upstream.answer = strict
    keys = [{"label": one, "key": f"sk-{one}", "scope": "org", "rpm_limit": 20} for one in "ab"]
    relay = configured(config(keyed(upstream.url, *keys)))
    answers = ask(relay, 30)

    assert [answer.status for answer in answers] == [200] * 20 + [429] * 10
    assert strict.refused == 0
    assert answers[-1].header("anthropic-ratelimit-requests-limit") == "20"


def test_keys_of_one_organisation_are_found_to_be_one_account(configured: Configured, upstream: RawUpstream) -> None:
    """Two labels without a scope: their answers name the same organisation."""
    strict = Strict(20, {"sk-a": "one", "sk-b": "one"})
    upstream.answer = strict
    keys = [{"label": one, "key": f"sk-{one}", "rpm_limit": 20} for one in "ab"]
    relay = configured(config(keyed(upstream.url, *keys)))
    answers = ask(relay, 30)

    assert [answer.status for answer in answers] == [200] * 20 + [429] * 10
    assert strict.refused == 0


def test_an_organisation_that_one_worker_found_is_one_account_for_all(tmp_path: Path, upstream: RawUpstream) -> None:
    """Two workers, two labels: once an answer of each key has told, nobody counts the organisation's limit twice."""
    strict = Strict(20, {"sk-a": "one", "sk-b": "one"})
    upstream.answer = strict
    keys = [{"label": one, "key": f"sk-{one}", "rpm_limit": 20} for one in "ab"]
    text = config(keyed(upstream.url, *keys) | {"key_selection": "round-robin"}, routing={"affinity": "none"})
    with relaying(tmp_path, text, "--workers", "2") as relay:
        first = ask(relay, 2)
        until(lambda: len(relay.events("organisation_learned")) == 2, "learned of both keys")
        newest = str(relay.events("organisation_learned")[-1]["ts"])

        def is_served() -> bool:
            later = [one["version"] for one in relay.events("snapshot_published") if str(one["ts"]) >= newest]
            serving = [one for one in relay.events("snapshot_served") if later and one["version"] == later[0]]
            return len(serving) == 2

        until(is_served, "both workers know")
        until(lambda: sum(map(requests_kept, (tmp_path / "state").glob("nodes/*/budgets.json"))) == 2, "both are kept")
        for pid in relay.pids("worker-0")[-1:]:  # one that starts later knows it at once
            os.kill(pid, signal.SIGKILL)
            until(lambda: len(relay.pids("worker-0")) == 2, "another worker")
        answers = first + [answer for _ in range(40) for answer in ask(relay, 1)]

    served = [answer.status for answer in answers].count(200)
    assert strict.refused == 0
    assert 10 <= served <= 20, served
    assert {answer.status for answer in answers} == {200, 429}


def test_a_worker_that_was_idle_has_room_at_once(tmp_path: Path, upstream: RawUpstream) -> None:
    """Of four workers one gets all requests for a while, and has a part by that; then others get some, too."""
    strict = Strict(30, {"sk-a": "one"})
    upstream.answer = strict
    text = config(keyed(upstream.url, {"label": "a", "key": "sk-a", "scope": "a", "rpm_limit": 30}))
    with relaying(tmp_path, text, "--workers", "4") as relay:
        with client(relay) as connection:
            first = [connection.ask("POST", "/v1/messages", BODY, AUTH).status for _ in range(6)]
        kept = tmp_path / "state" / "nodes"

        def leased() -> dict[str, list[list[int]]]:
            """By worker: what it has used of its part, and that."""
            found = {path.parent.name: json.loads(path.read_bytes())["spent"] for path in kept.glob("*/budgets.json")}
            return {name: [budget[2], budget[3]] for name, (budget, *_) in found.items() if budget[3] is not None}

        until(lambda: len(leased()) == 4, "all have a part, by what was asked for")
        busy = next(relay.pids(name)[-1] for name, (used, _) in leased().items() if used[0])
        os.kill(busy, signal.SIGSTOP)  # the others take what comes
        try:
            then = [ask(relay, 1)[0].status for _ in range(5)]
        finally:
            os.kill(busy, signal.SIGCONT)

    assert set(first + then) == {200}
    assert strict.refused == 0


def test_another_account_serves_while_one_rests(configured: Configured, upstream: RawUpstream) -> None:
    """A 429 moves on at once, and its account is left alone until the time that it named."""
    seen: list[str] = []

    def answer(request: Request, wire: Wire) -> None:
        key = request.header("x-api-key") or ""
        seen.append(key)
        limited = error_answer("429 Too Many", "rate_limit_error", "retry-after: 20")
        wire.send(limited if key == "sk-a" else json_answer(MESSAGE))

    upstream.answer = answer
    keys = [{"label": one, "key": f"sk-{one}", "priority": n} for n, one in enumerate("ab")]
    relay = configured(config(keyed(upstream.url, *keys)))
    answers = ask(relay, 10)

    assert [answer.status for answer in answers] == [200] * 10
    assert seen.count("sk-a") == 1


def test_a_refused_pool_tells_its_earliest_reset(configured: Configured, upstream: RawUpstream) -> None:
    """The last provider asked for 50 s, another only for 3: the client hears of the 3."""
    wait = {"sk-a": 3, "sk-b": 50}
    upstream.answer = lambda request, wire: wire.send(
        error_answer("429 Too Many", "rate_limit_error", f"retry-after: {wait[request.header('x-api-key') or '']}")
    )
    keys = [{"label": one, "key": f"sk-{one}", "priority": n} for n, one in enumerate("ab")]
    relay = configured(config(keyed(upstream.url, *keys)))
    first, second = ask(relay, 2)

    assert (first.status, first.header("retry-after"), first.header("x-cc-relay-attempts")) == (429, "3", "2")
    assert json.loads(first.body)["request_id"] == "req_up"  # the provider's own words
    assert (second.status, second.header("retry-after")) == (429, "3")
    assert len(upstream.requests) == 2


def test_a_spent_account_rests_for_long(configured: Configured, upstream: RawUpstream) -> None:
    """A spend limit comes without a time; asking again every few seconds would be in vain."""
    body = (
        b'{"type":"error","error":{"type":"rate_limit_error","message":"no",'
        b'"details":{"error_code":"enforced_spend_limit_reached"}}}'
    )
    upstream.answer = lambda request, wire: wire.send(json_answer(body, "429 Too Many"))
    keys = [{"label": "a", "key": "sk-a"}]
    relay = configured(config(keyed(upstream.url, *keys), routing={"spent_rest": "2h"}))
    first, second = ask(relay, 2)

    assert (first.status, first.body) == (429, body)
    assert second.status == 429
    assert 7100 < int(second.header("retry-after") or 0) <= 7200
    assert second.header("x-should-retry") == "false"
    assert len(upstream.requests) == 1


def test_limits_told_by_headers_are_kept(configured: Configured, upstream: RawUpstream) -> None:
    """No limit is configured; the provider says that two requests are left."""
    left = iter([2, 1, 0])

    def answer(request: Request, wire: Wire) -> None:
        time.sleep(0.12)  # of a crowd of answers only some are read
        lines = ["anthropic-ratelimit-requests-limit: 5", f"anthropic-ratelimit-requests-remaining: {next(left)}"]
        wire.send(json_answer(MESSAGE, "200 OK", *lines))

    upstream.answer = answer
    relay = configured(config(keyed(upstream.url, {"label": "a", "key": "sk-a"})))
    answers = ask(relay, 4)

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3].header("retry-after") or 0) <= 12


def test_limits_of_a_model_that_is_always_asked_right_after_another_are_kept(
    configured: Configured, upstream: RawUpstream
) -> None:
    """As a client does that has titles made by a small model. Each class of models has a limit of its own."""
    left = {b"sonnet": 5, b"haiku": 2}

    def answer(request: Request, wire: Wire) -> None:
        name = b"haiku" if b"haiku" in request.body else b"sonnet"
        left[name] -= 1
        counts = "limit: 5", f"remaining: {left[name]}"
        wire.send(json_answer(MESSAGE, "200 OK", *(f"anthropic-ratelimit-requests-{count}" for count in counts)))

    upstream.answer = answer
    relay = configured(config(keyed(upstream.url, {"label": "a", "key": "sk-a"})))
    with client(relay) as connection:
        statuses = [
            connection.ask("POST", "/v1/messages", BODY.replace(b"claude-test", model), AUTH).status
            for _ in range(3)
            for model in (b"claude-sonnet-4-5", b"claude-haiku-4-5")
        ]
    assert statuses == [200] * 5 + [429]


def test_a_scope_serves_again_after_its_rest(configured: Configured, upstream: RawUpstream) -> None:
    """By itself, as soon as the provider said."""
    upstream.answer = lambda request, wire: wire.send(
        error_answer("429 Too Many", "rate_limit_error", "retry-after: 1")
    )
    relay = configured(config(keyed(upstream.url, {"label": "a", "key": "sk-a"})))
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", BODY, AUTH).status == 429
        upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
        assert connection.ask("POST", "/v1/messages", BODY, AUTH).status == 429
        until(lambda: connection.ask("POST", "/v1/messages", BODY, AUTH).status == 200, "room again")


def test_a_worker_that_starts_anew_knows_what_was_used(tmp_path: Path, upstream: RawUpstream) -> None:
    """The account's minute is not over because a process is."""
    strict = Strict(5, {"sk-a": "a"})
    upstream.answer = strict
    text = config(keyed(upstream.url, {"label": "a", "key": "sk-a", "scope": "a", "rpm_limit": 5}))
    with relaying(tmp_path, text) as relay:
        assert [answer.status for answer in ask(relay, 6)] == [200] * 5 + [429]
        kept = tmp_path / "state" / "nodes" / "worker-0" / "budgets.json"
        until(lambda: kept.exists() and b"[5," in kept.read_bytes(), "what was used is kept")
        assert kept.stat().st_mode & 0o777 == 0o600
        starts = len(relay.events("node_ready"))
        os.kill(relay.pids("worker-0")[-1], signal.SIGKILL)
        until(lambda: len(relay.events("node_ready")) > starts, "it is back")
        relay.wait_ready()
        assert ask(relay, 1)[0].status == 429
    assert strict.refused == 0


def test_figures_of_accounts_follow_the_configuration(tmp_path: Path, upstream: RawUpstream) -> None:
    """A limit that was raised is shown so before anybody asks, one that was taken away, or its account replaced, is not shown."""
    told = "anthropic-ratelimit-requests-limit: 50", "anthropic-ratelimit-requests-remaining: 49"
    upstream.answer = lambda _, wire: wire.send(json_answer(MESSAGE, "200 OK", *told))

    def text(scope: str, limit: int) -> str:
        keys = [{"label": "a", "key": f"sk-{scope}", "scope": scope, **({"rpm_limit": limit} if limit else {})}]
        return config(provider("p", upstream.url, keys=keys))

    def shown() -> dict[str, int]:
        with grpc.insecure_channel((relay.state / "control.address").read_text().strip()) as channel:
            found = keys_pb2_grpc.KeyServiceStub(channel).ListScopes(keys_pb2.ListScopesRequest(), timeout=10)
        return {f"{one.provider}/{one.scope}": one.limits.requests for one in found.budgets if one.nodes}

    with relaying(tmp_path, text("a", 30)) as relay:
        assert ask(relay, 1)[0].status == 200
        until(lambda: shown() == {"p/a": 30}, "it is shown")
        reconfigured(relay, text("a", 40))
        until(lambda: shown() == {"p/a": 40}, "the other limit is shown, with no request in between")
        reconfigured(relay, text("b", 0))
        until(lambda: shown() == {}, "nothing that is not configured is shown")
        assert ask(relay, 1)[0].status == 200
        until(lambda: shown() == {"p/b": 50}, "what an answer told")
        reconfigured(relay, text("c", 0))
        until(lambda: shown() == {}, "nor what was told of an account that is gone")


def test_workers_share_an_account(tmp_path: Path, upstream: RawUpstream) -> None:
    """Two workers: at first half each, then by demand; together never more than the account allows."""
    strict = Strict(60, {"sk-a": "a"})
    upstream.answer = strict
    text = config(
        keyed(upstream.url, {"label": "a", "key": "sk-a", "scope": "a", "rpm_limit": 60}), server={"workers": 2}
    )
    served = 0

    def is_spent() -> bool:
        nonlocal served
        with client(relay) as connection:  # each connection is some worker's
            served += connection.ask("POST", "/v1/messages", BODY, AUTH).status == 200
        return served == 60

    with relaying(tmp_path, text) as relay:
        until(is_spent, "all that the account allows is used")
        assert ask(relay, 1)[0].status == 429
    assert strict.refused == 0


@pytest.mark.parametrize(("size", "second"), [(10, "other"), (200_000, "home")], ids=["short", "long"])
def test_a_long_conversation_waits_at_home_for_a_little_room(tmp_path: Path, size: int, second: str) -> None:
    """Elsewhere all of it would be read cold; a short one moves on at once."""
    full = (
        "anthropic-ratelimit-requests-limit: 60",
        "anthropic-ratelimit-requests-remaining: 0",
        "anthropic-ratelimit-requests-reset: 2030-01-01T00:00:00Z",
    )
    body = BODY.replace(b'"hi"', b'"' + b"x" * size + b'"')
    with RawUpstream(lambda _, wire: wire.send(json_answer(MESSAGE, "200 OK", *full))) as home, RawUpstream() as other:
        other.answer = lambda _, wire: wire.send(json_answer(MESSAGE))
        text = config(provider("home", home.url), provider("other", other.url, priority=1))
        with relaying(tmp_path, text) as relay, client(relay) as connection:
            for expected in ("home", second):
                answer = connection.ask("POST", "/v1/messages", body, AUTH, "x-claude-code-session-id: one")
                assert (answer.status, answer.header("x-cc-relay-provider")) == (200, expected)
            until(lambda: len(records(relay)) == 2, "the records")
            assert [bool(record.get("queued_ms")) for record in records(relay)] == [False, second == "home"]
