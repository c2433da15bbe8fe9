"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

StateDir = Annotated[
    str | None,
    typer.Option("--state-dir", metavar="DIR", help="The relay's state directory (else $CCR_STATE_DIR, the user's)."),
]
Control = Annotated[
    str | None,
    typer.Option(
        "--control", metavar="ADDRESS", help="unix:/path or host:port (else $CCR_CONTROL, the state directory's)."
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The relay's base URL (else $CCR_URL, the state directory's)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
