"""Lists that come in pages, as one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Protocol, TypeVar


class _Asked(Protocol):
    """A request for a page."""

    page_token: str


class _Page(Protocol):
    """A page."""

    @property
    def next_page_token(self) -> str: ...


Request = TypeVar("Request", bound=_Asked)
Answer = TypeVar("Answer", bound=_Page)
Item = TypeVar("Item")


def every(
    method: Callable[[Request], Answer], request: Request, items: Callable[[Answer], Iterable[Item]]
) -> Iterator[Item]:
    """The items of all pages; the next one is asked for when it is needed. Leaves its token in `request`.

    every(relay.records.ListRecords, records_pb2.ListRecordsRequest(), lambda page: page.records)
    """
    while True:
        page = method(request)
        yield from items(page)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def every_async(
    method: Callable[[Request], Awaitable[Answer]], request: Request, items: Callable[[Answer], Iterable[Item]]
) -> AsyncIterator[Item]:
    """The same for asyncio."""
    while True:
        page = await method(request)
        for item in items(page):
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
