"""Runs as text: tables and curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulate.bars import Bar
from simulate.checks import INVARIANTS
from simulate.plans import Plan, Policy
from simulate.world import Sample, World

_LEVELS = " ▁▂▃▄▅▆▇█"
WIDTH = 30


def sparkline(values: Sequence[float], top: float = 0.0) -> str:
    """A curve of one line; `top` is what its full height stands for (0: the largest value)."""
    full = top or max(values, default=0.0) or 1.0
    return "".join(_LEVELS[min(8, max(int(value > 0), round(8 * value / full)))] for value in values)


def narrowed(samples: Sequence[Sample], name: str, over: str = "") -> list[float]:
    """A curve of WIDTH points: a figure, or one as a share of another."""
    size = max(1, len(samples) // WIDTH)
    points = []
    for at in range(0, len(samples), size):
        some = samples[at : at + size]
        value = sum(getattr(one, name) for one in some)
        below = sum(getattr(one, over) for one in some) if over else len(some)
        points.append(value / below if below else 0.0)
    return points


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first is aligned to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def figures(world: World) -> dict[str, Any]:
    """What a run came to."""
    seen, checks = world.clients.seen, world.checks
    turns = seen.served + seen.given_up
    return {
        "seed": world.plan.seed,
        "policy": world.plan.policy,
        "turns": seen.turns,
        "requests": seen.requests,
        "served_share": seen.served / turns if turns else 1.0,
        "given_up": seen.given_up,
        "endings": dict(sorted(seen.endings.items())),
        "mean_wait_s": seen.waited_s / max(1, seen.served),
        "provider_429_share": world.limited() / max(1, world.arrived()),
        "over_limit_share": world.over_limit() / max(1, world.arrived()),
        "cache_read_share": seen.cache_read / max(1, seen.direct_read),
        "cold_turn_share": seen.cold_turns / max(1, seen.follow_ups),
        "usd": world.usd,
        "usd_per_1000_turns": 1000 * world.usd / max(1, seen.served),
        "extra_attempts_share": world.extra_attempts / max(1, world.attempts),
        "circuits_opened": world.openings,
        "slowest_passing_ms": max(world.passing_s, default=0.0) * 1000,
        "messages": {"sent": world.network.sent, "lost": world.network.lost, "late": world.network.late},
        "provider_429": {name: world.limited(name) / max(1, world.arrived(name)) for name in world.upstreams},
        "invariants": {name: {"checked": checks.checked[name], "broken": checks.broken[name]} for name in INVARIANTS},
        "known_limits": {name: n for name, n in sorted(checks.broken.items()) if name not in INVARIANTS},
        "broken": checks.told,
        "curves": {
            "requests": [one.requests for one in world.samples],
            "served": [one.served for one in world.samples],
            "provider_429": [one.limited for one in world.samples],
            "attempts": [one.attempts for one in world.samples],
            "lease_error": [round(one.lease_error, 4) for one in world.samples],
            "open_circuits": [one.open_circuits for one in world.samples],
            "usd": [round(one.usd, 4) for one in world.samples],
        },
    }


_ROWS: tuple[tuple[str, str, str, int], ...] = (  # title, figure, format, which way is better
    ("turns served", "served_share", "{:.2%}", 1),
    ("mean wait for it", "mean_wait_s", "{:.2f} s", -1),
    ("429 by providers", "provider_429_share", "{:.3%}", -1),
    ("… of them, known limits exceeded", "over_limit_share", "{:.3%}", -1),
    ("cached tokens read, of direct", "cache_read_share", "{:.2%}", 1),
    ("follow-up turns that were cold", "cold_turn_share", "{:.2%}", -1),
    ("USD per 1,000 turns", "usd_per_1000_turns", "{:.2f}", -1),
    ("extra attempts", "extra_attempts_share", "{:.2%}", -1),
    ("circuits opened", "circuits_opened", "{:.0f}", 0),
    ("failure → passed by, slowest node", "slowest_passing_ms", "{:.0f} ms", 0),
)


def comparison(found: dict[Policy, dict[str, Any]]) -> str:
    """The policies side by side, and which is better by how much."""
    rows = [["", *found]]
    for title, name, form, _ in _ROWS:
        rows.append([title, *(form.format(one[name]) for one in found.values())])
    lines = [table(rows), ""]
    for title, name, form, way in _ROWS:
        if way and len(found) > 1:
            ranked = sorted(found, key=lambda policy: -way * found[policy][name])
            best, worst = found[ranked[0]][name], found[ranked[-1]][name]
            if form.format(best) != form.format(worst):
                by = f", {abs(worst - best) / worst:.0%} {'less' if way < 0 else 'more'}" if worst else ""
                lines.append(
                    f"{title}: {ranked[0]} is best ({form.format(best)} against {form.format(worst)} of {ranked[-1]}{by})"
                )
    return "\n".join(lines)


def curves(world: World) -> str:
    """What happened over time."""
    samples = world.samples
    lines = [
        ("requests", narrowed(samples, "requests"), 0.0, ""),
        ("served turns / requests", narrowed(samples, "served", "requests"), 1.0, ""),
        ("429 by providers / attempts", narrowed(samples, "limited", "attempts"), 0.0, "%"),
        ("cached tokens / direct", narrowed(samples, "cache_read", "direct_read"), 1.0, ""),
        ("USD", narrowed(samples, "usd"), 0.0, ""),
        ("budgets not where demand is", narrowed(samples, "lease_error"), 0.0, "%"),
        ("open circuits", narrowed(samples, "open_circuits"), 0.0, ""),
    ]
    rows = []
    for title, values, top, unit in lines:
        most = max(values, default=0.0)
        rows.append((title, f"▕{sparkline(values, top)}▏", f"≤ {most:.1%}" if unit == "%" else f"≤ {most:,.2f}"))
    width = max(len(title) for title, _, _ in rows)
    return "\n".join(f"  {title.ljust(width)}  {curve} {told}" for title, curve, told in rows)


def invariants(found: dict[str, Any]) -> str:
    """Which held, and how often they were looked at."""
    lines = []
    for name, one in found["invariants"].items():
        lines.append(
            f"  {'holds ' if not one['broken'] else 'BROKEN'} {name:20} {one['checked']:>10,} checked, {one['broken']} broken"
        )
    lines += [f"  known  {name}: {n:,}" for name, n in found["known_limits"].items()]
    lines += [f"    {what}" for what in found["broken"]]
    return "\n".join(lines)


def described(plan: Plan) -> str:
    """What is simulated, in a line or two."""
    scopes = sum(len(one.scopes) for one in plan.providers)
    sessions = sum(one.sessions for one in plan.crowds)
    restarts = sum(one.who == "control" for one in plan.crashes)
    messages = plan.messages
    return (
        f"seed {plan.seed}: {plan.nodes:,} nodes, {len(plan.providers)} providers with {scopes} scopes, {sessions:,} sessions, "
        f"{plan.until_s / 60:.0f} minutes; {len(plan.spells)} troubles of providers, {restarts} crashes of the control plane, "
        f"{len(plan.crashes) - restarts} of nodes; "
        f"messages {messages.delay_s * 1000:g} ms, {messages.lost:.1%} lost, {messages.late:.0%} late"
    )


def bar_lines(found: Sequence[Bar]) -> str:
    """The bars, one a line."""
    rows = [
        ["bar", "found", "wanted", ""],
        *([one.name, one.found, one.wanted, "holds" if one.holds else "MISSED"] for one in found),
    ]
    return table(rows)
