"""What each verb needs of machine and installation, and the form of what is found there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "failure", "unknown"]


@dataclass(frozen=True, slots=True)
class Need:
    """What one verb needs: modules (of the extra that `EXTRAS` names), free memory and free disk in GiB."""

    modules: tuple[str, ...] = ()
    memory_gib: float = 0.25
    disk_gib: float = 0.1


_MODEL = ("torch", "transformers")
_CLEAN = ("ftfy", "regex", "rensa", "polars")
_SCORES = ("sacrebleu", "rouge_score")
_REGISTRY = ("sqlalchemy", "alembic")
RPC = ("grpc", "grpc_health", "grpc_reflection")
"""What `serve --grpc-port` needs besides."""
_SERVE = ("fastapi", "uvicorn", "httptools", "msgpack", "prometheus_client", *_REGISTRY, "argon2")
EXTRAS = {**dict.fromkeys((*_SERVE, *RPC), "serve"), "gguf": "export"}
"""The extra that a module comes with; ``train`` where it is not named."""
NEEDS: dict[str, Need] = {
    "run": Need((*_MODEL, *_CLEAN, *_SCORES, "optuna"), memory_gib=2, disk_gib=1),
    "check": Need(),
    "estimate": Need(_MODEL, memory_gib=0.5),
    "clean": Need(_CLEAN, memory_gib=0.5, disk_gib=0.5),
    "search": Need((*_MODEL, "optuna"), memory_gib=2, disk_gib=0.5),
    "train": Need(_MODEL, memory_gib=2, disk_gib=1),
    "evaluate": Need(_SCORES, memory_gib=1),
    "compress": Need((*_MODEL, *_SCORES), memory_gib=2, disk_gib=1),
    "generate": Need(memory_gib=1),
    "export": Need(("gguf",)),
    "serve": Need(_SERVE, memory_gib=1),
    "edge": Need(memory_gib=1),
    "graph": Need(),
    "models": Need(_REGISTRY),
    "keys": Need((*_REGISTRY, "argon2")),
    "bench": Need(memory_gib=1),
    "sweep": Need(memory_gib=1),
    "report": Need(),
    "doctor": Need(memory_gib=0, disk_gib=0),
}
RUN_MODELS = ("serve", "generate", "evaluate", "bench", "sweep")
"""Verbs that load a model on the engine, so that what it needs can be told."""
OPTIONAL = {"peft": "LoRA", "tensorboard": "TensorBoard curves"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        name: what was looked at.
        status: ``ok``, ``warning``, ``failure``, or ``unknown`` where it cannot be told.
        found: what is there.
        remedy: what to do about it; empty where nothing is to be done.
        blocks: the verbs that cannot run because of it.
        commands: that do it, each a line for a shell; those that begin with ``sudo`` need root.
        settings: of a launch profile that do something about it without root, by their places, such as
            ``program.threads`` or ``process.nice``.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    blocks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model takes when it is served, as whoever runs it accounts for it.

    Attributes:
        model: where it lies; target: what runs it, such as ``native``.
        weight_bytes, work_bytes: of its weights, all in memory, and of the values of its largest step.
        base_bytes: what the process holds beside it.
        token_bytes: of the cache for one token; page_tokens: the cache is lent in pieces of so many.
        cache_tokens: tokens that the cache holds; cache_asked: whether somebody said so.
        longest: tokens of the longest sequence.
        packed: whether a packed file of these weights lies there, so that they can be mapped and not copied.
        load: how weights come into memory, where somebody said so: ``copy``, ``map`` or ``stream``.
        smaller: by what one can do, such as ``--quantise int4``, what the process would take then.
        pack: the command that writes the packed file; empty where the target knows none.
        threads: that compute, where somebody said so.
        nice: priority asked for; limit_bytes: the memory limit asked for.
        connections: that the server takes at once; 0 for verbs that are no servers.
    """

    model: str
    target: str
    weight_bytes: int
    work_bytes: int
    base_bytes: int
    token_bytes: int
    page_tokens: int
    cache_tokens: int
    longest: int
    cache_asked: bool = False
    packed: bool = False
    load: str = "auto"
    smaller: Mapping[str, int] = field(default_factory=dict)
    pack: str = ""
    threads: int | None = None
    nice: int | None = None
    limit_bytes: int | None = None
    connections: int = 0

    @property
    def cache_bytes(self) -> int:
        """Of the cache."""
        return self.cache_tokens * self.token_bytes

    @property
    def fixed_bytes(self) -> int:
        """Of all that is there with an empty cache, and weights in memory."""
        return self.weight_bytes + self.work_bytes + self.base_bytes

    @property
    def process_bytes(self) -> int:
        """Of the whole process."""
        return self.fixed_bytes + self.cache_bytes

    @property
    def least_tokens(self) -> int:
        """The smallest cache worth having: a sequence of 512 tokens, or of the model's length."""
        return min(512, self.longest)
