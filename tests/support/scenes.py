"""What a dashboard has to show: a small relay with everything in it, and a large one."""

from __future__ import annotations

from ccr_rpc.v1 import (
    config_pb2,
    events_pb2,
    fleet_pb2,
    keys_pb2,
    providers_pb2,
    records_pb2,
    snapshot_pb2,
    stats_pb2,
    usage_pb2,
)
from google.protobuf.duration_pb2 import Duration

from support.fake_admin import Scene, at


def figures(requests: int) -> stats_pb2.Figures:
    """Of some traffic."""
    return stats_pb2.Figures(
        requests=requests,
        served=requests - requests // 50,
        failed=requests // 50,
        tokens=usage_pb2.TokenUsage(input=requests * 100, output=requests * 50, cache_read=requests * 900),
        requests_per_s=requests / 1000,
        first_byte=stats_pb2.Percentiles(p50_us=412_000, p90_us=900_000, p99_us=2_300_000),
        total=stats_pb2.Percentiles(p50_us=4_120_000, p90_us=9_000_000, p99_us=23_000_000),
        overhead=stats_pb2.Percentiles(p50_us=310, p90_us=500, p99_us=900),
        cost_micro_usd=requests * 12_000,
        saved_micro_usd=requests * 30_000,
        cost_today_micro_usd=requests * 4_000,
        saved_today_micro_usd=requests * 10_000,
        open_requests=3,
    )


def provider(name: str, **more: object) -> providers_pb2.ProviderStatus:
    """One that is well, unless said otherwise."""
    one = providers_pb2.ProviderStatus(
        name=name,
        type=snapshot_pb2.PROVIDER_TYPE_COMPATIBLE,
        enabled=True,
        circuit=snapshot_pb2.CIRCUIT_STATE_CLOSED,
        circuit_since=at(3600),
        state=providers_pb2.PROVIDER_STATE_ENABLED,
        weight=1,
        etag=f"etag-{name}",
        base_url=f"https://{name}.example",
    )
    one.MergeFrom(providers_pb2.ProviderStatus(**more))  # type: ignore[arg-type] # fields of it
    return one


def record(
    number: int, provider_name: str = "anthropic", session: str = "s-1", failed: str = ""
) -> records_pb2.StoredRecord:
    """A finished request; with `failed`, an attempt there went wrong first."""
    attempts = [usage_pb2.Attempt(provider=provider_name, key_label="team-a", status=200, total_us=900_000)]
    if failed:
        attempts.insert(
            0, usage_pb2.Attempt(provider=failed, key_label="k", status=529, reason="overloaded", total_us=9_000)
        )
    decision = usage_pb2.Decision(
        strategy="failover",
        candidates=[
            usage_pb2.Considered(provider=one.provider, key_label=one.key_label, model="m") for one in attempts
        ],
        passed_over=[usage_pb2.PassedOver(what="local", why="circuit open")],
        candidate_count=len(attempts),
        pin=usage_pb2.PIN_USE_KEPT,
    )
    return records_pb2.StoredRecord(
        record=usage_pb2.RequestRecord(
            request_id=f"req_{number:06}",
            started_at=at(60),
            client="laptop",
            session=session,
            model_asked="claude-sonnet-4-5",
            model_used="m",
            route="small",
            status=200,
            outcome=usage_pb2.OUTCOME_SERVED,
            attempts=attempts,
            first_byte_us=412_000,
            total_us=930_000,
            overhead_us=300,
            tokens=usage_pb2.TokenUsage(input=10, output=20, cache_read=70),
            decision=decision,
            snapshot_version=7,
        ),
        node_id="host/worker-0",
        cost_usd=0.0123,
    )


