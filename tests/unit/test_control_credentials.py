"""What the control plane does with the credentials that it finds: what is in a snapshot, when it looks again, what it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from ccr_control.core.circuits import Failures
from ccr_control.core.compile import compile_snapshot
from ccr_control.core.config import Config, load
from ccr_control.core.material import AwsKey, Material, awaited, fill
from ccr_control.core.provider_schema import KeyConfig, ProviderConfig
from ccr_control.core.refreshing import AHEAD_S, REFUSED_PAUSE_S
from ccr_control.credentials.searching import NotFound, Search, search_for
from ccr_control.shell.credentials import CredentialKeeper
from ccr_rpc.v1 import snapshot_pb2
from support.control import until

BEGIN_S = 1_800_000_000.0


def config_of(*providers: str) -> Config:
    text = "version: 1\nserver: {auth: {mode: none}}\nproviders:\n" + "".join(f"  - {one}\n" for one in providers)
    return load(text, file="ccr.yaml", fmt="yaml", env={}).config


BEDROCK = "{name: b, type: bedrock, region: us-east-1, aws: {profile: p}}"
VERTEX = "{name: v, type: vertex, project: my-project}"
STATIC = "{name: s, type: bedrock, region: us-east-1, aws: {access_key_id: AKID, secret_access_key: hush}}"


def snapshot_of(config: Config) -> snapshot_pb2.Snapshot:
    from datetime import UTC, datetime

    return compile_snapshot(config, version=1, created_at=datetime(2026, 11, 20, tzinfo=UTC))


@dataclass
class Rig:
    """A keeper with a clock of its own and clouds that do as told."""

    config: Config
    now_s: float = BEGIN_S
    outcomes: dict[str, Material | Exception] = field(default_factory=dict)
    searches: list[str] = field(default_factory=list)
    published: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.keeper = CredentialKeeper(
            lambda: self.config, self.publish, lambda: self.now_s, roll=lambda: 0.5, search_for=self.search_for
        )

    def publish(self) -> None:
        self.published += 1

    def search_for(self, provider: ProviderConfig, key: KeyConfig) -> Search | None:
        if search_for(provider, key) is None:
            return None

        def search() -> Material:
            self.searches.append(provider.name)
            assert self.gate.wait(10)
            outcome = self.outcomes[provider.name]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return search

    def keys(self) -> dict[str, snapshot_pb2.Key]:
        """The keys that nodes would get, by provider."""
        snapshot = snapshot_of(self.config)
        self.keeper.overlay(snapshot)
        assert not list(awaited(snapshot)), "nodes refuse an empty key"
        return {provider.name: key for provider in snapshot.providers for key in provider.keys}

    @contextmanager
    def running(self) -> Iterator[None]:
        """The keeper at work while the block runs."""
        task = asyncio.create_task(self.keeper.run())
        try:
            yield
        finally:
            task.cancel()

    async def move(self, now_s: float, until_searched: int) -> None:
        """Let the clock say something else, wake the keeper, and wait until it has searched so often."""
        self.now_s = now_s
        self.keeper._news.set()
        await until(lambda: len(self.searches) >= until_searched and self.is_at_rest(), "searched")

    def is_at_rest(self) -> bool:
        return not any(held.standing.is_sought for name in ("b", "v") for held in self.keeper.of(name))


def token(text: str, lifetime_s: float | None = 3600, since_s: float = BEGIN_S) -> Material:
    return Material(text, None if lifetime_s is None else since_s + lifetime_s)


def aws_key(number: int, since_s: float = BEGIN_S) -> Material:
    return Material(AwsKey(f"ASIA{number}", f"secret-{number}", f"token-{number}"), since_s + 3600)


async def test_what_is_found_soon_is_in_the_first_snapshot() -> None:
    """The first request after a start works."""
    rig = Rig(config_of(BEDROCK, VERTEX), outcomes={"b": aws_key(1), "v": token("t1")})

    await rig.keeper.first_chance(5)

    keys = rig.keys()
    assert keys["b"].aws.access_key_id == "ASIA1"
    assert keys["b"].aws.session_token == "token-1"
    assert not keys["b"].secret
    assert keys["b"].expires_at.seconds == BEGIN_S + 3600
    assert keys["v"].secret == "t1"


async def test_what_is_found_late_holds_nothing_up() -> None:
    """A cloud that hangs must not keep the others from being served; its key appears when it is found."""
    rig = Rig(config_of(BEDROCK, STATIC), outcomes={"b": aws_key(1)})
    rig.gate.clear()

    await rig.keeper.first_chance(0.01)
    assert set(rig.keys()) == {"s"}
    rig.gate.set()
    await until(lambda: rig.published, "published")

    assert set(rig.keys()) == {"b", "s"}


async def test_a_start_without_clouds_waits_for_nothing() -> None:
    rig = Rig(config_of("{name: a, type: anthropic, keys: [{key: k}]}", STATIC))

    await rig.keeper.first_chance(1000)

    assert rig.searches == []
    assert rig.keys()["s"].aws.secret_access_key == "hush"


async def test_it_is_renewed_ahead_of_its_end() -> None:
    rig = Rig(config_of(VERTEX), outcomes={"v": token("t1")})
    await rig.keeper.first_chance(5)
    rig.outcomes["v"] = token("t2", since_s=BEGIN_S + 2600)
    with rig.running():
        await rig.move(BEGIN_S + 3600 - AHEAD_S * 1.3, 1)
        assert rig.keys()["v"].secret == "t1"
        await rig.move(BEGIN_S + 3600 - AHEAD_S, 2)
        assert rig.keys()["v"].secret == "t2"


async def test_a_failing_renewal_keeps_what_is_good_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It is warned of while there is time; the key goes when it ends, and comes back when there is a new one."""
    rig = Rig(config_of(BEDROCK), outcomes={"b": aws_key(1)})
    await rig.keeper.first_chance(5)
    rig.outcomes["b"] = NotFound("AccessDenied: not you")
    published = rig.published
    with rig.running(), caplog.at_level("INFO"):
        await rig.move(BEGIN_S + 3600 - AHEAD_S, 2)
        assert rig.keys()["b"].aws.access_key_id == "ASIA1"
        (held,) = rig.keeper.of("b")
        assert held.standing.problem == "AccessDenied: not you"
        assert "credential_not_renewed" in caplog.text

        await rig.move(BEGIN_S + 3600, 3)
        await until(lambda: rig.published == published + 1, "published without it")
        assert rig.keys() == {}
        assert "credential_expired" in caplog.text

        rig.outcomes["b"] = aws_key(2, BEGIN_S + 4000)
        await rig.move(BEGIN_S + 4000, 4)
        assert rig.keys()["b"].aws.access_key_id == "ASIA2"
        assert rig.keeper.of("b")[0].standing.problem == ""


