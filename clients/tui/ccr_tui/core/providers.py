"""Providers: the table and all about one of them.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccr_rpc.v1 import providers_pb2, stats_pb2

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Line, Listing, dim, plain
from ccr_tui.core.world import World, seconds

COLUMNS = (
    Column("provider", 10, 0, grows=3),
    Column("circuit", 11, 0),
    Column("state", 11, 1),
    Column("req/s", 6, 1, is_number=True),
    Column("in flight", 9, 1, is_number=True),
    Column("p50", 6, 2, is_number=True),
    Column("p99", 6, 1, is_number=True),
    Column("failed", 7, 3, is_number=True),
    Column("weight", 6, 2, is_number=True),
    Column("prio", 4, 5, is_number=True),
    Column("requests", 9, 5, is_number=True),
    Column("tokens", 7, 6, is_number=True),
    Column("cached", 6, 6, is_number=True),
    Column("cost", 9, 6, is_number=True),
    Column("type", 10, 7),
    Column("probe", 14, 8),
    Column("last failure", 20, 8, grows=2),
)


def listing(world: World, now_s: float, match: str = "") -> Listing:
    """All providers, or those whose name, type or state holds `match`, in the order of the configuration."""
    shown = [one for one in world.providers or () if not match or match in _haystack(one)]
    nobody = stats_pb2.ProviderFigures()
    return Listing(
        COLUMNS,
        [one.name for one in shown],
        lambda row: _cells(shown[row], world.figures.get(shown[row].name, nobody), now_s),
        "no provider fits" if match else "no providers",
    )


def _haystack(one: providers_pb2.ProviderStatus) -> str:
    said = f"{one.name} {words.provider_type(one.type)} {words.named(words.CIRCUITS, one.circuit)[0]}"
    return f"{said} {words.provider_state(one)[0]}"


def _cells(one: providers_pb2.ProviderStatus, told: stats_pb2.ProviderFigures, now_s: float) -> Sequence[Cell]:
    line = told.figures
    state = words.provider_state(one)
    is_changed = "weight" in one.changed
    return (
        (one.name, "strong" if one.enabled else "dim"),
        circuit(one),
        (f"{state[0]}*" if "state" in one.changed else state[0], state[1]),
        plain(figures.rate(line.requests_per_s)),
        (figures.count(line.open_requests), "plain" if line.open_requests else "dim"),
        plain(figures.micros(line.first_byte.p50_us)),
        plain(figures.micros(line.first_byte.p99_us)),
        (figures.count(line.failed + told.failed_attempts), "warn" if line.failed + told.failed_attempts else "dim"),
        plain((f"{one.weight}*" if is_changed else str(one.weight)) if one.weight else figures.NOTHING),
        plain(f"{one.priority}*" if "priority" in one.changed else str(one.priority)),
        plain(figures.count(line.requests)),
        plain(figures.count(words.tokens(line.tokens))),
        plain(words.cache_share(line.tokens)),
        plain(figures.money(line.cost_micro_usd)),
        dim(words.provider_type(one.type)),
        _probe(one, now_s),
        dim(_failure(one, now_s)),
    )


def circuit(one: providers_pb2.ProviderStatus) -> Cell:
    """Its health light: the provider's circuit, and whether an account of it is passed by."""
    own = words.named(words.CIRCUITS, one.circuit)
    passed = sum(words.named(words.CIRCUITS, scope.circuit)[1] != "good" for scope in one.scopes)
    if own[1] == "good" and passed:
        return (f"◐ {passed}/{len(one.scopes)} acct", "warn")
    return own


def _probe(one: providers_pb2.ProviderStatus, now_s: float) -> Cell:
    if not one.HasField("last_probe"):
        return dim(figures.NOTHING)
    probe = one.last_probe
    since = words.ago(probe.at, now_s)
    if not probe.alive:
        return (f"dead {since} ago", "bad")
    return (f"alive {since} ago", "warn" if probe.problem else "plain")


