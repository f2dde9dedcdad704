"""Conversations of the registry, as the service keeps them."""

from __future__ import annotations

from collections.abc import Sequence

from openautoglm.serve.faults import NotFound
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.wire.messages import Message


class Kept:
    """Keeps conversations in the registry's database; no request waits for it in the event loop.

    Args:
        model: that answers; noted where a conversation begins.
    """

    def __init__(self, registry: Registry, model: str) -> None:
        self._registry, self._model = registry, model

    async def recall(self, name: str, owner: str) -> Sequence[Message]:
        """The messages so far, oldest first; none for a new conversation, or one that has expired.

        Raises:
            BadRequest: not a conversation's name. StoreLost: the database does not answer.
        """
        try:
            found = await self._registry.run(self._registry.conversations.read, owner, name)
        except NotFound:
            return ()
        return tuple(Message.model_validate(message) for message in found.messages)

    async def remember(self, name: str, owner: str, known: int, messages: Sequence[Message]) -> None:
        """Add messages to a conversation that had `known` of them.

        Raises:
            Conflict: it has grown meanwhile. TooLarge: it may not grow any more.
            StoreLost, DiskFull: the database does not answer, or has no room; nothing was stored.
        """
        lines = [message.model_dump(mode="json", exclude_none=True) for message in messages]
        await self._registry.run(self._registry.conversations.append, owner, name, lines, model=self._model,
                                 expected=known)