async def test_a_refusal_of_the_provider_starts_one_search() -> None:
    """A 403 for a cloud's key: it may have been revoked. Many nodes tell of it, and tell again."""
    rig = Rig(config_of(BEDROCK), outcomes={"b": aws_key(1)})
    await rig.keeper.first_chance(5)
    refusal = Failures("b", "key_refused", 1, BEGIN_S, BEGIN_S, 1, key_label="aws")
    rig.outcomes["b"] = aws_key(2)
    with rig.running():
        await rig.move(BEGIN_S + REFUSED_PAUSE_S, 1)
        for _ in range(3):
            rig.keeper.heard([refusal])
        await until(lambda: len(rig.searches) == 2 and rig.is_at_rest(), "searched")
        rig.keeper.heard([refusal])
        rig.keeper.heard([Failures("b", "overloaded", 1, BEGIN_S, BEGIN_S, 1, key_label="aws")])
        await asyncio.sleep(0)

    assert len(rig.searches) == 2
    assert rig.keys()["b"].aws.access_key_id == "ASIA2"


async def test_another_configuration_of_a_key_is_another_credential() -> None:
    """What was found for the old one must not be used for the new one; what is the same is not looked for again."""
    rig = Rig(config_of(BEDROCK, VERTEX), outcomes={"b": aws_key(1), "v": token("t1")})
    await rig.keeper.first_chance(5)
    rig.outcomes["b"] = aws_key(2)
    rig.config = config_of(BEDROCK.replace("profile: p", "profile: q"), VERTEX)
    assert set(rig.keys()) == {"v"}
    with rig.running():
        await rig.move(BEGIN_S, 3)

    assert rig.keys()["b"].aws.access_key_id == "ASIA2"
    assert sorted(rig.searches) == ["b", "b", "v"]


async def test_a_search_for_what_is_no_longer_configured_changes_nothing() -> None:
    rig = Rig(config_of(BEDROCK), outcomes={"b": aws_key(1)})
    rig.gate.clear()
    await rig.keeper.first_chance(0.01)
    rig.config = config_of(STATIC)
    rig.keys()
    rig.gate.set()
    await until(lambda: not _threads(), "its thread ends")
    await asyncio.sleep(0)

    assert rig.published == 0


async def test_a_mistake_in_a_library_is_a_failed_search() -> None:
    """Otherwise the credential would never be looked for again."""
    rig = Rig(config_of(VERTEX), outcomes={"v": KeyError("eyJhbGciOiJSUzI1NiJ9.secret.part")})

    await rig.keeper.first_chance(5)

    (held,) = rig.keeper.of("v")
    assert held.standing.problem == "KeyError: '***'"
    assert not held.standing.is_sought


async def test_no_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Held material appears in logs and tracebacks by its repr."""
    rig = Rig(config_of(BEDROCK, VERTEX), outcomes={"b": aws_key(1), "v": token("very-secret")})
    with caplog.at_level("DEBUG"):
        await rig.keeper.first_chance(5)
    shown = f"{caplog.text}{[repr(held) for name in 'bv' for held in rig.keeper.of(name)]}{aws_key(1)!r}"

    for secret in ("secret-1", "token-1", "ASIA1", "very-secret"):
        assert secret not in shown


@pytest.mark.parametrize("found", [lambda *_: None, lambda *_: Material("t")])
def test_filling_leaves_no_key_empty_and_touches_no_other(found: Callable[[str, str], Material | None]) -> None:
    snapshot = snapshot_of(config_of(VERTEX, STATIC, "{name: a, type: anthropic, keys: [{key: k}]}"))
    before = {provider.name: list(provider.keys) for provider in snapshot.providers}
    fill(snapshot, found)
    after = {provider.name: list(provider.keys) for provider in snapshot.providers}

    assert list(awaited(snapshot)) == []
    assert {name: after[name] for name in "as"} == {name: before[name] for name in "as"}
    assert [key.secret for key in after["v"]] == (["t"] if found("", "") else [])


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("credential of")]
