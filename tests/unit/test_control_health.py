"""What batches say about providers, what becomes of it, and how providers are probed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web
from ccr_control.core.circuits import CircuitPolicy, Closed, Failures, Open, Successes
from ccr_control.core.compile import compile_snapshot
from ccr_control.core.config import Config, load
from ccr_control.core.health import MAX_JOURNALS, Health, ProbeResult, ProviderSetup
from ccr_control.core.probing import judge, probe_plan
from ccr_control.core.remembered import Remembered
from ccr_control.core.sightings import Sighting
from ccr_control.services.evidence import evidence_of
from ccr_control.shell.health import HealthKeeper
from ccr_control.shell.prober import Prober
from ccr_rpc.v1 import snapshot_pb2, usage_pb2
from support.fake_node import record

NOW = 1_780_000_000.0


def failure(
    provider: str, count: int, first_s: float, last_s: float, reason: str = "connect"
) -> usage_pb2.FailureSighting:
    told = usage_pb2.FailureSighting(provider=provider, reason=reason, count=count)
    told.first_at.FromMicroseconds(round(first_s * 1e6))
    told.last_at.FromMicroseconds(round(last_s * 1e6))
    return told


def test_evidence_comes_in_the_order_of_time() -> None:
    batch = usage_pb2.UsageBatch(
        records=[record("a", int(NOW), first_byte_us=500_000)], failures=[failure("a", 3, NOW, NOW + 0.1)]
    )
    assert evidence_of(batch) == [
        Failures("a", "connect", 3, NOW, NOW + 0.1, 3, 3),
        Successes("a", 1, NOW + 0.5, NOW, "team-a"),
    ]


def test_a_success_in_between_leaves_no_row() -> None:
    batch = usage_pb2.UsageBatch(
        records=[record("a", int(NOW), first_byte_us=50_000)], failures=[failure("a", 9, NOW, NOW + 0.1)]
    )
    batch.records[0].attempts[0].scope = "org-a"
    assert Failures("a", "connect", 9, NOW, NOW + 0.1, 1, 9) in evidence_of(batch), "it was another scope's"
    batch.failures[0].scope, batch.failures[0].key_label = "org-a", "team-a"
    assert Failures("a", "connect", 9, NOW, NOW + 0.1, 1, 1, "team-a") in evidence_of(batch)


def test_folded_successes_leave_no_row_either() -> None:
    """Their order is not known: only the rate can tell."""
    folded = usage_pb2.UsageSum(provider="a", requests=50, served=50)
    folded.ended_at.FromSeconds(int(NOW))
    batch = usage_pb2.UsageBatch(sums=[folded], failures=[failure("a", 9, NOW, NOW), failure("b", 9, NOW, NOW)])
    assert evidence_of(batch) == [
        Successes("a", 50, NOW + 1),
        Failures("a", "connect", 9, NOW, NOW, 1, 1),
        Failures("b", "connect", 9, NOW, NOW, 9, 9),
    ]


def test_folded_4xx_are_no_successes() -> None:
    """Half of what was served were mistakes of clients: they must not make up for failures."""
    folded = [
        usage_pb2.UsageSum(provider="a", key_label="k", served=50, served_4xx=30),
        usage_pb2.UsageSum(provider="b", key_label="k", served=50, served_4xx=50),
    ]
    for part in folded:
        part.ended_at.FromSeconds(int(NOW))
    assert evidence_of(usage_pb2.UsageBatch(sums=folded)) == [Successes("a", 20, NOW + 1, key_label="k")]


@pytest.mark.parametrize(
    "attempts",
    [
        [],
        [usage_pb2.Attempt(provider="a", status=400)],
        [usage_pb2.Attempt(provider="a", status=429, reason="rate_limited")],
        [usage_pb2.Attempt(provider="a", status=200, reason="client_left")],
    ],
)
def test_what_says_nothing_about_the_provider_is_no_evidence(attempts: list[usage_pb2.Attempt]) -> None:
    assert evidence_of(usage_pb2.UsageBatch(records=[record(attempts=attempts)])) == []


def test_a_batch_sent_again_is_no_news() -> None:
    """A node sends again what was not acknowledged; that must not count twice."""
    health = Health()
    assert [health.is_news("j", number) for number in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    for other in range(2 * MAX_JOURNALS):
        health.is_news(f"o{other}", 1)
    assert len(health._last_numbers) == MAX_JOURNALS


def test_another_provider_of_the_same_name_begins_closed() -> None:
    health = Health()
    health.configure(CircuitPolicy(), {"a": ProviderSetup("1"), "b": ProviderSetup("1")}, NOW)
    health.note([Failures(name, "connect", 5, NOW, NOW, 5) for name in ("a", "b", "unknown")], NOW)
    assert (health.state_of("a"), health.state_of("b"), health.state_of("unknown")) == ("open", "open", "closed")
    health.configure(CircuitPolicy(failures=1), {"a": ProviderSetup("2"), "b": ProviderSetup("1")}, NOW + 1)
    assert (health.state_of("a"), health.state_of("b")) == ("closed", "open")


def config(text: str = "", health: str = "") -> Config:
    providers = text or "{name: a, type: anthropic, keys: [{key: k}]}"
    whole = f"version: 1\nproviders: [{providers}]\n{health}"
    return load(whole, file="f", fmt="yaml", env={}).config


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("{name: a, type: anthropic, keys: [{key: k}]}", "https://api.anthropic.com/v1/models?limit=1"),
        ("{name: a, type: zai, keys: [{key: k}]}", "https://api.z.ai/api/anthropic/v1/models"),
        ("{name: a, type: ollama}", "http://localhost:11434/api/version"),
        ("{name: a, type: anthropic-compatible, preset: vllm}", "http://localhost:8000/health"),
        ("{name: a, type: anthropic-compatible, preset: llama-cpp}", "http://localhost:8080/health"),
        ("{name: a, type: anthropic-compatible, preset: lm-studio}", "http://localhost:1234/v1/models"),
    ],
)
def test_each_kind_has_a_free_probe(text: str, url: str) -> None:
    assert probe_plan(config(text).providers[0]).url == url


def test_a_probe_shows_its_secrets_to_nobody_else() -> None:
    plan = probe_plan(config("{name: a, type: zai, keys: [{key: the-secret}], headers: {x-team: blue}}").providers[0])
    assert dict(plan.headers)["authorization"] == "Bearer the-secret"
    assert dict(plan.headers)["x-team"] == "blue"
    assert "the-secret" not in repr(plan)


@pytest.mark.parametrize(
    ("status", "is_alive", "problem"),
    [
        (200, True, ""),
        (302, True, ""),
        (404, True, ""),
        (401, True, "it refuses the key"),
        (403, True, "it refuses the key"),
        (429, True, "it limits the rate"),
        (500, False, "it answers 500"),
        (501, True, ""),
        (529, False, "it answers 529"),
    ],
)
def test_what_an_answer_means(status: int, is_alive: bool, problem: str) -> None:
    """Only a server error is the answer of a provider that cannot serve."""
    found = judge(probe_plan(config().providers[0]), status, at_s=NOW, latency_ms=3.0)
    assert found == ProbeResult(NOW, is_alive, 3.0, status, problem)


def test_a_circuit_is_written_into_every_snapshot() -> None:
    """Also into that of a configuration that was changed meanwhile."""
    published: list[int] = []
    settings = config()
    keeper = HealthKeeper(lambda: settings, lambda: published.append(1), lambda: NOW)
    keeper.heard("j", 1, [Failures("a", "connect", 5, NOW, NOW, 5)])
    snapshot = snapshot_pb2.Snapshot(providers=[snapshot_pb2.Provider(name="a"), snapshot_pb2.Provider(name="b")])
    keeper.overlay(snapshot)
    assert [one.circuit for one in snapshot.providers] == [
        snapshot_pb2.CIRCUIT_STATE_OPEN,
        snapshot_pb2.CIRCUIT_STATE_CLOSED,
    ]
    keeper.heard("j", 1, [Failures("a", "connect", 5, NOW, NOW, 5)])
    assert published == [1], "published once, and only for a change"


@asynccontextmanager
async def server(handler: web.RequestHandler[web.Request] | object) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def at(url: str, health: str = "") -> Config:
    return config(f'{{name: a, type: anthropic, base_url: "{url}", allow_private: true, keys: [{{key: k}}]}}', health)


async def probed(url: str, health: str = "") -> ProbeResult:
    settings = at(url, health)
    keeper = HealthKeeper(lambda: settings, lambda: None, lambda: NOW)
    return await Prober(keeper, lambda: NOW).probe(settings.providers[0])


async def test_a_redirect_is_not_followed() -> None:
    """The key must not travel to where a stranger points."""
    asked: list[str] = []

    async def redirect(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"location": "/elsewhere"})

    async with server(redirect) as url:
        found = await probed(url)
    assert (found.is_alive, found.status, asked) == (True, 302, ["/v1/models"])


async def test_silence_ends_a_probe() -> None:
    async def silent(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with server(silent) as url:
        found = await probed(url, "health: {probe: {timeout: 50ms}}")
    assert (found.is_alive, found.problem) == (False, "no answer within 0.05 s")


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65536)

    async with server(endless) as url:
        assert (await probed(url)).is_alive


async def test_what_is_not_there_is_not_alive() -> None:
    found = await probed("http://127.0.0.1:1")
    assert not found.is_alive
    assert "no connection" in found.problem


async def test_an_open_circuit_is_left_alone_then_probed_until_it_closes() -> None:
    """Open for 100 ms, then every 20 ms until the provider answers again."""
    asked = 0

    async def ill_twice(request: web.BaseRequest) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503 if asked <= 2 else 200)

    async with server(ill_twice) as url:
        settings = at(url, "health: {circuit: {open_for: 100ms}, probe: {interval: 20ms, idle_interval: '0'}}")
        clock = asyncio.get_running_loop().time
        keeper = HealthKeeper(lambda: settings, lambda: None, clock)
        keeper.settings()
        prober = asyncio.create_task(Prober(keeper, clock).run())
        try:
            began_s = clock()
            keeper.heard("j", 1, [Failures("a", "connect", 5, began_s, began_s, 5)])
            async with asyncio.timeout(10):
                while not isinstance(keeper.providers()[0][1].circuit, Closed):
                    assert asked == 0 or not isinstance(keeper.providers()[0][1].circuit, Open)
                    await asyncio.sleep(0.002)
            assert clock() - began_s >= 0.1
        finally:
            prober.cancel()
            await asyncio.wait([prober])
    assert asked == 3


# --- whose keys are whose ---------------------------------------------------------------------------------------------

TWO_KEYS = (
    "{name: a, type: anthropic, keys: [{key: k1, label: one}, {key: k2, label: two}, {key: k3, label: own, scope: s}]}"
)


def seen(organisation: str) -> Sighting:
    return Sighting(NOW, 200, {"anthropic-organization-id": organisation, "anthropic-ratelimit-requests-limit": "50"})


def scopes_of(keeper: HealthKeeper, settings: Config) -> list[str]:
    snapshot = compile_snapshot(settings, version=1, created_at=datetime.fromtimestamp(NOW, UTC))
    keeper.overlay(snapshot)
    return [key.scope for key in snapshot.providers[0].keys]


def test_what_one_node_learned_of_a_keys_organisation_all_nodes_are_told() -> None:
    """Also one that starts later, and after a restart of the control plane. A configured scope stays as it is."""
    published: list[int] = []
    settings = config(TWO_KEYS)
    keeper = HealthKeeper(lambda: settings, lambda: published.append(1), lambda: NOW)
    for label in ("one", "two", "own", "unknown"):
        for _ in range(2):
            keeper.sighted("a", label, seen("o-1"))
    assert scopes_of(keeper, settings) == ["organisation o-1", "organisation o-1", "s"]
    assert published == [1, 1], "only for news"
    assert list(keeper.providers()[0][1].scopes) == ["organisation o-1", "s"]

    learned = tuple(keeper.remembered().organisations)
    again = HealthKeeper(lambda: settings, lambda: None, lambda: NOW)
    again.restore(Remembered(organisations=learned))
    assert scopes_of(again, settings) == ["organisation o-1", "organisation o-1", "s"]

    other = config(TWO_KEYS.replace("k1", "another"))
    changed = HealthKeeper(lambda: other, lambda: None, lambda: NOW)
    changed.restore(Remembered(organisations=learned))
    assert scopes_of(changed, other) == ["", "organisation o-1", "s"], "another key under the same label"


def test_one_fault_of_an_organisation_passes_all_its_keys_by() -> None:
    settings = config(TWO_KEYS)
    keeper = HealthKeeper(lambda: settings, lambda: None, lambda: NOW)
    for label in ("one", "two"):
        keeper.sighted("a", label, seen("o-1"))
    keeper.heard("j", 1, [Failures("a", "overloaded", 5, NOW, NOW, 5, 5, label) for label in ("two",)])
    snapshot = compile_snapshot(settings, version=1, created_at=datetime.fromtimestamp(NOW, UTC))
    keeper.overlay(snapshot)
    is_open, unset = snapshot_pb2.CIRCUIT_STATE_OPEN, snapshot_pb2.CIRCUIT_STATE_UNSPECIFIED
    assert [key.circuit for key in snapshot.providers[0].keys] == [is_open, is_open, unset]
    assert snapshot.providers[0].circuit == snapshot_pb2.CIRCUIT_STATE_CLOSED
