"""The forms of replies of a server with a registry, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from openautoglm.serve.rest.replies import Reply

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


class Version(Reply):
    """One version; `traffic` is its share of the plain name's requests, `withdrawn` why it was taken back."""

    model: str
    version: int
    stage: str
    aliases: list[str]
    traffic: float | None
    withdrawn: str
    state: State
    reason: str
    size_bytes: int
    created: int
    note: str
    facts: dict[str, Any]


class Versions(Reply):
    """All versions of a model."""

    object: Literal["list"]
    data: list[Version]


class Alias(Reply):
    """Where an alias points, and where it pointed before."""

    alias: str
    version: int | None
    before: int | None = Field(default=None)


class Share(Reply):
    """What one version gets of the traffic, and how its requests ended since the route was set."""

    version: int
    weight: int
    baseline: bool
    withdrawn: str
    requests: int
    errors: int
    p95_s: float | None


class Route(Reply):
    """How the traffic of a model is split; no shares: as aliases and stages say."""

    model: str
    shares: list[Share]


class AuditLine(Reply):
    """Who changed what."""

    id: int
    at: float
    by: str
    action: str
    subject: str
    detail: dict[str, Any]


class Audit(Reply):
    """Changes of a model, newest first."""

    object: Literal["list"]
    data: list[AuditLine]


class Done(Reply):
    """It was done."""

    status: str


class Held(Reply):
    """One version in the repository."""

    name: str
    version: str
    state: State
    reason: str


class Conversation(Reply):
    """A conversation; times in seconds since 1970."""

    name: str
    model: str
    turns: int
    size_bytes: int
    created: int
    updated: int
    expires: int
    messages: list[dict[str, Any]] = Field(default=[])


class Conversations(Reply):
    """The conversations of a key, newest first."""

    object: Literal["list"]
    data: list[Conversation]


class Deleted(Reply):
    """How many conversations were removed."""

    deleted: int
