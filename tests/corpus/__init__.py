"""Recorded real requests, for tests of byte fidelity: what Claude Code itself sends.

    for request in recorded_requests():
        ...  # request.name, .method, .target, .headers, .body

Each is `claude_code/<name>.json` (the head, in order and original case) with `<name>.body.gz`. They were recorded by
`tests/claude_code/record.py`. Paths are those of the recorder's own folder; identifiers, host and kernel are fakes
of equal length, so that `content-length` still fits.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "claude_code"


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it came over the wire."""

    name: str
    client: str  # the version of Claude Code
    method: str
    target: str  # path and query
    headers: tuple[tuple[bytes, bytes], ...]  # in order, in their own case
    body: bytes


@cache
def recorded_requests() -> tuple[RecordedRequest, ...]:
    """All of them, by name."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.json")))


def write_recorded_request(request: RecordedRequest) -> None:
    """Adds one to the corpus, or replaces it."""
    FOLDER.mkdir(exist_ok=True)
    head = {
        "client": request.client,
        "method": request.method,
        "target": request.target,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
    }
    (FOLDER / f"{request.name}.json").write_text(json.dumps(head, indent=1) + "\n")
    (FOLDER / f"{request.name}.body.gz").write_bytes(gzip.compress(request.body, mtime=0))


def _read(path: Path) -> RecordedRequest:
    head = json.loads(path.read_text())
    return RecordedRequest(
        path.stem,
        head["client"],
        head["method"],
        head["target"],
        tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]),
        gzip.decompress(path.with_suffix(".body.gz").read_bytes()),
    )
