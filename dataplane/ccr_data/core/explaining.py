"""Where would a request go that nobody sent?

Pure. The request is made up, so that it shows what was said of it, and then goes the way of real ones: matching, pins, plan and
budgets are theirs. All of the node's state is only looked at: turns, times, pins and budgets are the same afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from ccr_data.core import answers, planner
from ccr_data.core.admit import SUBSCRIPTION
from ccr_data.core.budget import Budget
from ccr_data.core.client_limits import ClientLimits
from ccr_data.core.errors import BadRequest, BodyTooLarge, RequestError, Unauthorized
from ccr_data.core.http1 import LineMemory
from ccr_data.core.limits import Limits
from ccr_data.core.matching import BYTES_PER_TOKEN, Asked
from ccr_data.core.pins import Pin, Pins, key_of
from ccr_data.core.records import Decision
from ccr_data.core.routing import Needs, NodeState, Roll, plan
from ccr_data.core.snapshot import AuthPolicy, KeyState, Route, RoutedModel, Snapshot, Target

_AGENT, _SESSION = b"x-claude-code-agent-id", b"x-claude-code-session-id"
_MAX_NAME = 256  # as of what real requests name


@dataclass(frozen=True, slots=True)
class Hypothetical:
    """A request as far as its route depends on it."""

    model: str
    count_tokens: bool = False
    streams: bool = False
    client: str = ""  # "subscription" for a client's own token
    subagent: bool = False
    thinking: bool = False
    input_tokens: int = 0  # estimated
    images: bool = False
    documents: bool = False
    tools: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    session: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What decides about a request, to be looked at only."""

    snapshot: Snapshot
    node: NodeState
    pins: Pins
    limits: Limits  # as the snapshot has them
    clients: ClientLimits
    salt: bytes  # of the names of sessions
    now_s: float
    has_secrets: bool = True  # whether the snapshot's keys are complete


@dataclass(frozen=True, slots=True)
class Explained:
    """Where it would go, or what its client would get instead."""

    route: str = ""  # empty: it does not get as far as that
    decision: Decision | None = None
    status: int = 0  # HTTP; 0: it would be tried
    problem: str = ""  # why; without a status what it would have to wait for


class _Shown(msgspec.Struct):
    """What a made-up request shows of itself."""

    asked: Asked
    needs: Needs
    session: str
    agent: str


def explain(of: Hypothetical, view: View, roll: Roll) -> Explained:
    """Decide as for a real request. The same arguments and rolls give the same answer."""
    try:
        shown = _shown(of, view.snapshot)
    except RequestError as error:
        return Explained(status=answers.status_of(error)[0], problem=str(error))
    routed = view.snapshot.routed(of.model, shown.asked)
    name, strategy = routed.route.name, routed.route.strategy
    passed_over: list[tuple[str, str]] = []
    try:
        node, pin = view.node.looked_at(has_secrets=view.has_secrets), _pin(of, view, shown, routed.route)
        planned = plan(routed, of.model, shown.needs, pin, node, view.now_s, roll, passed_over)
        _check_client(of, view, len(shown.asked.body))
    except RequestError as error:
        passed_over += _left_out(routed, view.snapshot)
        return Explained(name, Decision(strategy, (), passed_over), answers.status_of(error)[0], str(error))
    targets = planned.targets
    full: list[tuple[Target, Budget]] = []
    if not of.count_tokens and targets[0].key is not None:
        targets, full = _full_last(targets, of.model, len(shown.asked.body), view)
    passed_over += [(f"{target.provider.name}/{target.label}", "no room") for target, _ in full]
    passed_over += _left_out(routed, view.snapshot)
    decision = Decision(strategy, tuple(targets), passed_over, planned.pin, planned.scored)
    if len(full) < len(targets):
        return Explained(name, decision)
    budgets, queue = [budget for _, budget in full], view.snapshot.relay.queue
    told = planner.no_room(budgets, len(shown.asked.body), view.now_s, 0.0)
    if queue is not None and min(budget.sure_wait_s(view.now_s) for budget in budgets) <= queue.max_wait_s:
        return Explained(
            name, decision, problem=f"{told.message}; until then it would wait, for {queue.max_wait_s:g} s at most"
        )
    return Explained(name, decision, 429, told.message)


