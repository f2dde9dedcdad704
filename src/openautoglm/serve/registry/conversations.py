"""Named conversations: their turns, kept until they expire; only the key that began one can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from openautoglm.serve.faults import BadRequest, Conflict, NotFound, TooLarge
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.tables import CONVERSATIONS, TURNS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WHERE = "conversation"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as far as it has come.

    Attributes:
        model: what was asked for when it began, a reference.
        messages: its turns, oldest first; those of `Conversations.list` are left out.
        turns, size_bytes: of all messages.
        expires_s: seconds since 1970.
    """

    name: str
    model: str
    turns: int
    size_bytes: int
    created_s: float
    updated_s: float
    expires_s: float
    messages: tuple[Mapping[str, Any], ...] = ()


class Conversations:
    """Stores conversations; `owner` is the id of a key, or empty where keys are off."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, owner: str, name: str) -> Conversation:
        """Return a conversation with all its messages.

        Raises:
            NotFound: there is none of this name, it has expired, or it is another key's.
        """
        check(name)

        def work(connection: Connection) -> Conversation:
            row = self._row(connection, owner, name)
            if row is None:
                raise NotFound("there is no such conversation, or it has expired", where=_WHERE)
            lines = connection.execute(select(TURNS.c.message).where(TURNS.c.owner == owner, TURNS.c.name == name)
                                       .order_by(TURNS.c.number)).scalars().all()
            return _conversation(row, tuple(json.loads(line) for line in lines))

        return self._database.read(work)

    def append(self, owner: str, name: str, messages: Sequence[Mapping[str, Any]], *, model: str,
               expected: int | None = None, keep_s: float | None = None) -> Conversation:
        """Add turns and put the expiry off; a conversation that is new, or has expired, begins with them.

        Args:
            model: kept when it begins.
            expected: turns that the caller has seen; 0: it is to begin. None: as many as there are.
            keep_s: how long to keep it from now on, at most `conversation_s`.

        Raises:
            Conflict: another request has added turns meanwhile.
            TooLarge: more turns, bytes or conversations than allowed; nothing was stored.
        """
        check(name)
        lines = [_line(message) for message in messages]
        size_bytes = sum(len(line.encode()) for line in lines)
        settings = self._database.settings
        kept_s = settings.conversation_s if keep_s is None else min(max(keep_s, 0.0), settings.conversation_s)

        def work(connection: Connection) -> Conversation:
            row = self._begin(connection, owner, name, model)
            if expected is not None and row.turns != expected:
                raise Conflict(f"the conversation has {row.turns} turns, not {expected}", where=_WHERE,
                               remedy="read it again; send one request of a conversation after the other")
            turns, total_bytes = row.turns + len(lines), row.size_bytes + size_bytes
            if turns > settings.conversation_turns or total_bytes > settings.conversation_bytes:
                raise TooLarge(f"a conversation may have {settings.conversation_turns:,} turns and "
                               f"{settings.conversation_bytes:,} bytes", where=_WHERE, remedy="begin another one")
            if lines:
                connection.execute(insert(TURNS), [
                    {"owner": owner, "name": name, "number": row.turns + step, "message": line}
                    for step, line in enumerate(lines)])
            now_s = self._database.now()
            connection.execute(update(CONVERSATIONS).where(_is(owner, name)).values(
                turns=turns, size_bytes=total_bytes, updated_s=now_s, expires_s=now_s + kept_s))
            return _conversation(connection.execute(select(CONVERSATIONS).where(_is(owner, name))).one())

        return self._database.write(work)

    def list(self, owner: str, limit: int = 100) -> list[Conversation]:
        """Return the owner's conversations without their messages, newest first."""
        query = (select(CONVERSATIONS)
                 .where(CONVERSATIONS.c.owner == owner, CONVERSATIONS.c.expires_s > self._database.now())
                 .order_by(CONVERSATIONS.c.updated_s.desc()).limit(limit))
        return [_conversation(row) for row in self._database.read(lambda connection: connection.execute(query).all())]

    def forget(self, owner: str, name: str) -> None:
        """Remove a conversation; raises NotFound where there is none."""
        check(name)

        def work(connection: Connection) -> int:
            return connection.execute(delete(CONVERSATIONS).where(_is(owner, name))).rowcount

        if not self._database.write(work):
            raise NotFound("there is no such conversation, or it has expired", where=_WHERE)

    def clear(self, owner: str) -> int:
        """Remove all conversations of an owner; return how many."""
        return self._database.write(lambda connection: connection.execute(
            delete(CONVERSATIONS).where(CONVERSATIONS.c.owner == owner)).rowcount)

    def expire(self) -> int:
        """Remove all that have expired; return how many. To be called now and then."""
        past = CONVERSATIONS.c.expires_s <= self._database.now()
        return self._database.write(lambda connection: connection.execute(delete(CONVERSATIONS).where(past)).rowcount)

    def _row(self, connection: Connection, owner: str, name: str) -> Row[Any] | None:
        return connection.execute(select(CONVERSATIONS).where(
            _is(owner, name), CONVERSATIONS.c.expires_s > self._database.now())).one_or_none()

    def _begin(self, connection: Connection, owner: str, name: str, model: str) -> Row[Any]:
        """The conversation's row, locked; made where there is none that lives."""
        now_s = self._database.now()
        connection.execute(delete(CONVERSATIONS).where(_is(owner, name), CONVERSATIONS.c.expires_s <= now_s))
        step = self._database.insert(CONVERSATIONS).values(
            owner=owner, name=name, model=model[:160], turns=0, size_bytes=0, created_s=now_s, updated_s=now_s,
            expires_s=now_s + self._database.settings.conversation_s)
        made = connection.execute(step.on_conflict_do_nothing(index_elements=["owner", "name"])).rowcount
        if made:
            count = connection.execute(select(func.count()).where(CONVERSATIONS.c.owner == owner)).scalar() or 0
            most = self._database.settings.conversations_each
            if count > most:
                raise TooLarge(f"a key may have {most:,} conversations", where=_WHERE,
                               remedy="forget some, or let them expire")
        return connection.execute(select(CONVERSATIONS).where(_is(owner, name)).with_for_update()).one()


def check(name: str) -> str:
    """Return `name` where it is allowed; else raise BadRequest."""
    if not _NAME.fullmatch(name):
        raise BadRequest("not a conversation's name", where=_WHERE,
                         remedy="1 to 64 of A-Z, a-z, 0-9, dash and underscore, a letter or digit first")
    return name


def _line(message: Mapping[str, Any]) -> str:
    """A message as JSON that every database takes: half a surrogate pair is escaped."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(message, separators=(",", ":"))
    return text


def _is(owner: str, name: str) -> Any:
    return and_(CONVERSATIONS.c.owner == owner, CONVERSATIONS.c.name == name)


def _conversation(row: Row[Any], messages: tuple[Mapping[str, Any], ...] = ()) -> Conversation:
    return Conversation(row.name, row.model, row.turns, row.size_bytes, row.created_s, row.updated_s, row.expires_s,
                        messages)
