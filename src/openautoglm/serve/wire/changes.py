"""What an administrator may ask for: changes of models. No field holds a path."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from openautoglm.serve.wire.fields import Ask, Flag, Int, Text

Number = Annotated[Int, Field(ge=1, lt=10**9)]
Weight = Annotated[Int, Field(ge=1, le=10_000)]


class AliasAsk(Ask):
    """The version that an alias is to point at."""

    version: Number


class StageAsk(Ask):
    """The stage that a version is to have."""

    stage: Literal["none", "staging", "production", "archived"]


class RouteAsk(Ask):
    """How the traffic of a model is to be split.

    Attributes:
        weights: of versions, by number; only their proportion counts.
        baseline: the version that the others are compared with; that of the greatest weight where left out.
    """

    weights: dict[Annotated[Text, Field(pattern=r"^[1-9][0-9]{0,8}$")], Weight] = Field(min_length=1, max_length=16)
    baseline: Number | None = None


class LoadAsk(Ask):
    """A version that is to be in memory, on all servers of the registry.

    Attributes:
        version: the one that answers for the plain name where left out.
        pin: never unload it to make room; as it was where left out.
    """

    version: Number | None = None
    pin: Flag | None = None


class UnloadAsk(Ask):
    """A version that is not to be in memory.

    Attributes:
        version: the one that answers for the plain name where left out.
        lazy: only take back what was wished for: it is loaded on first use again.
    """

    version: Number | None = None
    lazy: Flag | None = None


class IndexAsk(Ask):
    """Which versions to list: all, or those that are ready (`ready`)."""

    ready: Flag | None = None


class RepositoryParameters(Ask):
    """Parameters that clients of the protocol send; of no effect."""

    unload_dependents: Flag | None = None


class RepositoryAsk(Ask):
    """The Open Inference Protocol's request to load or unload; it cannot bring a configuration or files."""

    parameters: RepositoryParameters | None = None
