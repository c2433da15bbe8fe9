"""Keys, and the accounts behind them with their budgets.

Pure. Amounts of budgets are of a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccr_rpc.v1 import keys_pb2

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Line, Listing, Stretch, Tone, dim, plain
from ccr_tui.core.world import World, seconds

KEY_COLUMNS = (
    Column("provider", 12, 0, grows=2),
    Column("key", 12, 0, grows=2),
    Column("state", 12, 0),
    Column("circuit", 11, 1),
    Column("weight", 6, 2, is_number=True),
    Column("prio", 4, 4, is_number=True),
    Column("requests", 9, 2, is_number=True),
    Column("account", 12, 3, grows=2),
    Column("from", 7, 5),
    Column("ends", 9, 6),
    Column("secret", 12, 7),
    Column("problem", 20, 4, grows=4),
)
SCOPE_COLUMNS = (
    Column("account", 15, 0, grows=2),
    Column("models", 8, 2, grows=1),
    Column("used/leased/limit", 17, 0, grows=3),
    Column("used", 5, 0, is_number=True),
    Column("per minute", 14, 1, grows=1),
    Column("full in", 9, 3, is_number=True),
    Column("resets", 9, 0),
    Column("asked", 7, 4, is_number=True),
    Column("nodes", 5, 5, is_number=True),
)


@dataclass(frozen=True, slots=True)
class Meter:
    """One limit of an account: what it counts, and how much of it is gone."""

    what: str
    used: int
    leased: int
    limit: int


def meters(budget: keys_pb2.ScopeBudget) -> list[Meter]:
    """The limits that are known, the fullest first."""
    found = [
        Meter(what, getattr(budget.used, name), getattr(budget.leased, name), getattr(budget.limits, name))
        for name, what in (
            ("requests", "requests"),
            ("input_tokens", "input"),
            ("output_tokens", "output"),
            ("tokens", "tokens"),
        )
        if getattr(budget.limits, name)
    ]
    return sorted(found, key=lambda meter: -meter.used / meter.limit)


def name_of(key: keys_pb2.KeyStatus) -> str:
    """Names a key among all."""
    return f"{key.provider}/{key.label}"


def listing(world: World, now_s: float, match: str = "") -> Listing:
    """All keys, or those whose names or states hold `match`."""
    shown = [key for key in world.keys or () if not match or match in _haystack(key)]
    return Listing(
        KEY_COLUMNS,
        [name_of(key) for key in shown],
        lambda row: _key_cells(shown[row], now_s),
        "no key fits" if match else "no keys",
    )


def _haystack(key: keys_pb2.KeyStatus) -> str:
    state = f"{words.named(words.KEY_STATES, key.state)[0]} {words.named(words.CIRCUITS, key.circuit)[0]}"
    return f"{name_of(key)} {key.scope} {state} {key.problem}"


def _key_cells(key: keys_pb2.KeyStatus, now_s: float) -> Sequence[Cell]:
    return (
        plain(key.provider),
        (key.label, "strong"),
        words.named(words.KEY_STATES, key.state),
        words.named(words.CIRCUITS, key.circuit),
        plain(str(key.weight or figures.NOTHING)),
        plain(str(key.priority)),
        plain(figures.count(key.requests)),
        dim(key.scope),
        (
            words.ORIGINS.get(key.origin, figures.NOTHING),
            "info" if key.origin != keys_pb2.KeyStatus.ORIGIN_CONFIG else "dim",
        ),
        plain(figures.span(seconds(key.expires_at) - now_s)) if key.HasField("expires_at") else dim("never"),
        dim(key.fingerprint or figures.NOTHING),
        (key.problem, "bad"),
    )


def scope_name(one: keys_pb2.ScopeBudget) -> str:
    """Names an account's budget among all."""
    return f"{one.provider}/{one.scope}/{one.model_class}"


def scope_listing(world: World, now_s: float, match: str = "") -> Listing:
    """All accounts with their fullest limit."""
    shown = [one for one in world.scopes or () if not match or match in f"{one.provider}/{one.scope} {one.model_class}"]
    return Listing(
        SCOPE_COLUMNS,
        list(map(scope_name, shown)),
        lambda row: _scope_cells(shown[row], now_s),
        "no account fits" if match else "nothing is known of accounts",
    )


