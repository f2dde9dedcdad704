"""What the gRPC server is made of, and what its methods know of a call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.rights import Scope, Who
from openautoglm.serve.rpc.settings import RpcSettings
from openautoglm.serve.service.models import Models, Repository
from openautoglm.serve.service.values import Caller
from openautoglm.serve.wire.asks import GenerationAsk
from openautoglm.serve.wire.limits import Limits

AnAsk = TypeVar("AnAsk", bound=GenerationAsk)
_LEAST_S = 0.001


class Figures(Protocol):
    """Counts calls."""

    def rpc(self, service: str, method: str, code: str, seconds: float) -> None:
        """A call was answered; service and method are known names and nothing that a client made up."""


@dataclass(frozen=True)
class Serving:
    """What one gRPC server is made of.

    Attributes:
        models: what it serves.
        figures: told of every call.
        guard: tells who calls.
        limits: on what is asked.
        repository: loads and unloads models; None where there is one for good.
    """

    models: Models
    figures: Figures | None = None
    guard: Guard = field(default_factory=lambda: Guard(None))
    settings: RpcSettings = field(default_factory=RpcSettings)
    limits: Limits = field(default_factory=Limits)
    repository: Repository | None = None


@dataclass(frozen=True)
class Call:
    """One call that was let in.

    Attributes:
        caller: who asks, for the service.
        who: the same for the guard.
        left_s: seconds until the client's deadline; None where it has none.
    """

    caller: Caller
    who: Who
    left_s: Callable[[], float | None]

    def in_time(self, ask: AnAsk, limits: Limits) -> AnAsk:
        """The ask with what the client's deadline leaves of its time."""
        left_s = self.left_s()
        if left_s is None:
            return ask
        allowed_s = min(left_s, ask.timeout_s or limits.timeout_s)
        return ask.model_copy(update={"timeout_s": max(_LEAST_S, allowed_s)})


Answer = Callable[[Any, Call], AsyncGenerator[Any, None]]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        service, name: as in its .proto file.
        request: class of its messages.
        answer: yields replies to a message; of a method that takes a stream, to an iterator of messages.
        scope: that its callers need; None for none.
        many: whether it takes a stream.
    """

    service: str
    name: str
    request: Any
    answer: Answer
    scope: Scope | None = "infer"
    many: bool = False

    @property
    def path(self) -> str:
        """As calls name it."""
        return f"/{self.service}/{self.name}"


def methods_of(service: Any, answers: Mapping[str, Answer], *, scopes: Mapping[str, Scope | None] | None = None,
               classes: Callable[[Any], Any]) -> Sequence[Method]:
    """The methods of a service, each with its answer and scope (`infer` where none is named).

    Args:
        service: descriptor.
        classes: gives the class of a message by its descriptor.
    """
    return [Method(service.full_name, method.name, classes(method.input_type), answers[method.name],
                   (scopes or {}).get(method.name, "infer"), method.client_streaming) for method in service.methods]
