"""Which addresses a provider on the internet may have. Pure.

A name in a configuration is judged when it is read, but what it resolves to can change afterwards, and whoever answers for it
may point it at the machine's own network (DNS rebinding), where a request with a credential in it has no business.
Sources: RFC 6890, RFC 6598, RFC 6052, RFC 3056.
"""

from __future__ import annotations

import ipaddress

_BENCHMARK = ipaddress.IPv4Network("198.18.0.0/15")
"""Proxies on a user's own machine answer names with these, and send on what comes: nothing private has them."""
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
"""For protocols between neighbours; Oracle's metadata service is here."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether this is an address on the internet. An IPv6 address that stands for an IPv4 address is judged as that."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # with a zone: link-local
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is None:
            return found.is_global and not found.is_multicast
        found = inner
    return found in _BENCHMARK or (found.is_global and not found.is_multicast and found not in _PROTOCOLS)
