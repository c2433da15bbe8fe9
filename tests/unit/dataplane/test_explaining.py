"""Requests that nobody sent: who may ask, what leaves them out, and candidates without secrets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ccr_data.core.amounts import Allowance
from ccr_data.core.client_limits import ClientLimits, ClientRules
from ccr_data.core.explaining import Explained, Hypothetical, View, explain
from ccr_data.core.limits import Limits
from ccr_data.core.pins import Pins, key_of
from ccr_data.core.records import PinUse, Reason
from ccr_data.core.routing import NodeState
from ccr_data.core.snapshot import AuthMode, AuthPolicy, Key, KeyState, Provider, RelayPolicy
from ccr_data.core.waiting import QueueRules
from ccr_data.shell.asking import candidate, understood
from ccr_data.shell.budgeting import Budgeting
from ccr_rpc.v1 import snapshot_pb2
from support.node_values import snapshot_message
from support.routing import FOR_ALL, first_with_room, provider, snapshot

ASKED = Hypothetical("claude-x")


def view_of(*providers: Provider, auth: AuthPolicy = FOR_ALL) -> View:
    known = snapshot(*providers, only_served=True, auth=auth, relay=RelayPolicy(max_body_bytes=1 << 20))
    budgeting = Budgeting()
    budgeting.follow(known)
    return View(known, NodeState(), Pins(), budgeting.limits, ClientLimits(), b"salt", 100.0)


def ask(view: View, of: Hypothetical = ASKED) -> Explained:
    return explain(of, view, lambda: 0.5)


def first(said: Explained) -> str:
    assert said.decision is not None
    return said.decision.targets[0].provider.name


def test_only_known_clients_have_requests() -> None:
    view = view_of(provider("a"), auth=AuthPolicy(AuthMode.KEYS, {b"1" * 32: "laptop"}))

    assert ask(view).status == 0  # nobody in particular
    assert ask(view, replace(ASKED, client="laptop")).status == 0
    for stranger, hint in (("lapdog", "server.auth.keys"), ("subscription", "allow_subscription")):
        said = ask(view, replace(ASKED, client=stranger))
        assert (said.status, said.route, said.decision) == (401, "", None)
        assert hint in said.problem


def test_what_could_never_serve_it_is_named() -> None:
    """So that a person sees why a candidate is not in the list at all."""
    view = view_of(
        provider("a", Key("on", "s", ""), Key("off", "", "", state=KeyState.DISABLED)),
        provider("b", is_enabled=False),
        provider("c", serves=("glm-*",)),
        provider("d", is_open=True),
    )
    said = ask(view)

    assert first(said) == "a"
    assert said.decision is not None
    assert said.decision.passed_over == [
        ("d", "circuit open"),
        ("a/off", "key disabled"),
        ("b", "disabled"),
        ("c", "does not serve the model"),
    ]


def test_a_refusal_says_why_each_candidate_was_left_out() -> None:
    said = ask(
        view_of(provider("a", is_open=True), provider("b", is_enabled=False)), replace(ASKED, client="subscription")
    )
    assert said.status == 401

    view = view_of(provider("a", serves=("glm-*",)), provider("b", serves=("glm-*",)))
    said = ask(view)
    assert said.status == 404
    assert "claude-x" in said.problem
    assert said.decision is not None
    assert said.decision.passed_over == [("a", "does not serve the model"), ("b", "does not serve the model")]


def test_accounts_without_room_come_last_and_are_asked_for_nothing() -> None:
    limit = Allowance(requests=1)
    view = view_of(provider("a", Key("k", "s", "", limits=limit)), provider("b", Key("k", "s", "", limits=limit)))
    assert first(ask(view)) == "a"
    assert view.limits.uses(100.0) == []  # not even a budget was made

    assert first_with_room(view.limits, [(("a", "k"), "claude-x")], 100, 100.0)[0] == 0
    said = ask(view)
    assert first(said) == "b"
    assert said.decision is not None
    assert said.decision.passed_over == [("a/k", "no room")]
    assert [use.asked for use in view.limits.uses(100.0)] == [1]

    assert first_with_room(view.limits, [(("b", "k"), "claude-x")], 100, 100.0)[0] == 0
    said = ask(view)
    assert (said.status, first(said)) == (429, "a")
    assert "rate limit" in said.problem
    assert ask(view, replace(ASKED, count_tokens=True)).status == 0  # that counts in no budget


def test_where_requests_wait_for_room_it_would() -> None:
    limit = Allowance(requests=1)
    view = view_of(provider("a", Key("k", "s", "", limits=limit)))
    first_with_room(view.limits, [(("a", "k"), "claude-x")], 100, 100.0)
    for max_wait_s, status in ((5.0, 429), (70.0, 0)):
        relay = replace(view.snapshot.relay, queue=QueueRules(max_wait_s, 9))
        said = ask(replace(view, snapshot=replace(view.snapshot, relay=relay)))
        assert said.status == status
        assert "room again in 61 s" in said.problem


def test_limits_of_its_client_hold_for_it_and_are_not_touched() -> None:
    rules = ClientRules(requests=1, concurrency=2)
    auth = AuthPolicy(AuthMode.KEYS, {b"1" * 32: "laptop"}, rules={"laptop": rules})
    view, of = view_of(provider("a"), auth=auth), replace(ASKED, client="laptop")
    for _ in range(3):
        assert ask(view, of).status == 0
    view.clients.take("laptop", rules, 100, 100.0, 0.0)

    said = ask(view, of)
    assert (said.status, said.route) == (429, "default")
    assert "limit of 1 requests a minute" in said.problem
    assert ask(view, replace(of, count_tokens=True)).status == 0
    for others, hint in ((ClientRules(concurrency=1), "1 requests open"), (ClientRules(spent_until_s=9.0), "spent")):
        known = replace(view.snapshot, auth=replace(auth, rules={"laptop": others}))
        assert hint in ask(replace(view, snapshot=known), of).problem
    view.clients.take("laptop", ClientRules(requests=2), 100, 100.0, 0.0)  # that one request is all that was counted


def test_a_key_without_its_secret_rests_as_before() -> None:
    """A candidate's keys are not taken for renewed ones, and nothing is forgotten over it."""
    view = view_of(provider("a"), provider("b"))
    refused = view.snapshot.routed("claude-x").choices[0].targets[0]
    view.node.cooldowns.note(refused, Reason.KEY_REFUSED, 200.0)
    withheld = view_of(provider("a", Key("a-key", "withheld", "")), provider("b")).snapshot

    assert first(ask(replace(view, snapshot=withheld))) == "a"  # a new key
    assert first(ask(replace(view, snapshot=withheld, has_secrets=False))) == "b"
    assert first(ask(view)) == "b"


