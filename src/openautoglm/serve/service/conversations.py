"""Conversations that the server keeps: the seam to whatever stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from openautoglm.serve.wire.messages import Message


class Conversations(Protocol):
    """Keeps messages by the name of a conversation and its owner."""

    async def recall(self, name: str, owner: str) -> Sequence[Message]:
        """The messages so far, oldest first; none for a new conversation.

        Raises:
            StoreLost: the store does not answer.
        """

    async def remember(self, name: str, owner: str, known: int, messages: Sequence[Message]) -> None:
        """Add messages to a conversation that had `known` of them.

        Raises:
            Conflict: it has grown meanwhile.
            StoreLost: the store does not answer.
        """


@dataclass(frozen=True)
class Talk:
    """One turn of a conversation that is kept.

    Attributes:
        before: messages that were there.
        asked: new messages of the client.
    """

    store: Conversations
    name: str
    owner: str
    before: Sequence[Message]
    asked: Sequence[Message]

    async def keep(self, answer: str) -> None:
        """Add what was asked and answered.

        Raises:
            Conflict, StoreLost: as `Conversations.remember`.
        """
        said = Message(role="assistant", content=answer)
        await self.store.remember(self.name, self.owner, len(self.before), (*self.asked, said))
