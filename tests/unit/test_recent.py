"""The newest requests are known, the memory of them is bounded."""

from __future__ import annotations

from ccr_control.core.recent import Recent


def test_the_oldest_goes_first_and_a_repeated_one_stays_one() -> None:
    """Batches are delivered again after a reconnect."""
    recent = Recent(limit=3)
    for name in ("a", "b", "a", "c", "d"):
        recent.note(name, "node", name.encode())

    assert len(recent) == 3
    assert recent.of("a") is None
    assert [recent.of(name) for name in ("b", "c", "d")] == [("node", b"b"), ("node", b"c"), ("node", b"d")]
    assert recent.last == 4
