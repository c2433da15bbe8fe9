"""What happened besides requests: changes by people, health, configuration, nodes, alerts, drift.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["audit", "health", "config", "alert", "node", "drift"]

MAX_MESSAGE_CHARS = 2000
MAX_JSON_CHARS = 16_000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. Holds no secret and no word of a request."""

    kind: Kind
    action: str  # a fixed word: "provider.state", "circuit.open"
    resource: str = ""  # "providers/zai", "keys/zai/team-a"
    actor: str = ""  # "socket", or the name of a token; empty: nobody
    before_json: str = ""  # of a change
    after_json: str = ""
    message: str = ""
    at_s: float = 0.0  # since 1970
    number: int = 0  # grows with each; 0: not kept yet


def as_json(view: Mapping[str, object] | None) -> str:
    """A state for `before_json` or `after_json`; empty for none."""
    if view is None:
        return ""
    text = json.dumps(dict(view), sort_keys=True, ensure_ascii=False)
    return text if len(text) <= MAX_JSON_CHARS else json.dumps({"too_long": len(text)})
