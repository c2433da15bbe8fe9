"""The simulation itself: it replays, it counts as providers do, and it would notice what it is there to notice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from ccr_control.core.leases import Amounts, Lease, Leases
from ccr_data.core.pins import Pins
from ccr_data.core.snapshot import Target
from simulate import report, scenarios
from simulate.__main__ import main
from simulate.plans import Crowd, Plan, ProviderPlan, ScopePlan, Spell
from simulate.providers import Account
from simulate.world import World


def calm(seed: int, **changes: Any) -> Plan:
    plan = scenarios.fleet(seed, nodes=4, scopes=3, sessions=60, minutes=8, mean_turns=6, is_rough=False, troubles=0)
    return Plan(
        **{name: getattr(plan, name) for name in Plan.__dataclass_fields__} | {"is_checked_often": True} | changes
    )


def test_a_seed_is_replayed_to_the_last_figure() -> None:
    """Otherwise a failure found at night could not be looked at in the morning."""
    one, other = (World(scenarios.fleet(7, nodes=3, scopes=3, sessions=50, minutes=6)).run() for _ in range(2))

    assert report.figures(one) == report.figures(other)
    assert one.clock.events == other.clock.events


def test_policies_get_the_same_sessions() -> None:
    """What differs is what the policy did about them."""
    plans = [scenarios.fleet(3, policy, sessions=80, nodes=2, scopes=2, minutes=6) for policy in ("random", "sticky")]

    assert plans[0].crowds == plans[1].crowds
    assert plans[0].spells == plans[1].spells
    assert plans[0].providers == plans[1].providers


def test_a_sliding_minute_is_exact() -> None:
    """The sixty-first request is refused until the first is a minute old, not until a clock's minute is over."""
    account = Account(ScopePlan("a", rpm=3), 0.0)
    arrivals = [0.0, 50.0, 59.0, 59.9, 60.0, 61.0, 110.0]

    assert [account.arrives(at_s) == 0 for at_s in arrivals] == [True, True, True, False, True, False, True]
    assert account.tally.peak == 5


def test_a_bucket_refills_evenly() -> None:
    """As Anthropic's: full at first, then one more each second at 60 a minute."""
    account = Account(ScopePlan("a", rpm=60, counting="bucket"), 0.0)

    assert all(account.arrives(0.0) == 0 for _ in range(60))
    assert account.arrives(0.5) > 0
    assert account.arrives(1.01) == 0
    assert account.arrives(1.02) > 0


# --- faults that it must find ---------------------------------------------------------------------------------------


def test_leases_given_twice_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that gives everybody everything."""

    def all_of_it(self: Leases, name: Any, node: str, now_s: float) -> Lease | None:
        limits = self.limits(name, now_s)
        self._serial += 1
        return Lease(name, Amounts(*limits), self._serial, limits)

    monkeypatch.setattr(Leases, "_grant", all_of_it)
    world = World(calm(1)).run()

    assert world.checks.broken["leases"]


def test_forgotten_pins_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that do not tell one another where sessions live."""
    monkeypatch.setattr(Pins, "learn", lambda *_: None)
    world = World(calm(1, workers=4)).run()

    assert world.checks.broken["pin lost"]


def test_lost_usage_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that drops each seventh batch."""
    world = World(calm(1))
    count, calls = world.disk.count, []

    def forgetful(journal: str, number: int, sums: Any) -> Any:
        calls.append(number)
        return count(journal, number, {} if len(calls) % 7 == 0 else sums)

    monkeypatch.setattr(world.disk, "count", forgetful)
    world.run()

    assert world.checks.broken["usage lost"]


def test_needless_failures_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that tries one target and gives up."""

    def only_first(left: Sequence[Target], *_: object) -> list[Target]:
        return list(left[:0])

    monkeypatch.setattr("simulate.nodes.after_failure", only_first)
    providers = (ProviderPlan("p", (ScopePlan("a"),)), ProviderPlan("q", (ScopePlan("b"),)))
    plan = Plan(
        seed=1,
        until_s=200.0,
        providers=providers,
        crowds=(Crowd(200, 2.0, 150.0, fixed_turns=1),),
        policy="random",
        spells=(Spell("p", "errors", 50.0, 100.0),),
    )

    assert World(plan).run().checks.broken["needless failure"]


def test_circuits_that_never_close_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that are lost."""
    monkeypatch.setattr("simulate.control.Control._probed", lambda *_: None)
    plan = scenarios.dying(1)
    world = World(plan).run()

    assert world.openings
    assert world.checks.broken["circuit stays open"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts, with everything that the text tells."""
    arguments = "--bars none --json --nodes 2 --scopes 2 --sessions 40 --minutes 5 --policy sticky --calm".split()  # noqa: SIM905

    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["policies"]["sticky"]["served_share"] > 0.5
    assert len(found["policies"]["sticky"]["curves"]["served"]) == 60


def test_it_compares_policies(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is better, and by how much."""
    arguments = "--bars none --nodes 2 --scopes 3 --sessions 80 --minutes 6 --load 0.5".split()  # noqa: SIM905

    main(arguments)
    told = capsys.readouterr().out
    assert "cached tokens read, of direct: " in told
    assert "is best" in told
    assert "holds  leases" in told