def _shown(of: Hypothetical, snapshot: Snapshot) -> _Shown:
    """The request as a node sees it. Raises RequestError if it would not get as far as its route."""
    has_own_token = _has_own_token(of.client, snapshot.auth)
    if not of.model:
        raise BadRequest("model: Field required")
    if of.input_tokens * BYTES_PER_TOKEN > snapshot.relay.max_body_bytes:
        raise BodyTooLarge(snapshot.relay.max_body_bytes)
    given = [f"{name}: {value}".encode("latin-1", "replace") for name, value in of.headers]
    lines, special = LineMemory(of_request=True).sort([b"", *given])
    agent = special.get(_AGENT, b"")[:_MAX_NAME].decode("latin-1")
    session = of.session[:_MAX_NAME] or special.get(_SESSION, b"")[:_MAX_NAME].decode("latin-1")
    asked = Asked(of.client, of.subagent or bool(agent), of.count_tokens, lines, made_up(of))
    needs = Needs(of.count_tokens, of.documents, has_own_token, of.streams and not of.count_tokens)
    return _Shown(asked, needs, session, agent)


def _has_own_token(client: str, auth: AuthPolicy) -> bool:
    """Whether the client sends a token of its own. Raises Unauthorized if nobody is called so."""
    if client == SUBSCRIPTION:
        if not auth.allow_subscription:
            raise Unauthorized("this relay takes no subscription tokens (server.auth.allow_subscription)")
        return True
    if client and client not in auth.clients.values():
        raise Unauthorized(f"no client is called {client} (server.auth.keys)")
    return False


def _check_client(of: Hypothetical, view: View, size_bytes: int) -> None:
    """Raise ClientLimited if the client may not ask now."""
    rules = view.snapshot.auth.rules.get(of.client)
    if rules is not None and not of.count_tokens:
        refusal = view.clients.refusal(of.client, rules, size_bytes, view.now_s, view.node.unix_s)
        if refusal is not None:
            raise refusal


def made_up(of: Hypothetical) -> bytes:
    """A body that shows what was said of the request, as long as its tokens are estimated by."""
    bare = _body(of, "")
    return _body(of, "x" * max(0, math.ceil(of.input_tokens * BYTES_PER_TOKEN) - len(bare)))


def _body(of: Hypothetical, text: str) -> bytes:
    content: list[dict[str, object]] = [{"type": "text", "text": text}]
    content += [{"type": kind} for kind, has in (("image", of.images), ("document", of.documents)) if has]
    body: dict[str, object] = {"model": of.model, "messages": [{"role": "user", "content": content}]}
    if of.tools:
        body["tools"] = [{"name": "tool"}]
    if of.thinking:
        body["thinking"] = {"type": "adaptive"}
    return msgspec.json.encode(body)


def _pin(of: Hypothetical, view: View, shown: _Shown, route: Route) -> Pin | None:
    """The session's pin. A subagent has one of its own, by the id that Claude Code gives it."""
    if not shown.session or not view.snapshot.relay.has_session_affinity or (of.subagent and not shown.agent):
        return None
    key = key_of(view.salt, shown.session, shown.agent, of.model[:_MAX_NAME], route.aside)
    return view.pins.of(key, view.now_s)


def _full_last(
    targets: list[Target], model: str, size_bytes: int, view: View
) -> tuple[list[Target], list[tuple[Target, Budget]]]:
    """The targets in the order in which they are tried, and those whose account has no room now, which come last."""
    found = [(target, view.limits.looked_at(target.scope, target.model or model)) for target in targets]
    full = [(one, budget) for one, budget in found if budget and budget.room_in_s(size_bytes, view.now_s) > 0]
    last = [target for target, _ in full]
    return [target for target in targets if target not in last] + last, full


def _left_out(routed: RoutedModel, snapshot: Snapshot) -> list[tuple[str, str]]:
    """What never became a choice. Real requests are not told of it: it stays the same from one to the next."""
    chosen = {choice.provider.name for choice in routed.choices}
    found = []
    for candidate in routed.route.candidates:
        provider = snapshot.providers[candidate.provider]
        if not provider.is_enabled:
            found.append((provider.name, "disabled"))
        elif provider.name not in chosen:
            found.append((provider.name, "does not serve the model"))
        else:
            found += [
                (f"{provider.name}/{key.label}", "key disabled")
                for key in provider.keys
                if key.state is KeyState.DISABLED
            ]
    return list(dict.fromkeys(found))
