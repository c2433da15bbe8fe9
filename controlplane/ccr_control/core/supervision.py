"""What the supervisor does when a program ends: start it again, after what wait, or give up?

Pure. Times are seconds; exit codes are those of `subprocess`, negative where a signal ended the program.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

EXIT_CANNOT_LISTEN = os.EX_UNAVAILABLE  # 69: port, socket or lock
EXIT_BAD_CONFIG = os.EX_CONFIG  # 78
EXIT_USAGE = 2  # as argparse

HOPELESS_EXITS = frozenset({EXIT_CANNOT_LISTEN, EXIT_BAD_CONFIG})
"""At its first start a program that ends so has told the operator what to mend; trying again would hide it."""

STARTED_AGAIN = "CCR_STARTED_AGAIN"
"""Set in the environment of a program that ran before under the same supervisor: the relay is in use."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long to wait before a crashed program is started again."""

    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0
    settled_after_s: float = 30.0  # a program that lived this long starts afresh with `first_wait_s`


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what came before."""

    exit_code: int
    lived_s: float
    crashes_before: int  # in a row, each within `settled_after_s`
    is_first_start: bool  # nothing ran before it, so that nothing is lost by giving up


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after a wait."""

    wait_s: float
    crashes: int  # in a row, this one included


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End everything with the program's own exit code."""

    exit_code: int


def after_end(ended: Ended, policy: RestartPolicy) -> Restart | GiveUp:
    """What to do about a program that ended without being asked to. Ending with 0 is a crash, too."""
    if ended.is_first_start and ended.exit_code in HOPELESS_EXITS:
        return GiveUp(ended.exit_code)
    crashes = 1 if ended.lived_s >= policy.settled_after_s else ended.crashes_before + 1
    return Restart(wait_before(crashes, policy), crashes)


def wait_before(crashes: int, policy: RestartPolicy) -> float:
    """Seconds to wait before the next start, doubled for each crash in a row."""
    doublings = min(crashes - 1, 32)  # beyond it the longest wait is reached anyway, and floats would overflow
    return min(policy.first_wait_s * 2.0**doublings, policy.longest_wait_s)


def words_for(exit_code: int) -> str:
    """How a program ended, for the log: "exit 78" or "killed by SIGKILL"."""
    if exit_code >= 0:
        return f"exit {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
