"""The overview: figures with their last hour, and what wants attention.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ccr_rpc.v1 import providers_pb2, stats_pb2

from ccr_tui.core import figures, words
from ccr_tui.core.configs import problem_text
from ccr_tui.core.table import Cell, Line, dim, plain
from ccr_tui.core.world import World, seconds

_LABEL = 12
_TEXT = 48
_NOBODY = stats_pb2.Figures()


def lines(world: World, width: int) -> list[Line]:
    """The figures; sparklines take what is left of the width."""
    total = world.stats.total if world.stats else _NOBODY
    of_failures = " failures" if width > 96 else ""
    room = max(0, min(60, width - _LABEL - _TEXT - 1 - len(of_failures)))
    return [
        _line("requests", _requests(total), world, room, lambda p: p.requests / _span(p)),
        _line(
            "success",
            _success(world, total),
            world,
            room,
            lambda p: p.failed / _span(p),
            " failures" if width > 96 else "",
        ),
        _line("first byte", plain(words.percentiles(total.first_byte)), world, room, lambda p: p.first_byte.p50_us),
        _line("whole", plain(words.percentiles(total.total)), world, room, lambda p: p.total.p50_us),
        _line("relay adds", plain(words.percentiles(total.overhead)), world, room, lambda p: p.overhead.p99_us),
        _line("tokens", _tokens(total), world, room, lambda p: words.tokens(p.tokens) / _span(p)),
        _line("cost today", _cost(total), world, room, lambda p: p.cost_micro_usd / _span(p)),
        (dim("relay".ljust(_LABEL)), *_fleet(world)),
        (dim("config".ljust(_LABEL)), *_config(world)),
    ]


def _line(
    label: str,
    cell: Cell,
    world: World,
    room: int,
    value: Callable[[stats_pb2.SeriesPoint], float],
    of: str = "",
) -> Line:
    text = cell[0]
    drawn = figures.sparkline([value(point) for point in world.series], room) if world.series and room >= 8 else ""
    if not drawn:
        return (dim(label.ljust(_LABEL)), cell)
    return (dim(label.ljust(_LABEL)), (text.ljust(_TEXT), cell[1]), (drawn, "info"), dim(of))


def _span(point: stats_pb2.SeriesPoint) -> float:
    return point.span.seconds + point.span.nanos / 1e9 or 1.0


def _requests(total: stats_pb2.Figures) -> Cell:
    said = f"{figures.rate(total.requests_per_s)}/s  {figures.count(total.open_requests)} open"
    return (f"{said}  {figures.count(total.requests)} ever", "strong")


def _success(world: World, total: stats_pb2.Figures) -> Cell:
    """Of the last hour, where that is known."""
    if world.series:
        asked, failed, since = sum(p.requests for p in world.series), sum(p.failed for p in world.series), "last hour"
        moved = sum(p.failed_attempts for p in world.series)
        more = f", {figures.count(moved)} attempts moved on" if moved else ""
    else:
        asked, failed, since, more = total.requests, total.failed, "ever", ""
    text = f"{figures.share(asked - failed, asked)} {since}{more}"
    return (text, "plain" if not asked or failed < asked / 100 else "warn" if failed < asked / 10 else "bad")


def _tokens(total: stats_pb2.Figures) -> Cell:
    used = total.tokens
    return plain(
        f"{figures.count(words.prompt_tokens(used))} in  {figures.count(used.output)} out  "
        f"{words.cache_share(used)} from caches"
    )


def _cost(total: stats_pb2.Figures) -> Cell:
    return (
        f"{figures.money(total.cost_today_micro_usd)}  saved by caches {figures.money(total.saved_today_micro_usd)}",
        "strong",
    )


def _fleet(world: World) -> Line:
    if world.nodes is None:
        return (dim(figures.NOTHING),)
    connected = [node for node in world.nodes if node.connected]
    if not connected:
        return (("✗ no worker is connected", "bad"),)
    behind = sum(node.served_version != world.newest_version for node in connected)
    many = f"{len(connected)} worker{'s' if len(connected) != 1 else ''}"
    if behind:
        return (plain(f"{many}, "), (f"{behind} not on snapshot {world.newest_version}", "warn"))
    return (plain(f"{many} on snapshot {world.newest_version}"),)


def _config(world: World) -> Line:
    if world.config is None:
        return (dim(figures.NOTHING),)
    said = f"{world.config.source}, revision {world.config.revision}"
    many = world.config.overlay_entries
    return (plain(said), ("", "plain") if not many else (f", {many} changed at run time", "info"))


def attention(world: World, now_s: float) -> list[Line]:
    """What is not as it should be, the worst first; empty if all is well."""
    found = [*_of_config(world), *_of_nodes(world)]
    for one in world.providers or ():
        if one.enabled:
            found += _of_provider(one, now_s)
    for budget in world.scopes or ():
        if budget.HasField("resting_until") and seconds(budget.resting_until) > now_s:
            rest = figures.span(seconds(budget.resting_until) - now_s)
            found.append(("warn", f"{budget.provider}/{budget.scope} was told to rest for {rest}"))
    bad: list[Line] = [(("✗ ", "bad"), plain(text)) for tone, text in found if tone == "bad"]
    return bad + [(("! ", "warn"), plain(text)) for tone, text in found if tone == "warn"]


Finding = tuple[Literal["bad", "warn"], str]


def _of_config(world: World) -> Iterator[Finding]:
    if world.config is None:
        return
    if world.config.HasField("refusal"):
        problems = world.config.refusal.problems
        yield "bad", f"the changed configuration was refused: {problem_text(problems[0]) if problems else ''}"
    if world.config.restart_needed:
        yield "warn", f"takes effect with the next start: {', '.join(world.config.restart_needed)}"
    for one in world.config.warnings:
        yield "warn", f"configuration: {one.message}"


def _of_nodes(world: World) -> Iterator[Finding]:
    if world.nodes is not None and not any(node.connected for node in world.nodes):
        yield "bad", "no worker is connected to the control plane"
    for node in world.nodes or ():
        if node.connected and node.rejected_version:
            yield "bad", f"{node.node_id} rejects snapshot {node.rejected_version}: {node.rejection_reason}"


def _of_provider(one: providers_pb2.ProviderStatus, now_s: float) -> Iterator[Finding]:
    circuit = words.named(words.CIRCUITS, one.circuit)
    why = f": {one.last_failure_reason}" if one.last_failure_reason else ""
    if circuit[1] != "good":
        since = words.ago(one.circuit_since, now_s)
        yield "bad", f"{one.name} is passed by for {since}, its circuit is {circuit[0][2:]}{why}"
    for scope in one.scopes:
        if words.named(words.CIRCUITS, scope.circuit)[1] != "good":
            yield "bad", f"{one.name}/{scope.scope} is passed by: {scope.last_failure_reason}"
    for held in one.credentials:
        if held.problem or not held.usable:
            yield "warn" if held.usable else "bad", f"{one.name}: credential of {held.key_label}: {held.problem}"
    if words.provider_state(one)[1] == "warn":
        yield "warn", f"{one.name} is draining"
