"""The line to the control plane: what its faults mean, when to try again, and how it reads.

Pure. A status is gRPC's name of it, as in `ccr_client.ControlError`.
"""

from __future__ import annotations

from typing import assert_never

from ccr_tui.core import figures
from ccr_tui.core.table import Cell
from ccr_tui.core.world import Away, Connecting, Link, Live, Unable

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0
UNABLE_WAIT_S = 15.0  # a refusal may be mended there, but not within a moment
_AWAY = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "cancelled", "resource_exhausted", "aborted", "internal", "unknown"}
)


def wait_s(failures: int, roll: float) -> float:
    """How long to wait after so many failures in a row (from 1); doubled each time, spread by `roll` in [0, 1)."""
    doublings = min(max(failures, 1) - 1, 16)
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * (1 << doublings))
    return longest * (0.5 + roll / 2)


def is_away(status: str) -> bool:
    """Whether a fault may be over in a moment; everything else is a refusal."""
    return status in _AWAY


def fault_words(status: str, message: str) -> str:
    """What a fault means for who looks at the screen."""
    match status:
        case "UNIMPLEMENTED":
            return "this control plane does not offer it: update it"
        case "UNAUTHENTICATED":
            return f"it refuses our token ({message}): set $CCR_CONTROL_TOKEN"
        case "PERMISSION_DENIED":
            return f"not allowed: {message}"
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED":
            return "no control plane answers"
        case _:
            return message or status


def light(link: Link, now_s: float) -> Cell:
    """How the line is, in a word or two, for the top of the screen."""
    match link:
        case Live():
            return ("● live", "good")
        case Connecting():
            return ("◐ connecting", "warn")
        case Away(retry_at_s=at_s):
            return (f"✗ away, again in {figures.span(at_s - now_s)}", "bad")
        case Unable():
            return ("✗ refused", "bad")
        case _:
            assert_never(link)


def banner(base: Link, focus: Link | None) -> str:
    """What the screen says above old or missing figures; empty if all is as it should be. `focus` None: not used."""
    for link, what in ((base, "figures"), (focus, "rows")):
        match link:
            case Away(why=why):
                return f"{why}; the {what} below are the last ones known"
            case Unable(why=why):
                return f"{what}: {why}"
            case Connecting() | Live() | None:
                continue
            case _:
                assert_never(link)
    return ""