def session(name: str, ago_s: float = 5, agents: tuple[str, ...] = ("",)) -> stats_pb2.Session:
    """A conversation."""
    used = usage_pb2.TokenUsage(input=100, output=50, cache_read=900)
    return stats_pb2.Session(
        session=name,
        client="laptop",
        first_at=at(ago_s + 600),
        last_at=at(ago_s),
        agents=[
            stats_pb2.SessionAgent(
                agent=agent,
                requests=4,
                tokens=used,
                cost_micro_usd=20_000,
                provider="anthropic",
                key_label="team-a",
                model="claude-sonnet-4-5",
                last_at=at(ago_s),
            )
            for agent in agents
        ],
        requests=4 * len(agents),
        tokens=used,
        cost_micro_usd=20_000 * len(agents),
    )


def key(provider_name: str, label: str) -> keys_pb2.KeyStatus:
    """A key that is well."""
    return keys_pb2.KeyStatus(
        provider=provider_name,
        label=label,
        scope=f"org-{label}",
        fingerprint="9f86d081",
        state=snapshot_pb2.KEY_STATE_ACTIVE,
        weight=1,
        circuit=snapshot_pb2.CIRCUIT_STATE_CLOSED,
        origin=keys_pb2.KeyStatus.ORIGIN_CONFIG,
        etag=f"etag-{label}",
        requests=321,
    )


