"""Wrong credentials are counted by where they come from, in bounded memory."""

from __future__ import annotations

from ccr_data.core.strangers import MAX_ADDRESSES, WINDOW_S, Strangers, network_of


def test_each_address_has_a_count_of_its_own_for_a_minute() -> None:
    strangers = Strangers()
    assert [strangers.note("192.0.2.1", 100.0 + n) for n in range(3)] == [1, 2, 3]
    assert strangers.note("192.0.2.2", 103.0) == 1
    assert strangers.wait_s("192.0.2.1", 103.0) == 57
    assert strangers.note("192.0.2.1", 100.0 + WINDOW_S) == 1


def test_a_holder_of_a_network_is_one_address() -> None:
    """Whoever has an IPv6 network has 2^64 addresses to guess from."""
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert len(network_of("x" * 1000)) == 64


def test_the_memory_of_addresses_is_bounded() -> None:
    strangers = Strangers()
    for n in range(3 * MAX_ADDRESSES):
        strangers.note(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1.0)
    assert len(strangers) <= MAX_ADDRESSES
