"""Writes the generated pages of docs/, or checks that they are current.

    python tools/docs.py            write them
    python tools/docs.py --check    change nothing; exit code 1 names what is out of date

Each page comes from what it documents, so that it cannot drift: the configuration's types, the comments of the contract, the
command line, the table of presets, and the tests' `clause` marks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ccr_docs import cli, config, conformance, proto, providers

ROOT = Path(__file__).resolve().parents[1]
PAGES: dict[str, Callable[[Path], str]] = {
    "docs/reference/config.md": config.page,
    "docs/reference/proto.md": proto.page,
    "docs/reference/cli.md": cli.page,
    "docs/providers/README.md": providers.page,
    "docs/conformance.md": conformance.page,
}


def main(arguments: list[str]) -> int:
    """Write or check every page."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name, made_by in PAGES.items():
        path = ROOT / name
        try:
            text = made_by(ROOT)
        except conformance.Mismatch as mismatch:
            print(f"{name}: {mismatch}", file=sys.stderr)
            return 1
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date: make docs' if arguments else 'written'}", file=sys.stderr)
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
