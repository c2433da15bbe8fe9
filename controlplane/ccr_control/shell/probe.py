"""Asks the relay whether it is ready, over HTTP as a load balancer would."""

from __future__ import annotations

import asyncio

_ANSWER_WITHIN_S = 2.0


async def is_ready(host: str, port: int) -> bool:
    """Whether `GET /ready` answers 200 within two seconds."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                status_line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status_line.split(b" ")[1:2] == [b"200"]