def test_another_configuration_s_limits_are_tried_on_a_copy() -> None:
    """With what has been used, and without the limits in force noticing."""
    budgeting, limits = Budgeting(), {}
    for rpm in (5, 1):
        key = Key("k", "s", "", limits=Allowance(requests=rpm))
        limits[rpm] = view_of(provider("a", key)).snapshot
    budgeting.follow(limits[5])
    assert first_with_room(budgeting.limits, [(("a", "k"), "m")], 100, 100.0)[0] == 0

    tighter = budgeting.looked_at(limits[1])
    budget = tighter.looked_at(("a", "k"), "m")
    assert budget is not None
    assert budget.room_in_s(100, 100.0) > 0
    (use,) = budgeting.limits.uses(100.0)
    assert (use.limits.requests, use.used.requests) == (5, 1)
    assert budgeting.looked_at(limits[5]) is budgeting.limits


@pytest.mark.parametrize(
    "of",
    [
        replace(ASKED, session="s-1", headers=(("x-claude-code-agent-id", "a1"),)),
        replace(ASKED, headers=(("x-claude-code-session-id", "s-1"), ("x-claude-code-agent-id", "a1"))),
    ],
)
def test_a_session_goes_where_it_lives(of: Hypothetical) -> None:
    view = view_of(provider("a"), provider("b"))
    view.pins.put(key_of(b"salt", "s-1", "a1", "claude-x"), "b", "b-key", 100.0)

    said = ask(view, of)
    assert first(said) == "b"
    assert said.decision is not None
    assert said.decision.pin is PinUse.KEPT
    assert first(ask(view, replace(ASKED, session="s-1"))) == "a"
    assert first(ask(view, replace(ASKED, session="s-1", subagent=True))) == "a"  # which subagent is not said


def test_a_request_that_is_none_gets_what_it_deserves() -> None:
    view = view_of(provider("a"))

    assert ask(view, Hypothetical("")).status == 400
    assert ask(view, replace(ASKED, input_tokens=1 << 40)).status == 413
    assert ask(view, replace(ASKED, headers=(("a b", "c"),))).status == 400


def test_a_candidate_may_come_without_its_secrets() -> None:
    message = snapshot_message(0, secret="")
    message.providers[0].keys.add(label="off", weight=1, state=snapshot_pb2.KEY_STATE_DISABLED)
    signed = snapshot_pb2.Provider()
    signed.CopyFrom(message.providers[0])
    signed.name, signed.auth_style = "signed", snapshot_pb2.AUTH_STYLE_SIGV4
    signed.aws_signing.region, signed.aws_signing.service = "eu-west-1", "bedrock"
    message.providers.append(signed)
    known = candidate(message)
    assert [key.label for key in known.providers["p0"].keys] == ["k", "off"]

    message.routes[0].candidates[0].provider = "nobody"
    question = understood(snapshot_pb2.RouteQuestion(id=3, candidate=message))
    assert question.candidate is None
    assert "there is no provider nobody" in question.refusal
    assert Limits().looked_at(("a", "b"), "m") is None
