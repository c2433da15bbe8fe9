"""Checks of what the control plane says: its configuration, workers, providers, keys, and its clock.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ccr_cli import overview
from ccr_cli.doctor.findings import Finding, fail, ok, warn

if TYPE_CHECKING:
    from ccr_rpc.v1 import keys_pb2

    from ccr_cli.overview import ConfigState, NodeState, ProviderHealth

SKEW_WARN_S, SKEW_FAIL_S = 30.0, 240.0


def config(state: ConfigState, overlay_entries: int) -> Iterator[Finding]:
    """Is what the file says in force?"""
    for problem in state.refusal_problems:
        yield fail("config", f"the changed file was refused: {problem}", "mend it; the one before stays in force")
    if state.restart_needed:
        yield warn("config", f"changed, but not in force: {', '.join(state.restart_needed)}", "restart `ccr serve`")
    for warning in state.warnings:
        yield warn("config", warning, "see docs/reference/config.md")
    if not (state.refusal_problems or state.restart_needed or state.warnings):
        more = f", and {overlay_entries} changes at run time" if overlay_entries else ""
        yield ok("config", f"{state.source} is in force{more}")


def nodes(found: Sequence[NodeState], newest_version: int, own_version: str) -> Iterator[Finding]:
    """Is there a worker, and does each serve the newest snapshot?"""
    connected = [node for node in found if node.is_connected]
    if not connected:
        yield fail("workers", "none is connected to the control plane", "see the log of `ccr serve`; `ccr nodes list`")
    for node in connected:
        if node.rejected_version:
            yield fail(
                "workers",
                f"{node.node_id} rejects snapshot {node.rejected_version}: {node.rejection_reason}",
                "mend the configuration, or run the same version everywhere",
            )
        elif overview.is_behind(node, newest_version):
            yield fail(
                "workers",
                f"{node.node_id} serves snapshot {node.served_version}, the newest is {newest_version}",
                f"`ccr nodes drain {node.node_id}` replaces it",
            )
        elif node.software_version != own_version:
            yield warn(
                "workers",
                f"{node.node_id} runs version {node.software_version}, this is {own_version}",
                "restart the relay",
            )
        if node.spooled_bytes:
            yield warn(
                "workers",
                f"{node.node_id} keeps {overview.size_words(node.spooled_bytes)} of usage on disk that it could not report",
                "see its log; it is delivered when the control plane takes it",
            )
    if connected and all(node.served_version == newest_version and not node.rejected_version for node in connected):
        yield ok("workers", f"{len(connected)} connected, all on snapshot {newest_version}")


def provider(one: ProviderHealth, state: str) -> Iterator[Finding]:
    """Can requests go there? With what a fresh probe found."""
    check, name = f"provider {one.provider}", one.provider
    if state in ("disabled", "draining") or not one.is_enabled:
        yield warn(check, f"is {state if state != 'enabled' else 'disabled'}", f"`ccr providers enable {name}`")
        return
    broken = False
    for held in one.credentials:
        if not held.is_usable or held.problem:
            broken = True
            say = fail if not held.is_usable else warn
            yield say(
                check, f"the credential of {held.key} {overview.credential_words(held)}", "log in again at the cloud"
            )
    if one.circuit != "closed":
        broken = True
        why = f" ({one.last_failure_reason})" if one.last_failure_reason else ""
        yield fail(
            check, f"passed by: its circuit is {one.circuit}{why}", f"`ccr providers reset {name}` once it is well"
        )
    for scope in overview.passed_by(one):
        broken = True
        why = f" ({scope.last_failure_reason})" if scope.last_failure_reason else ""
        keys = ", ".join(scope.key_labels)
        yield fail(
            check,
            f"the account {scope.scope} is passed by (keys: {keys}){why}",
            "see to the account, or rotate its keys",
        )
    if one.probe_is_alive is False:
        yield fail(
            check, f"does not answer: {one.probe_problem or 'no reason given'}", "is its base_url right, is it up?"
        )
    elif one.probe_problem:
        yield fail(
            check, f"answers, but {one.probe_problem}", f"`ccr keys rotate {name}/LABEL` with a key that it takes"
        )
    elif not broken:
        yield ok(check, f"probe: {overview.probe_words(one)}")


def keys(found: Sequence[keys_pb2.KeyStatus]) -> Iterator[Finding]:
    """Does any key have a problem, or has a provider none that may be used?"""
    from ccr_cli.plain import enum_word

    by_provider: dict[str, list[str]] = {}
    for one in found:
        by_provider.setdefault(one.provider, []).append(enum_word(one, "state") or "active")
    for name, states in by_provider.items():
        if all(state == "disabled" for state in states):
            yield fail("keys", f"every key of {name} is disabled", f"`ccr keys enable {name}/LABEL`")
    for one in found:
        if one.problem:
            key = f"{one.provider}/{one.label}"
            yield fail("keys", f"{key}: {one.problem}", f"`ccr keys rotate {key}` or `ccr keys disable {key}`")


def clock(check: str, whose: str, ahead_s: float) -> Iterator[Finding]:
    """Do clocks agree? `ahead_s`: how far the other one is ahead of ours."""
    words = f"{whose} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    fix = "set the clocks (timedatectl set-ntp true)"
    if abs(ahead_s) > SKEW_FAIL_S:
        yield fail(check, f"{words}: signed requests would be refused", fix)
    elif abs(ahead_s) > SKEW_WARN_S:
        yield warn(check, words, fix)
    else:
        yield ok(check, f"{whose} agrees with this machine")
