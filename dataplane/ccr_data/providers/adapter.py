"""What every provider's adapter turns a client's request into, and out of what."""

from __future__ import annotations

from typing import Protocol

from ccr_data.core.http1 import RequestHead
from ccr_data.core.peek import Peek
from ccr_data.core.snapshot import Target


class ClientRequest:
    """A client's whole request. The body is as it came, without any transfer coding."""

    def __init__(self, head: RequestHead, body: bytes, peek: Peek | None, own_token: bytes | None = None) -> None:
        self.head = head
        self.body = body
        self.peek = peek  # None where the body is not a Messages request
        self.own_token = own_token  # a subscription token to be passed on

    def __repr__(self) -> str:
        return f"ClientRequest({len(self.body)} bytes)"


class UpstreamRequest:
    """The bytes that go upstream."""

    def __init__(self, head: bytes, body: tuple[bytes, ...], size: int) -> None:
        self.head = head  # with the empty line
        self.body = body
        self.size = size  # of the body

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.size} bytes)"


class ProviderAdapter(Protocol):
    """What differs between kinds of provider. Pure. Source of each rule: docs/providers/<name>.md."""

    def prepare(self, request: ClientRequest, target: Target) -> UpstreamRequest:
        """The request to send to the target. Raises BadRequest where the provider could only misread it."""
        ...
