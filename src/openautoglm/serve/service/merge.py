"""Several streams as one, each item as soon as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")
_AHEAD = 64


async def merged(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[Item, None]:
    """Yield the items of all streams; the first fault of one ends all. Leaving the iteration ends them too."""
    arrived: asyncio.Queue[Item | BaseException | None] = asyncio.Queue(_AHEAD)

    async def read(stream: AsyncGenerator[Item, None]) -> None:
        end: BaseException | None = None
        try:
            async with aclosing(stream):
                async for item in stream:
                    await arrived.put(item)
        except Exception as error:
            end = error
        await arrived.put(end)

    readers = [asyncio.create_task(read(stream)) for stream in streams]
    try:
        left = len(readers)
        while left:
            item = await arrived.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