def _scope_cells(one: keys_pb2.ScopeBudget, now_s: float) -> Sequence[Cell]:
    known = meters(one)
    who: tuple[Cell, ...] = (plain(f"{one.provider}/{one.scope}"), dim(one.model_class or "all"))
    if known:
        meter = known[0]
        tone = fullness(meter)
        of = f"{figures.count(meter.limit)} {meter.what}"
        middle: tuple[Cell, ...] = (
            (Stretch.made(lambda width: figures.bar(meter.used, meter.leased, meter.limit, width)), tone),
            (figures.share(meter.used, meter.limit), tone),
            plain(of),
        )
    else:
        middle = (dim("no limit known"), dim(figures.NOTHING), dim(figures.NOTHING))
    return (
        *who,
        *middle,
        (figures.span(one.exhausted_in.seconds), "warn") if one.HasField("exhausted_in") else dim(figures.NOTHING),
        _rest(one, now_s),
        plain(figures.count(one.asked)),
        plain(str(one.nodes)),
    )


def _rest(one: keys_pb2.ScopeBudget, now_s: float) -> Cell:
    """Windows slide, so that room comes back all the time; only a provider's word is a moment."""
    if one.HasField("resting_until") and seconds(one.resting_until) > now_s:
        return (f"in {figures.span(seconds(one.resting_until) - now_s)}", "bad")
    return dim("sliding")


def fullness(meter: Meter) -> Tone:
    """Green until 80 %, red from 95 % on."""
    part = meter.used / meter.limit
    return "bad" if part >= 0.95 else "warn" if part >= 0.8 else "good"


def scope_detail(one: keys_pb2.ScopeBudget, now_s: float, width: int = 40) -> list[Line]:
    """All limits of an account."""
    said: list[Line] = [(dim("provider  "), plain(one.provider)), (dim("models    "), plain(one.model_class or "all"))]
    said.append((dim("resets    "), _rest(one, now_s)))
    if one.HasField("exhausted_in"):
        said.append(
            (
                dim("full in   "),
                (figures.span(one.exhausted_in.seconds), "warn"),
                dim(" at the rate of the last half minute"),
            )
        )
    said += [
        (
            dim("asked     "),
            plain(f"{figures.count(one.asked)} requests in the last minute, {one.nodes} nodes have a part"),
        ),
        (),
    ]
    for meter in meters(one):
        said.append(
            (dim(meter.what.ljust(10)), (figures.bar(meter.used, meter.leased, meter.limit, width), fullness(meter)))
        )
        numbers = f"{figures.count(meter.used)} used, {figures.count(meter.leased)} leased, {figures.count(meter.limit)} a minute"
        said.append((dim(" " * 10), plain(numbers)))
    return said or [(dim("no limit known"),)]


def key_detail(key: keys_pb2.KeyStatus, world: World, now_s: float) -> list[Line]:
    """Everything about a key: never its secret."""
    said: list[Line] = [
        (
            dim("state     "),
            words.named(words.KEY_STATES, key.state),
            dim(f"   weight {key.weight}   priority {key.priority}"),
        ),
        (dim("circuit   "), words.named(words.CIRCUITS, key.circuit)),
        (dim("account   "), plain(key.scope)),
        (
            dim("secret    "),
            plain(key.fingerprint or "resolved at run time"),
            dim(" (of its SHA-256)" if key.fingerprint else ""),
        ),
        (dim("from      "), plain(words.ORIGINS.get(key.origin, figures.NOTHING))),
        (dim("requests  "), plain(figures.count(key.requests))),
    ]
    if key.HasField("expires_at"):
        said.append((dim("ends in   "), plain(figures.span(seconds(key.expires_at) - now_s))))
    if key.problem:
        said.append((dim("problem   "), (key.problem, "bad")))
    for one in world.scopes or ():
        if (one.provider, one.scope) == (key.provider, key.scope):
            said += [(), (("Limits of its account", "strong"),), *scope_detail(one, now_s)]
    return said
