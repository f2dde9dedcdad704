"""What each verb needs of machine and installation, and the form of what is found there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    blocks: tuple[str, ...] = ()
