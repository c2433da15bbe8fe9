"""What is said of a request that nobody sent is what a real one would meet, and saying it moves nothing."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace

from ccr_data.core.amounts import Allowance
from ccr_data.core.client_limits import ClientLimits
from ccr_data.core.errors import RequestError
from ccr_data.core.explaining import Explained, Hypothetical, View, explain, made_up
from ccr_data.core.limits import Limits
from ccr_data.core.matching import Asked, Conditions, RequestClass, estimated_tokens, has_block, holds, offers_tools
from ccr_data.core.pins import Pins, key_of
from ccr_data.core.records import Reason
from ccr_data.core.routing import Needs, NodeState, plan
from ccr_data.core.snapshot import (
    AuthMode,
    AuthPolicy,
    Candidate,
    Key,
    KeySelection,
    KeyState,
    ModelPrice,
    RelayPolicy,
    Route,
    Snapshot,
    Strategy,
    Traits,
)
from hypothesis import given
from hypothesis import strategies as st
from support.routing import first_with_room, provider

NOW_S = 100.0
SALT = b"salt"

KEYS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 1), st.sampled_from(list(KeyState)), st.sampled_from([0, 1])),
    min_size=1,
    max_size=3,
)
PROVIDERS = st.lists(
    st.tuples(
        KEYS,
        st.sampled_from(list(KeySelection)),
        st.one_of(st.none(), st.integers(1, 4)),  # price
        st.booleans(),  # reads documents
        st.booleans(),  # counts tokens
        st.sampled_from(["closed", "closed", "open", "disabled"]),
        st.booleans(),  # takes subscription tokens
    ),
    min_size=1,
    max_size=4,
)
REQUESTS = st.builds(
    Hypothetical,
    model=st.just("m"),
    count_tokens=st.booleans(),
    streams=st.booleans(),
    client=st.sampled_from(["", "laptop", "subscription"]),
    subagent=st.booleans(),
    thinking=st.booleans(),
    input_tokens=st.sampled_from([0, 500, 5000]),
    images=st.booleans(),
    documents=st.booleans(),
    tools=st.booleans(),
    session=st.sampled_from(["", "s"]),
)


def snapshot(shapes: list[tuple[object, ...]], strategy: Strategy, keeps_last: bool = True) -> Snapshot:
    providers = []
    for n, (keys, selection, price, documents, counts, state, subscription) in enumerate(shapes):
        made = tuple(
            Key(f"k{m}", "secret", f"scope{m % 2}", weight, priority, Allowance(requests=rpm), key_state)
            for m, (weight, priority, key_state, rpm) in enumerate(keys)  # type: ignore[arg-type, var-annotated]
        )
        providers.append(
            provider(
                f"p{n}",
                *made,
                traits=Traits(documents=bool(documents), count_tokens=bool(counts)),
                prices=() if price is None else (ModelPrice("*", price, 1, 1, 1),),  # type: ignore[arg-type]
                key_selection=selection,
                is_open=state == "open",
                is_enabled=state != "disabled",
                accepts_subscription=bool(subscription),
            )
        )
    candidates = tuple(Candidate(one.name, None, n + 1, n % 2) for n, one in enumerate(providers))
    auth = AuthPolicy(AuthMode.KEYS, {b"1" * 32: "laptop"}, allow_subscription=True)
    relay = RelayPolicy(drops_last_candidate=not keeps_last)
    return Snapshot(1, auth, {one.name: one for one in providers}, (Route("r", (), candidates, strategy),), relay)


def used_node(of: Snapshot, steps: list[tuple[int, Reason | None]], limits: Limits) -> NodeState:
    """A node after some requests."""
    node, roll = NodeState(), random.Random(5).random
    for n, (which, reason) in enumerate(steps):
        try:
            targets = plan(of.routed("m"), "m", Needs(), None, node, NOW_S - 10 + n / 10, roll).targets
        except RequestError:
            continue
        target = targets[which % len(targets)]
        node.load.enter(target)
        node.latencies.sample((target.provider.name, "m", bool(n % 2)), 0.1 * (which + 1), NOW_S - 9 + n / 10)
        if target.key is not None:
            first_with_room(limits, [(target.scope, "m")], 400, NOW_S - 5)
        if reason is not None:
            node.cooldowns.note(target, reason, NOW_S + which - 3)
    return node


def limits_of(of: Snapshot) -> Limits:
    limits = Limits()
    scopes = {(one.name, key.scope): key.limits for one in of.providers.values() for key in one.keys}
    limits.configure(scopes, {}, 1)
    return limits


def state_of(view: View) -> object:
    """Everything that could move, without what time alone changes."""
    node = view.node
    times = {
        key: (one.average_s, one.sampled_s, one.tried_s, one.is_guess) for key, one in node.latencies._known.items()
    }
    return deepcopy(
        (
            node.turns,
            node.cooldowns._until,
            node.cooldowns._refused,
            times,
            node.load._open,
            view.pins.all(),
            view.pins.changed,
            view.limits.uses(NOW_S),
        )
    )


STEPS = st.lists(st.tuples(st.integers(0, 6), st.one_of(st.none(), st.sampled_from(list(Reason)))), max_size=8)


@given(PROVIDERS, st.sampled_from(list(Strategy)), REQUESTS, STEPS, st.integers(0, 9), st.booleans(), st.booleans())
def test_it_is_what_the_plan_then_does(
    shapes: list[tuple[object, ...]],
    strategy: Strategy,
    of: Hypothetical,
    steps: list[tuple[int, Reason | None]],
    seed: int,
    keeps_last: bool,
    has_pin: bool,
) -> None:
    """With the same rolls; and asked twice it says the same, as nothing has moved."""
    known, pins = snapshot(shapes, strategy, keeps_last), Pins()
    limits = limits_of(known)
    node = used_node(known, steps, limits)
    if has_pin:
        pins.put(key_of(SALT, "s", "", "m"), "p0", "k0", NOW_S)
    view = View(known, node, pins, limits, ClientLimits(), SALT, NOW_S)
    before = state_of(view)

    said = explain(of, view, random.Random(seed).random)
    again = explain(of, view, random.Random(seed).random)

    assert state_of(view) == before
    assert replace(again, decision=None) == replace(said, decision=None)
    assert [vars(one.decision) for one in (again,) if one.decision] == [
        vars(one.decision) for one in (said,) if one.decision
    ]
    pin = pins.of(key_of(SALT, "s", "", "m"), NOW_S) if of.session and not of.subagent else None
    needs = Needs(of.count_tokens, of.documents, of.client == "subscription", of.streams and not of.count_tokens)
    done, problem = None, ""
    try:
        done = plan(known.routed("m"), "m", needs, pin, node, NOW_S, random.Random(seed).random)
    except RequestError as error:
        problem = str(error)
    if done is None:
        assert said.status in (404, 529)
        assert said.problem == problem
        return
    assert said.decision is not None
    assert said.decision.pin is done.pin
    assert said.decision.passed_over[: len(done.passed_over)] == done.passed_over
    assert said.decision.scored == done.scored
    order = list(said.decision.targets)
    if of.count_tokens or done.targets[0].key is None:
        assert order == done.targets
        return
    size = len(made_up(of))
    takes = [
        first_with_room(limits, [(one.scope, "m")], size, NOW_S)[0] == 0 for one in _each_account_once(done.targets)
    ]
    has_room = {one.scope: room for one, room in zip(_each_account_once(done.targets), takes, strict=True)}
    assert order == sorted(done.targets, key=lambda one: not has_room[one.scope])
    assert said.status == (0 if any(takes) else 429)


def _each_account_once(targets):  # type: ignore[no-untyped-def]
    return list({one.scope: one for one in reversed(targets)}.values())


@given(REQUESTS, st.integers(0, 20_000))
def test_a_made_up_request_shows_what_was_said_of_it(of: Hypothetical, tokens: int) -> None:
    """So that conditions hold or not as they would for a real one."""
    body = made_up(replace(of, input_tokens=tokens))
    asked = Asked(of.client, of.subagent, of.count_tokens, [], body)

    assert has_block(body, b"image") == of.images
    assert has_block(body, b"document") == of.documents
    assert offers_tools(body) == of.tools
    assert holds(Conditions(thinking=True), asked) == of.thinking
    assert estimated_tokens(body) == max(tokens, estimated_tokens(made_up(replace(of, input_tokens=0))))


@given(REQUESTS)
def test_conditions_are_asked_of_it(of: Hypothetical) -> None:
    providers = {name: provider(name) for name in "abc"}
    conditions = (
        ("a", Conditions(images=True, tools=False)),
        ("b", Conditions(classes=frozenset((RequestClass.MAIN,)), min_input_tokens=1000)),
        ("c", None),
    )
    routes = tuple(
        Route(name, (), (Candidate(name, None),), Strategy.FAILOVER, condition) for name, condition in conditions
    )
    known = Snapshot(1, AuthPolicy(AuthMode.KEYS, {b"": "laptop"}, True), providers, routes, RelayPolicy())
    said: Explained = explain(
        replace(of, client=""), View(known, NodeState(), Pins(), Limits(), ClientLimits(), SALT, NOW_S), lambda: 0.5
    )

    if of.images and not of.tools:
        expected = "a"
    elif of.tools and not of.subagent and not of.count_tokens and of.input_tokens >= 1000:
        expected = "b"
    else:
        expected = "c"
    assert said.route == expected
    assert said.decision is not None
    assert said.decision.targets[0].provider.name == expected
