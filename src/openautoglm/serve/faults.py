"""What can go wrong in the service, in one table: how each kind of fault looks over HTTP, gRPC and in OpenAI's form.

::

    AutoGLMError
    └── Fault
        ├── BadRequest, TooLong, Unauthorised, Forbidden, NotFound, MethodNotAllowed, Conflict, TooLarge,
        │   UnsupportedMedia, Unsupported             the client's: asking again is of no use
        ├── RateLimited, Overloaded, TimedOut         the client's, or the moment's: asking again later may work
        ├── EngineLost, Unavailable, StoreLost        ours, for a while: asking again may work
        └── DiskFull, Internal, ClientGone            ours, or nobody's
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError


class Row(NamedTuple):
    """How a kind of fault is told.

    Attributes:
        status: of HTTP.
        grpc: name of the gRPC status code.
        type, code: of OpenAI's error object.
        retryable: whether the same request may work later.
        says: what clients read in place of the message, which is for the log; empty: they read the message.
    """

    status: int
    grpc: str
    type: str
    code: str
    retryable: bool = False
    says: str = ""


_log = log.get(__name__)
_OURS_FROM = 500
_INVALID = "invalid_request_error"
_SERVER = "server_error"
TABLE: dict[str, Row] = {
    "bad_request": Row(400, "INVALID_ARGUMENT", _INVALID, "invalid_value"),
    "too_long": Row(400, "INVALID_ARGUMENT", _INVALID, "context_length_exceeded"),
    "unauthorised": Row(401, "UNAUTHENTICATED", "authentication_error", "invalid_api_key"),
    "forbidden": Row(403, "PERMISSION_DENIED", "permission_error", "insufficient_scope"),
    "not_found": Row(404, "NOT_FOUND", _INVALID, "not_found"),
    "method_not_allowed": Row(405, "UNIMPLEMENTED", _INVALID, "method_not_allowed"),
    "timed_out": Row(408, "DEADLINE_EXCEEDED", "timeout_error", "timed_out", True),
    "conflict": Row(409, "ABORTED", _INVALID, "conflict"),
    "too_large": Row(413, "RESOURCE_EXHAUSTED", _INVALID, "request_too_large"),
    "unsupported_media": Row(415, "INVALID_ARGUMENT", _INVALID, "unsupported_media_type"),
    "unsupported": Row(400, "UNIMPLEMENTED", _INVALID, "unsupported"),
    "rate_limited": Row(429, "RESOURCE_EXHAUSTED", "rate_limit_error", "rate_limit_exceeded", True),
    "overloaded": Row(429, "RESOURCE_EXHAUSTED", "overloaded_error", "overloaded", True),
    "client_gone": Row(499, "CANCELLED", _INVALID, "client_closed_request", says="the client has left"),
    "internal": Row(500, "INTERNAL", _SERVER, "internal_error",
                    says="the server failed at this request; its log knows why, by the request id"),
    "engine_lost": Row(503, "UNAVAILABLE", _SERVER, "engine_lost", True,
                       says="the model's engine failed while it served this request; send it again"),
    "unavailable": Row(503, "UNAVAILABLE", _SERVER, "unavailable", True),
    "store_lost": Row(503, "UNAVAILABLE", _SERVER, "store_unavailable", True,
                      says="the server's database does not answer; try again later"),
    "disk_full": Row(507, "RESOURCE_EXHAUSTED", _SERVER, "insufficient_storage",
                     says="the server cannot store anything now"),
}


class Fault(AutoGLMError):  # noqa: N818 - a kind of fault is named after what happened
    """A fault that a client is told.

    Args:
        message: what was wrong, one sentence.
        where: the field of the request that it concerns, e.g. ``max_tokens``.
        remedy: what the client can do about it.
        retry_after_s: when to try again, as far as that can be said.
    """

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None,
                 retry_after_s: float | None = None) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.retry_after_s = retry_after_s

    @property
    def row(self) -> Row:
        """How this kind is told."""
        return TABLE[self.kind]

    @property
    def field(self) -> str | None:
        """The field of the request that it concerns."""
        return self.where

    @property
    def public(self) -> str:
        """What the client may read: nothing of the inside."""
        if self.row.says:
            return self.row.says
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class BadRequest(Fault):
    """The request cannot be served as it is; `where` names its field."""

    kind = "bad_request"


class TooLong(Fault):
    """Prompt and answer do not fit the model."""

    kind = "too_long"


class Unauthorised(Fault):
    """No key, or none that is known."""

    kind = "unauthorised"


class Forbidden(Fault):
    """The key lacks the scope."""

    kind = "forbidden"


class NotFound(Fault):
    """There is no such model, version, conversation or path."""

    kind = "not_found"


class MethodNotAllowed(Fault):
    """The path is known, the method is not."""

    kind = "method_not_allowed"


class Conflict(Fault):
    """What is asked for does not fit the state of things, e.g. a name that is taken."""

    kind = "conflict"


class TooLarge(Fault):
    """The body is larger than allowed."""

    kind = "too_large"


class UnsupportedMedia(Fault):
    """The body is of another type than the route takes."""

    kind = "unsupported_media"


class Unsupported(Fault):
    """Asked for in good form, but this model or server does not do it."""

    kind = "unsupported"


class RateLimited(Fault):
    """The key has used up its share for now."""

    kind = "rate_limited"


class Overloaded(Fault):
    """The queue is full."""

    kind = "overloaded"


class TimedOut(Fault):
    """The deadline came before the first token."""

    kind = "timed_out"


class ClientGone(Fault):
    """Nobody waits for the answer any more."""

    kind = "client_gone"


class EngineLost(Fault):
    """The engine failed, hung or was killed while it served the request."""

    kind = "engine_lost"


class Unavailable(Fault):
    """Starting, draining, or restarting."""

    kind = "unavailable"


class StoreLost(Fault):
    """The database does not answer."""

    kind = "store_lost"


class DiskFull(Fault):
    """There is no room to store something."""

    kind = "disk_full"


class Internal(Fault):
    """A fault of our own."""

    kind = "internal"


KINDS: dict[str, type[Fault]] = {kind.kind: kind for kind in (
    BadRequest, TooLong, Unauthorised, Forbidden, NotFound, MethodNotAllowed, TimedOut, Conflict, TooLarge,
    UnsupportedMedia, Unsupported, RateLimited, Overloaded, ClientGone, Internal, EngineLost, Unavailable, StoreLost,
    DiskFull)}


def as_fault(error: Exception, request_id: str) -> Fault:
    """What a client is told of any error; what is ours is written to the log in full, with the request's id."""
    if not isinstance(error, Fault):
        _log.error("a request failed: %r", error, exc_info=error, extra={"request_id": request_id})
        return Internal("the server failed")
    if error.row.status >= _OURS_FROM:
        _log.error("%s: %s", error.kind, error, exc_info=error.__cause__, extra={"request_id": request_id})
    return error
