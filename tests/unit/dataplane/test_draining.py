"""A draining provider keeps its sessions and gets nothing else, whatever it takes for a credential."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ccr_data.core.errors import CircuitsOpen, NotSupported
from ccr_data.core.pins import Pin
from ccr_data.core.routing import Needs, NodeState, Plan, plan
from ccr_data.core.snapshot import AuthStyle, Key, KeyState, Provider
from support import routing

OWN = Needs(own_token=True)


def provider(
    name: str, *, drains: bool = False, is_open: bool = False, keys: int = 1, subscription: bool = False
) -> Provider:
    own = tuple(Key(f"{name}-{number}", "secret", "") for number in range(keys))
    style = AuthStyle.X_API_KEY if keys else AuthStyle.NONE
    more = {"is_open": is_open, "is_draining": drains, "accepts_subscription": subscription}
    return routing.provider(name, keys=own, auth_style=style, **more)


def planned(*providers: Provider, needs: Needs | None = None, pin: Pin | None = None) -> Plan:
    known = routing.snapshot(*providers)
    return plan(known.routed("m"), "m", needs or Needs(), pin, NodeState(), 0.0, lambda: 0.5)


def targets(of: Plan) -> list[tuple[str, str]]:
    return [(target.provider.name, target.label) for target in of.targets]


@pytest.mark.parametrize("keys", [0, 1, 2])
def test_a_session_that_lives_there_goes_on(keys: int) -> None:
    """Also where there is no key to speak of."""
    label = "a-0" if keys else ""
    found = planned(provider("a", drains=True, keys=keys), provider("b"), pin=Pin("a", label, 9e9))
    assert targets(found) == [("a", label), ("b", "b-0")]


@pytest.mark.parametrize("keys", [0, 1, 2])
@pytest.mark.parametrize("pin", [None, Pin("b", "b-0", 9e9)])
def test_everything_else_goes_elsewhere(keys: int, pin: Pin | None) -> None:
    found = planned(provider("a", drains=True, keys=keys), provider("b"), pin=pin)
    assert targets(found) == [("b", "b-0")]
    assert ("a", "draining") in found.passed_over


def test_a_client_s_own_subscription_drains_too() -> None:
    both = (provider("a", drains=True, subscription=True), provider("b", subscription=True))
    assert [name for name, _ in targets(planned(*both, needs=OWN))] == ["b"]
    own = targets(planned(provider("a", subscription=True), needs=OWN))[0]
    assert [name for name, _ in targets(planned(*both, needs=OWN, pin=Pin(*own, 9e9)))] == ["a", "b"]


def test_one_that_keeps_failing_is_better_than_one_that_drains() -> None:
    """Draining is a decision; a circuit is only an opinion of what will work."""
    found = planned(provider("a", drains=True), provider("b", is_open=True))
    assert targets(found) == [("b", "b-0")]


def test_where_nothing_else_is_there_the_answer_says_why() -> None:
    with pytest.raises(CircuitsOpen, match="drained"):
        planned(provider("a", drains=True))
    with pytest.raises(CircuitsOpen, match="drained"):
        planned(provider("a", drains=True, subscription=True), needs=OWN)
    with pytest.raises(NotSupported):
        planned(provider("a"), needs=OWN)


def test_a_retired_key_of_one_that_does_not_drain_is_as_before() -> None:
    retired = Key("a-old", "secret", "", state=KeyState.DEPRECATED)
    one = provider("a")
    found = planned(replace(one, keys=(*one.keys, retired)), pin=Pin("a", "a-old", 9e9))
    assert targets(found) == [("a", "a-old"), ("a", "a-0")]
    assert targets(planned(replace(one, keys=(retired,)), provider("b"))) == [("b", "b-0")]
