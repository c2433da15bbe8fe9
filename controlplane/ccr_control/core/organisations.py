"""Which organisation do keys without a configured scope belong to? Learned from answers.

Pure. Limits are the organisation's: two keys of one have them together. Whichever node sees an answer first, all nodes
hear of it with the next snapshot, in which such a key has a scope (docs/how-to/several-keys.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

MAX_KEYS = 4096
"""Keys remembered; beyond it the one that was learned first is forgotten."""

MAX_CHARS = 256
"""An organisation's id is cut here, as nodes do."""

HEADER = "anthropic-organization-id"


class Learned(NamedTuple):
    """The organisation of a key."""

    provider: str
    key_label: str
    fingerprint: str  # of the key's secret: another one under the same label may be of another organisation
    organisation: str


class Organisations:
    """What has been learned, by provider and key label."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Learned] = {}

    def note(self, one: Learned) -> bool:
        """An answer named the organisation of a key. Returns whether that is news."""
        one = one._replace(organisation=one.organisation[:MAX_CHARS])
        place = (one.provider, one.key_label)
        if not one.organisation or self._known.get(place) == one:
            return False
        if place not in self._known and len(self._known) >= MAX_KEYS:
            del self._known[next(iter(self._known))]
        self._known[place] = one
        return True

    def restore(self, learned: Iterable[Learned]) -> None:
        """What an earlier life had learned. What has been learned since then stays."""
        for one in learned:
            if (one.provider, one.key_label) not in self._known:
                self.note(one)

    def all(self) -> list[Learned]:
        """Everything, in the order in which it was learned."""
        return list(self._known.values())

    def scope_of(self, provider: str, key_label: str, fingerprint: str) -> str:
        """The scope of a key without a configured one; empty if nothing is known."""
        known = self._known.get((provider, key_label))
        if known is None or known.fingerprint != fingerprint:
            return ""
        return scope_name(known.organisation)


def scope_name(organisation: str) -> str:
    """What the scope of an organisation is called, by nodes and control plane alike."""
    return f"organisation {organisation}"


def organisation_in(headers: Mapping[str, str]) -> str:
    """The organisation that an answer's headers name; empty if they do not."""
    return headers.get(HEADER, "")
