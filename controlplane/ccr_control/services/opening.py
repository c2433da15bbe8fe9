"""How a node's stream begins, and how one that breaks the contract ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

HELLO_WITHIN_S = 10.0
MAX_NAME_CHARS = 200

_Request = TypeVar("_Request")


class ContractBroken(Exception):
    """The node said something that the contract does not allow; the message is for its log."""


async def first_request(requests: AsyncIterator[_Request]) -> _Request | None:
    """The first request of a stream; None if the node hung up without one. Raises ContractBroken if it is silent."""
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            return await anext(requests, None)
    except TimeoutError:
        raise ContractBroken(f"no hello within {HELLO_WITHIN_S:.0f} s") from None


def checked_name(what: str, name: str) -> str:
    """A node's or journal's name as it is. Raises ContractBroken if it is empty or overlong."""
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise ContractBroken(f"{what} must have 1 to {MAX_NAME_CHARS} characters, not {len(name)}")
    return name


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: ContractBroken) -> NoReturn:
    """End the call with INVALID_ARGUMENT and what was wrong."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
