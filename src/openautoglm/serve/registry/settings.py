"""The registry's own options."""

from __future__ import annotations

from pydantic import Field

from openautoglm.core.settings import Settings

MIB = 2**20


class RegistrySettings(Settings):
    """How the registry behaves.

    Attributes:
        retry_s: how long a database that does not answer is tried again, seconds; 0: once.
        lock_wait_s: how long a statement waits for another's lock, seconds.
        connect_s: how long PostgreSQL may take to let us in, seconds.
        statement_s: how long one statement may take on PostgreSQL, seconds.
        pool: connections kept open; as many again are opened under load.
        conversation_s: how long a conversation is kept after its last turn, seconds.
        conversation_turns, conversation_bytes: what one conversation may hold.
        conversations_each: conversations that one key may have.
        response_cache_bytes: what cached responses may take together; 0: no cache.
        response_bytes: the largest response that is cached.
        response_s: how long a response is kept, seconds.
        audit_days: how long the audit log is kept.
    """

    retry_s: float = Field(default=2.0, ge=0, le=60)
    lock_wait_s: float = Field(default=5.0, gt=0, le=60)
    connect_s: int = Field(default=3, ge=1, le=60)
    statement_s: float = Field(default=15.0, gt=0, le=600)
    pool: int = Field(default=5, ge=1, le=100)
    conversation_s: float = Field(default=24 * 3600, gt=0)
    conversation_turns: int = Field(default=512, ge=1)
    conversation_bytes: int = Field(default=MIB, ge=1)
    conversations_each: int = Field(default=1000, ge=1)
    response_cache_bytes: int = Field(default=64 * MIB, ge=0)
    response_bytes: int = Field(default=MIB, ge=1)
    response_s: float = Field(default=24 * 3600, gt=0)
    audit_days: float = Field(default=365, gt=0)
