"""Where sessions live, as one worker tells the others."""

from __future__ import annotations

from ccr_data.core.pins import QUIET_PART, Pin, Pins

SESSION = b"s" * 16
LIFETIME_S = 300.0


def told(pins: Pins) -> Pin:
    """What goes to the disk, as another worker reads it."""
    pin = pins.changed.pop(SESSION)
    return Pin(pin.provider, pin.key_label, pin.until_s, pin.reader, pin.lifetime_s, pin.noted_s, pin.model)


def test_a_pin_that_was_renewed_unheard_lives_on_at_the_other_workers() -> None:
    """A renewal within a quarter of the lifetime is not told; the cache it renewed must not be lost for that (simulation, seed 82)."""
    one, other = Pins(), Pins()
    one.put(SESSION, "p", "k", 0.0, "", LIFETIME_S)
    other.learn(SESSION, told(one))
    one.put(SESSION, "p", "k", 70.0, "", LIFETIME_S)

    assert SESSION not in one.changed
    assert one.of(SESSION, 369.0) is not None
    assert other.of(SESSION, 369.0) is not None
    assert other.of(SESSION, LIFETIME_S * (1 + QUIET_PART) + 1) is None


def test_also_the_worker_that_told_of_it_hears_nothing_of_a_renewal() -> None:
    """The other one knows when it was told last, and is as quiet."""
    one, other = Pins(), Pins()
    one.put(SESSION, "p", "k", 0.0, "", LIFETIME_S)
    other.learn(SESSION, told(one))
    other.put(SESSION, "p", "k", 70.0, "", LIFETIME_S)

    assert SESSION not in other.changed
    assert one.of(SESSION, 369.0) is not None


def test_a_newer_note_counts() -> None:
    """The session has moved."""
    one, other = Pins(), Pins()
    one.put(SESSION, "p", "k", 0.0, "", LIFETIME_S)
    other.learn(SESSION, told(one))
    one.put(SESSION, "q", "k", 10.0, "", LIFETIME_S)
    other.learn(SESSION, told(one))

    found = other.of(SESSION, 11.0)
    assert found is not None
    assert found.provider == "q"
