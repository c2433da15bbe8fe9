"""What a control plane knows of providers that its successor should know, too. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ccr_control.core.health import Event, SavedCircuit
from ccr_control.core.organisations import Learned


@dataclass(frozen=True, slots=True)
class Remembered:
    """Circuits, what happened to them, and whose keys are whose."""

    circuits: tuple[SavedCircuit, ...] = ()
    events: tuple[Event, ...] = ()  # oldest first
    organisations: tuple[Learned, ...] = ()
