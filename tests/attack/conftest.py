"""Every test in here has the same target, and must leave it unharmed."""

from __future__ import annotations

from support.attack import target, unharmed

__all__ = ["target", "unharmed"]
