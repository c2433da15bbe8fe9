"""Asks the relay itself, over HTTP: is it there, and does it take this credential?

Proxies of the environment are not used: the relay is the proxy.
"""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from ccr_cli.failure import EXIT_UNREACHABLE, EXIT_USAGE, Failure
from ccr_cli.places import START_HINT

_ANSWER_WITHIN_S = 5.0


def status_of(url: str, path: str, token: str | None = None) -> int:
    """HTTP status of `GET path`. Raises Failure if nothing answers there."""
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        kind, port = kinds.get(parts.scheme), parts.port
    except ValueError:
        kind = None
    if kind is None or not parts.hostname:
        raise Failure(f"{url!r} is not a base URL such as http://127.0.0.1:8787", EXIT_USAGE)
    connection = kind(parts.hostname, port, timeout=_ANSWER_WITHIN_S)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        status: int = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"no relay answers at {url}: {START_HINT}", EXIT_UNREACHABLE) from error
    finally:
        connection.close()
    return status


def is_healthy(url: str) -> bool:
    """Whether the relay answers `GET /health` with 200."""
    try:
        return status_of(url, "/health") == 200
    except Failure:
        return False
