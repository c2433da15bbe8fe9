"""What a person can change from here: the call, the question before it, and the words after it.

Pure. Which role a call takes is the control plane's to decide; what is known of it here only spares a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccr_rpc.v1 import (
    access_pb2,
    config_pb2,
    fleet_pb2,
    keys_pb2,
    providers_pb2,
    snapshot_pb2,
)

from ccr_tui.core import configs, words

OPERATOR = access_pb2.ROLE_OPERATOR
ADMIN = access_pb2.ROLE_ADMIN
MAX_WEIGHT = 1_000_000


@dataclass(frozen=True, slots=True)
class Act:
    """A change: `service` and `method` name the call as `ccr_client` does."""

    service: str
    method: str
    request: Any  # a message of the contract
    question: str
    role: int
    done: Callable[[Any], str]  # the answer in words


class BadNumber(Exception):
    """What was typed is no weight or priority."""


def why_not(role: int, me: access_pb2.WhoAmIResponse | None) -> str:
    """Why the caller may not do what takes this role; empty if it may, or nobody knows."""
    if me is None or not me.role or me.role >= role:
        return ""
    return (
        f"this takes the role {words.ROLES[role]}; {me.name or 'you'} is {words.ROLES.get(me.role, 'of another role')}"
    )


def provider_state(one: providers_pb2.ProviderStatus, state: providers_pb2.ProviderState.ValueType) -> Act:
    """Enable, drain or disable a provider."""
    verb, then = {
        providers_pb2.PROVIDER_STATE_ENABLED: ("Enable", "Requests go there again."),
        providers_pb2.PROVIDER_STATE_DRAINING: ("Drain", "Only sessions that live there go on there."),
        providers_pb2.PROVIDER_STATE_DISABLED: ("Disable", "No request goes there; open ones are finished."),
    }[state]
    return Act(
        "providers",
        "SetProviderState",
        providers_pb2.SetProviderStateRequest(provider=one.name, state=state, etag=one.etag),
        f"{verb} {one.name}? {then}",
        OPERATOR,
        lambda answer: f"{one.name} is {words.provider_state(answer.provider)[0]} (snapshot {answer.snapshot_version})",
    )


def reset_circuit(one: providers_pb2.ProviderStatus) -> Act:
    """Close the circuits of a provider."""
    return Act(
        "providers",
        "ResetCircuit",
        providers_pb2.ResetCircuitRequest(provider=one.name),
        f"Close the circuits of {one.name} and its accounts, and forget what led to their opening?",
        OPERATOR,
        lambda answer: f"{one.name}: circuit {words.named(words.CIRCUITS, answer.provider.circuit)[0]}",
    )


def probe(one: providers_pb2.ProviderStatus) -> Act:
    """Probe a provider now."""

    def done(answer: providers_pb2.ProbeProviderResponse) -> str:
        found = answer.provider.last_probe
        alive = "alive" if found.alive else "not alive"
        return f"{one.name} is {alive}{': ' if found.problem else ''}{found.problem}"

    request = providers_pb2.ProbeProviderRequest(provider=one.name)
    return Act("providers", "ProbeProvider", request, f"Probe {one.name} now? It costs nothing.", OPERATOR, done)


def provider_number(one: providers_pb2.ProviderStatus, field: str, text: str) -> Act:
    """Another weight or priority. Raises BadNumber."""
    number = _number(field, text)
    request = providers_pb2.UpdateProviderRequest(provider=one.name, etag=one.etag)
    setattr(request, field, number)
    return Act(
        "providers",
        "UpdateProvider",
        request,
        f"Give {one.name} the {field} {number}?",
        OPERATOR,
        lambda answer: f"{one.name} has {field} {getattr(answer.provider, field)} (snapshot {answer.snapshot_version})",
    )


def key_state(key: keys_pb2.KeyStatus, state: snapshot_pb2.KeyState.ValueType) -> Act:
    """Enable, drain or disable a key."""
    verb, then = {
        snapshot_pb2.KEY_STATE_ACTIVE: ("Enable", "Every request may use it."),
        snapshot_pb2.KEY_STATE_DEPRECATED: ("Drain", "Only sessions that are on it keep it."),
        snapshot_pb2.KEY_STATE_DISABLED: ("Disable", "Nobody gets it."),
    }[state]
    name = f"{key.provider}/{key.label}"
    return Act(
        "keys",
        "UpdateKey",
        keys_pb2.UpdateKeyRequest(provider=key.provider, label=key.label, state=state, etag=key.etag),
        f"{verb} key {name}? {then}",
        OPERATOR,
        lambda answer: (
            f"{name} is {words.named(words.KEY_STATES, answer.key.state)[0]} (snapshot {answer.snapshot_version})"
        ),
    )


def key_number(key: keys_pb2.KeyStatus, field: str, text: str) -> Act:
    """Another weight or priority. Raises BadNumber."""
    number = _number(field, text)
    request = keys_pb2.UpdateKeyRequest(provider=key.provider, label=key.label, etag=key.etag)
    setattr(request, field, number)
    name = f"{key.provider}/{key.label}"
    return Act(
        "keys",
        "UpdateKey",
        request,
        f"Give key {name} the {field} {number}?",
        OPERATOR,
        lambda answer: f"{name} has {field} {getattr(answer.key, field)} (snapshot {answer.snapshot_version})",
    )


def _number(field: str, text: str) -> int:
    least = 1 if field == "weight" else 0
    given = text.strip()
    if not (given.isascii() and given.isdigit()) or len(given) > 8 or not least <= int(given) <= MAX_WEIGHT:
        raise BadNumber(f"{text or 'nothing'}: a {field} is a whole number from {least} to {MAX_WEIGHT:,}")
    return int(given)


def strategy(route: str, name: str) -> Act:
    """Another strategy for a route, or for all that do not say it themselves (empty)."""
    numbers = {text: number for number, text in words.STRATEGIES.items()}
    whose = f"route {route}" if route else "all routes that do not say it themselves"
    return Act(
        "providers",
        "SetStrategy",
        providers_pb2.SetStrategyRequest(route=route, strategy=snapshot_pb2.Strategy.ValueType(numbers[name])),
        f"Order the candidates of {whose} by {name}?",
        OPERATOR,
        lambda answer: f"{whose}: {name} (snapshot {answer.snapshot_version})",
    )


def reload() -> Act:
    """Read the configuration's file again."""

    def done(answer: config_pb2.ReloadConfigResponse) -> str:
        if answer.problems:
            return "refused: " + "; ".join(map(configs.problem_text, answer.problems))
        how = "changed" if answer.changed else "unchanged"
        return f"configuration {how} (snapshot {answer.snapshot_version})"

    request = config_pb2.ReloadConfigRequest()
    question = "Read the configuration's file again? A bad one changes nothing."
    return Act("config", "ReloadConfig", request, question, OPERATOR, done)


