"""`ccr serve` over stand-ins for its programs."""

from __future__ import annotations

import sys
from pathlib import Path

from ccr_control.serve import Commands, main

HERE = Path(__file__).parent


def stand_in(name: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / f"{name}.py"))


if __name__ == "__main__":
    sys.exit(main(commands=Commands(stand_in("control"), stand_in("data"), stand_in("demo"))))
