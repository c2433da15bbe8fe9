"""The files of the web page, as built by `make web` into the package: read once, served with strict headers."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUILT: Final = Path(__file__).parents[1] / "webui"
INDEX: Final = "/index.html"

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "font", "connect", "manifest")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types svelte-trusted-html",
    )
)
"""What the page may do: run and load its own files, and talk to where it came from."""

GUARDS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

NOT_BUILT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>cc-relay</title>
<h1>The web page is not built</h1>
<p>The relay runs; only its page is missing. In a checkout, <code>make web</code> builds it (with the Node.js of this machine, or one
from PyPI); then restart <code>ccr serve</code>. Packages from PyPI hold it already.</p>
<p>Meanwhile: <code>ccr status</code>, <code>ccr tui</code>.</p>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A file."""

    body: bytes
    kind: str  # content type
    etag: str
    is_immutable: bool  # its name holds its hash

    @property
    def caching(self) -> str:
        """The value of Cache-Control."""
        return "public, max-age=31536000, immutable" if self.is_immutable else "no-cache"


def pages(folder: Path) -> dict[str, Page]:
    """The built files by path; if there are none, a page that says how to build them."""
    found = {
        f"/{path.relative_to(folder).as_posix()}": _page(path.read_bytes(), path.name, "assets" in path.parts)
        for path in (sorted(folder.rglob("*")) if folder.is_dir() else ())
        if path.is_file() and not path.name.startswith(".")
    }
    return found if INDEX in found else {INDEX: _page(NOT_BUILT.encode(), "index.html", is_immutable=False)}


def page_at(path: str, known: Mapping[str, Page]) -> Page | None:
    """The file of a path; paths that look like no file are the page's own, and get the index."""
    if path in known:
        return known[path]
    return None if "." in path else known[INDEX]


def _page(body: bytes, name: str, is_immutable: bool) -> Page:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in ("application/json", "image/svg+xml"):
        kind += "; charset=utf-8"
    return Page(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"', is_immutable)