def rollback(number: int) -> Act:
    """Put an earlier revision in force again."""
    return Act(
        "config",
        "RollbackConfig",
        config_pb2.RollbackConfigRequest(revision=number),
        f"Put revision {number} in force again, as a new one?",
        ADMIN,
        _applied,
    )


def clear_overlay() -> Act:
    """Take back all that was changed at run time."""
    return Act(
        "config",
        "ClearOverlay",
        config_pb2.ClearOverlayRequest(),
        "Take back everything that was changed at run time, keys added included?",
        ADMIN,
        lambda answer: f"{answer.cleared} changes taken back (snapshot {answer.snapshot_version})",
    )


def drain_node(node: fleet_pb2.Node) -> Act:
    """Have a node end."""
    return Act(
        "fleet",
        "DrainNode",
        fleet_pb2.DrainNodeRequest(node_id=node.node_id),
        f"Have {node.node_id} finish its {node.status.open_requests} requests and end? Its supervisor starts another.",
        OPERATOR,
        lambda _: f"{node.node_id} was told to finish and end",
    )


def _applied(answer: config_pb2.ApplyConfigResponse) -> str:
    if answer.problems:
        return "refused: " + "; ".join(map(configs.problem_text, answer.problems))
    later = f"; with the next start: {', '.join(answer.restart_needed)}" if answer.restart_needed else ""
    return f"revision {answer.revision.number} is in force (snapshot {answer.snapshot_version}){later}"
