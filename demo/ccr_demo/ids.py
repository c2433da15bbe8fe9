"""Identifiers that look like the API's own: same prefixes, alphabets and lengths. Pure and repeatable.

The same seed gives the same identifiers in the same order, so that a failing test can be replayed.
"""

import hashlib
import itertools
import uuid
from collections.abc import Mapping

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# kind -> (prefix, number of characters behind it)
_SHAPES: Mapping[str, tuple[str, int]] = {
    "message": ("msg_01", 22),
    "tool_use": ("toolu_01", 22),
    "request": ("req_011C", 20),
    "file": ("file_011C", 20),
    "batch": ("msgbatch_01", 22),
    "workspace": ("wrkspc_01", 22),
}


def base58(text: str, length: int) -> str:
    """`length` characters that depend on the whole of `text`."""
    number = int.from_bytes(hashlib.sha512(text.encode()).digest(), "big")
    letters = []
    for _ in range(length):
        number, rest = divmod(number, 58)
        letters.append(_BASE58[rest])
    return "".join(letters)


def named_id(kind: str, name: str) -> str:
    """The identifier of `kind` that belongs to `name`, for ever."""
    prefix, length = _SHAPES[kind]
    return prefix + base58(f"{kind}:{name}", length)


def organization_id(name: str) -> str:
    """The UUID of the organisation called `name`."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.demo.invalid"))


class IdMint:
    """Hands out identifiers that never repeat."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = itertools.count(1)

    def new(self, kind: str) -> str:
        """A fresh identifier of `kind`: message, tool_use, request, file, batch or workspace."""
        return named_id(kind, f"{self._seed}:{next(self._count)}")