def budget(provider_name: str, scope: str, used: int, limit: int) -> keys_pb2.ScopeBudget:
    """What an account has left of its tokens."""
    return keys_pb2.ScopeBudget(
        provider=provider_name,
        scope=scope,
        model_class="sonnet",
        limits=usage_pb2.BudgetAmounts(requests=1000, input_tokens=limit),
        used=usage_pb2.BudgetAmounts(requests=10, input_tokens=used),
        leased=usage_pb2.BudgetAmounts(requests=100, input_tokens=min(limit, used + limit // 5)),
        nodes=2,
        asked=11,
    )


def node(name: str, served: int = 7, **more: object) -> fleet_pb2.Node:
    """A worker that serves."""
    one = fleet_pb2.Node(
        node_id=name,
        instance_id="i-1",
        software_version="1.2.3",
        pid=4711,
        connected=True,
        connected_at=at(600),
        last_seen_at=at(0),
        served_version=served,
        offered_version=7,
        status=usage_pb2.NodeStatus(open_requests=2, open_connections=5, resident_bytes=52_000_000),
    )
    one.MergeFrom(fleet_pb2.Node(**more))  # type: ignore[arg-type] # fields of it
    return one


def small() -> Scene:
    """Three providers, one of them broken, and a little of everything else."""
    broken = provider(
        "local",
        circuit=snapshot_pb2.CIRCUIT_STATE_OPEN,
        circuit_since=at(40),
        last_failure_reason="connect",
        last_failure_at=at(40),
    )
    names = ("anthropic", "zai", "local")
    return Scene(
        stats=stats_pb2.Stats(
            at=at(),
            window=Duration(seconds=60),
            total=figures(12_345),
            providers=[
                stats_pb2.ProviderFigures(provider=name, figures=figures(1000 * n), failed_attempts=n)
                for n, name in enumerate(names, 1)
            ],
        ),
        providers=[provider("anthropic"), provider("zai", changed=["weight"]), broken],
        keys=[key("anthropic", "team-a"), key("anthropic", "team-b"), key("zai", "zai")],
        scopes=[budget("anthropic", "org-team-a", 62_000, 100_000), budget("zai", "org-zai", 97_000, 100_000)],
        nodes=[node("host/worker-0"), node("host/worker-1", served=6)],
        config=config_pb2.GetConfigResponse(
            source="/etc/ccr.yaml",
            config_hash="0123456789abcdef",
            snapshot_version=7,
            loaded_at=at(3600),
            revision=2,
            overlay_entries=1,
        ),
        revisions=[
            config_pb2.Revision(number=2, applied_at=at(60), config_hash="ff" * 32, applied_by="ops", lines=41),
            config_pb2.Revision(number=1, applied_at=at(9000), config_hash="ee" * 32, applied_by="file", lines=40),
        ],
        events=[
            events_pb2.Event(
                id=1,
                at=at(50),
                kind=events_pb2.EVENT_KIND_CONFIG,
                action="config.apply",
                resource="config",
                actor="file",
            ),
            events_pb2.Event(
                id=2,
                at=at(40),
                kind=events_pb2.EVENT_KIND_HEALTH,
                action="circuit.open",
                resource="providers/local",
                message="connect",
            ),
            events_pb2.Event(
                id=3,
                at=at(30),
                kind=events_pb2.EVENT_KIND_AUDIT,
                action="provider.update",
                resource="providers/zai",
                actor="ops",
                before_json='{"weight": 1}',
                after_json='{"weight": 2}',
            ),
        ],
        sessions=[session("s-1", 5, ("", "explorer")), session("s-2", 90)],
        records=[record(1), record(2, "zai", "s-2", failed="local"), record(3)],
        series=[
            stats_pb2.SeriesPoint(
                at=at(600 - 30 * n),
                span=Duration(seconds=30),
                requests=10 + n,
                failed=n % 2,
                first_byte=stats_pb2.Percentiles(p50_us=1000 * n),
            )
            for n in range(20)
        ],
    )


def large() -> Scene:
    """The bars: 100 providers, 1,000 keys, 5,000 sessions."""
    scene = small()
    scene.providers = [provider(f"provider-{n:03}") for n in range(100)]
    scene.stats.ClearField("providers")
    scene.stats.providers.extend(
        stats_pb2.ProviderFigures(provider=one.name, figures=figures(1000)) for one in scene.providers
    )
    scene.keys = [key(f"provider-{n // 10:03}", f"key-{n:04}") for n in range(1000)]
    scene.scopes = [budget(f"provider-{n // 10:03}", f"org-{n:04}", n * 100, 100_000) for n in range(1000)]
    scene.sessions = [session(f"session-{n:05}", n / 10, ("", "explorer", "planner")) for n in range(5000)]
    return scene


def gallery() -> Scene:
    """A relay as somebody may have one; for pictures."""
    scene = small()
    wave = [30, 42, 55, 61, 48, 33, 29, 44, 70, 92, 88, 61, 50, 47, 66, 81, 97, 90, 74, 58, 41, 39, 52, 68]
    scene.series = [
        stats_pb2.SeriesPoint(
            at=at(3600 - 30 * n),
            span=Duration(seconds=30),
            requests=wave[n % len(wave)] + n % 7,
            failed=int(n % 31 == 7),
            failed_attempts=int(n % 9 == 3),
            tokens=usage_pb2.TokenUsage(input=wave[(n + 5) % len(wave)] * 1000),
            cost_micro_usd=wave[(n + 9) % len(wave)] * 1000,
            first_byte=stats_pb2.Percentiles(p50_us=400_000 + wave[(n + 3) % len(wave)] * 2000),
            total=stats_pb2.Percentiles(p50_us=4_000_000 + wave[(n + 7) % len(wave)] * 20_000),
            overhead=stats_pb2.Percentiles(p99_us=700 + wave[n % len(wave)]),
        )
        for n in range(119)
    ]
    names = ("anthropic", "zai", "anthropic", "bedrock", "anthropic", "zai")
    scene.providers.insert(2, provider("bedrock", type=snapshot_pb2.PROVIDER_TYPE_BEDROCK))
    scene.stats.providers.append(stats_pb2.ProviderFigures(provider="bedrock", figures=figures(2500)))
    scene.records = [record(n, names[n % len(names)], f"s-{n % 3}", "local" if n % 8 == 6 else "") for n in range(40)]
    for n, stored in enumerate(scene.records):
        stored.record.started_at.CopyFrom(at(90 - 2 * n))
        stored.record.model_asked = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5")[n % 3]
        stored.record.total_us += n * 37_000 % 900_000
        stored.record.tokens.cache_read += n * 311 % 5000
    scene.keys += [key("bedrock", "us-east-1"), key("bedrock", "eu-west-1")]
    scene.keys[1].state = snapshot_pb2.KEY_STATE_DEPRECATED
    scene.scopes.append(budget("bedrock", "123456789012", 31_000, 200_000))
    return scene
