"""Who keeps coming with wrong credentials: counted by address, so that guessing and noise cost little. Pure.

A right credential is served wherever it comes from: many clients may share an address with one that has an old key, and with
a reverse proxy in front all of them do. So only what would have been a 401 anyway becomes a 429. Loopback is no exception.
"""

from __future__ import annotations

import ipaddress

PER_MINUTE = 60
WINDOW_S = 60.0
MAX_ADDRESSES = 4096
"""Kept at a time. When there are more, those of before are forgotten: 4096 addresses are no longer one that guesses."""


class Strangers:
    """Wrong credentials of the last minute, by address."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}  # address → when its minute began, and how many since

    def __len__(self) -> int:
        return len(self._counts)

    def note(self, address: str, now_s: float) -> int:
        """One more. Returns how many came from there in this minute, this one included."""
        key = network_of(address)
        began_s, count = self._counts.get(key, (now_s, 0))
        if now_s - began_s >= WINDOW_S:
            began_s, count = now_s, 0
        if key not in self._counts and len(self._counts) >= MAX_ADDRESSES:
            self._counts.clear()
        self._counts[key] = began_s, count + 1
        return count + 1

    def wait_s(self, address: str, now_s: float) -> int:
        """Whole seconds until its minute is over, at least 1."""
        began_s, _ = self._counts.get(network_of(address), (now_s, 0))
        return max(1, round(began_s + WINDOW_S - now_s))


def network_of(address: str) -> str:
    """What one holder of addresses has: an IPv4 address, or an IPv6 /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
