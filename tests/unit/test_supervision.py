"""What happens after a program of the relay ends."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ccr_control.core.supervision import Ended, GiveUp, Restart, RestartPolicy, after_end, wait_before, words_for
from hypothesis import given
from hypothesis import strategies as st

POLICY = RestartPolicy(first_wait_s=0.2, longest_wait_s=10.0, settled_after_s=30.0)


def crash(exit_code: int = 1, lived_s: float = 0.1, crashes_before: int = 0, is_first_start: bool = False) -> Ended:
    return Ended(exit_code, lived_s, crashes_before, is_first_start)


def test_a_crash_is_followed_by_a_quick_restart() -> None:
    """A worker that dies once costs a fraction of a second."""
    assert after_end(crash(-9), POLICY) == Restart(wait_s=0.2, crashes=1)


def test_waits_double_up_to_the_longest() -> None:
    """A program that cannot live must not take the whole processor with it."""
    waits = [wait_before(crashes, POLICY) for crashes in range(1, 9)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_program_that_lived_long_enough_starts_afresh() -> None:
    """A crash a day is not a crash loop."""
    assert after_end(crash(lived_s=30.0, crashes_before=7), POLICY) == Restart(wait_s=0.2, crashes=1)
    assert after_end(crash(lived_s=29.9, crashes_before=7), POLICY) == Restart(wait_s=10.0, crashes=8)


@pytest.mark.parametrize("exit_code", [69, 78])
def test_a_hopeless_first_start_ends_everything(exit_code: int) -> None:
    """The operator sees the reason once, instead of a restart loop."""
    assert after_end(crash(exit_code, is_first_start=True), POLICY) == GiveUp(exit_code)


@pytest.mark.parametrize("exit_code", [69, 78])
def test_a_later_start_is_never_hopeless(exit_code: int) -> None:
    """Workers go on serving, whatever keeps ccr-control from coming back."""
    assert isinstance(after_end(crash(exit_code), POLICY), Restart)


@pytest.mark.parametrize("exit_code", [0, 1, -11])
def test_any_other_first_end_is_tried_again(exit_code: int) -> None:
    """Ending with 0 without being asked to is not an end either."""
    assert isinstance(after_end(crash(exit_code, is_first_start=True), POLICY), Restart)


@given(crashes=st.integers(1, 10**9))
def test_waits_stay_within_bounds_and_never_shrink(crashes: int) -> None:
    """However long a crash loop lasts."""
    wait_s = wait_before(crashes, POLICY)
    assert POLICY.first_wait_s <= wait_s <= POLICY.longest_wait_s
    assert wait_before(crashes + 1, POLICY) >= wait_s


def test_exits_read_as_words() -> None:
    """The log names the signal, not its number."""
    assert words_for(78) == "exit 78"
    assert words_for(-9) == "killed by SIGKILL"
    assert words_for(-63) == "killed by signal 63"


def test_the_supervisor_never_loads_grpc() -> None:
    """A fork beside a live gRPC channel crashes the child; and the supervisor has nothing to say over it."""
    program = "import sys, ccr_control.serve; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