def _failure(one: providers_pb2.ProviderStatus, now_s: float) -> str:
    if not one.last_failure_reason:
        return figures.NOTHING
    return f"{one.last_failure_reason} {words.ago(one.last_failure_at, now_s)} ago"


def detail(one: providers_pb2.ProviderStatus, told: stats_pb2.ProviderFigures | None, now_s: float) -> list[Line]:
    """Everything about a provider."""
    state, changed = words.provider_state(one), ", ".join(one.changed)
    said: list[Line] = [
        (plain(f"{words.provider_type(one.type)} at {one.base_url or figures.NOTHING}"),),
        (dim("state     "), state, dim(f"   weight {one.weight}   priority {one.priority}")),
        (
            dim("circuit   "),
            words.named(words.CIRCUITS, one.circuit),
            dim(f"   for {words.ago(one.circuit_since, now_s)}"),
        ),
    ]
    if changed:
        said.append((dim("changed   "), (f"{changed} (at run time, on top of the configuration)", "info")))
    if one.HasField("open_until"):
        said.append((dim("probed in "), plain(figures.span(seconds(one.open_until) - now_s))))
    if one.last_failure_reason:
        said.append((dim("failure   "), ("" + _failure(one, now_s), "warn")))
    if one.HasField("last_probe"):
        probe = one.last_probe
        took = figures.micros(probe.latency.seconds * 1e6 + probe.latency.nanos / 1e3)
        words_of = f"   status {probe.status or figures.NOTHING}, {took}. {probe.problem}"
        said.append((dim("probe     "), _probe(one, now_s), dim(words_of)))
    if told is not None:
        said += _figures(told)
    said += _scopes(one, now_s)
    for held in one.credentials:
        tone: Cell = ("usable", "good") if held.usable else ("unusable", "bad")
        said.append((dim("credential "), plain(f"{held.key_label} "), tone, ("  " + held.problem, "warn")))
    if one.events:
        said += [(), (("What happened to its circuits", "strong"),)]
        for event in reversed(one.events):
            where = f" of {event.scope}" if event.scope else ""
            said.append(
                (
                    dim(f"{words.clock(event.at, now_s)}  "),
                    words.named(words.CIRCUITS, event.circuit),
                    plain(f"{where}  {event.reason}"),
                )
            )
    return said


def _figures(told: stats_pb2.ProviderFigures) -> list[Line]:
    line = told.figures
    return [
        (
            dim("requests  "),
            plain(f"{figures.count(line.requests)} ({figures.rate(line.requests_per_s)}/s), "),
            plain(f"{figures.count(line.failed)} failed, {figures.count(told.failed_attempts)} attempts moved on"),
        ),
        (dim("in flight "), plain(figures.count(line.open_requests))),
        (dim("1st byte  "), plain(words.percentiles(line.first_byte))),
        (dim("total     "), plain(words.percentiles(line.total))),
        (
            dim("tokens    "),
            plain(
                f"{figures.count(words.prompt_tokens(line.tokens))} in"
                f" ({words.cache_share(line.tokens)} from caches),"
                f" {figures.count(line.tokens.output)} out"
            ),
        ),
        (
            dim("cost      "),
            plain(f"{figures.money(line.cost_micro_usd)}, saved {figures.money(line.saved_micro_usd)}"),
        ),
    ]


def _scopes(one: providers_pb2.ProviderStatus, now_s: float) -> list[Line]:
    if not one.scopes:
        return []
    said: list[Line] = [(), (("Accounts", "strong"),)]
    for scope in one.scopes:
        why = f"  {scope.last_failure_reason}" if scope.last_failure_reason else ""
        since = words.ago(scope.circuit_since, now_s)
        said.append(
            (
                plain(f"{scope.scope}  "),
                words.named(words.CIRCUITS, scope.circuit),
                dim(f" for {since}  keys: {', '.join(scope.key_labels)}{why}"),
            )
        )
    return said
