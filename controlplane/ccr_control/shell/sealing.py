"""Secrets at rest: sealed with a key in a file of its own, so that a copy of the database tells none of them.

AES-256-GCM; what a secret is for is bound to it, so that one cannot be put in another's place. Whoever may read the whole state
directory can unseal: docs/adr/0007-changes-at-run-time.md says why that is the line.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path

from ccr_control.core.errors import NotNow
from ccr_control.shell.paths import CannotStart, is_ours_alone, write_private

_KEY_BYTES = 32
_NONCE_BYTES = 12


class Unreadable(Exception):
    """What was sealed cannot be read: another key made it, or it was changed."""


class Sealer:
    """Seals and unseals with one key."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 20 ms that most starts do without

        self._cipher = AESGCM(key)

    def seal(self, text: str, purpose: str) -> bytes:
        """The text as it is kept."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())

    def unseal(self, sealed: bytes, purpose: str) -> str:
        """The text again. Raises Unreadable."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise Unreadable("it was sealed with another key (store.key in the state directory)") from error


def lazily(path: Path) -> Callable[[], Sealer]:
    """Gives the sealer of a key file, which is read or made when it is asked for first: most starts have no secret to unseal.

    It may raise NotNow. It takes a while the first time: not for the event loop.
    """

    @functools.cache  # of a failure nothing is kept
    def made() -> Sealer:
        try:
            return sealer(path)
        except CannotStart as error:
            raise NotNow("NO_SEALING_KEY", f"nothing was changed: {error}") from error

    return made


def sealer(path: Path) -> Sealer:
    """A sealer with the key of a file that nobody else may read, made if there is none. Raises CannotStart."""
    with contextlib.suppress(OSError, ValueError):
        if is_ours_alone(path):
            key = base64.b64decode(path.read_text().strip(), validate=True)
            if len(key) == _KEY_BYTES:
                return Sealer(key)
    key = os.urandom(_KEY_BYTES)
    write_private(path, base64.b64encode(key).decode() + "\n")
    return Sealer(key)
