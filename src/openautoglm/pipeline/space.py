"""Which dimensions the search opens around a plan, and what a point of it means.

Whatever a task sets explicitly is fixed; the rest varies around the plan's value.
"""

from __future__ import annotations

from typing import Any

from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.plan import Plan, shaped
from openautoglm.pipeline.task import Task
from openautoglm.search.space import Choice, Derived, Dim, Fixed, Float, Int, Point, Space

_TRAINING = ("lr", "batch", "label_smoothing", "weight_decay", "schedule")
_HEAD_DIMS = (128, 64, 32, 16, 8)


def space_of(task: Task, plan: Plan) -> Space:
    """The space around `plan`; the search room puts the task's own dimensions (``search.space``) in place."""
    spec, train = plan.spec, plan.train
    step = max(16, _power_of_two(spec.hidden_size // 8))
    dims: dict[str, Dim] = {
        "vocab_size": _vocabularies(spec.vocab_size),
        "layers": Int(max(1, spec.layers // 2), spec.layers * 3 // 2 + 1),
        "hidden_size": Int(max(step, _multiple(spec.hidden_size * 0.6, step)),
                           _multiple(spec.hidden_size * 1.4, step), step=step),
        "heads": Derived(lambda point: head_counts(int(point["hidden_size"]), spec.head_dim)),
        "kv_heads": Derived(lambda point: divisors(int(point["heads"]))),
        "ffn_ratio": Float(1.5, 4.0),
        "dropout": Float(0.0, 0.3),
        "lr": Float(train.lr / 3, train.lr * 3, log=True),
        "batch": Choice(tuple(size for size in (train.batch // 2, train.batch, train.batch * 2) if size)),
        "label_smoothing": Float(0.0, 0.2),
        "weight_decay": Float(0.01, 0.3, log=True),
        "schedule": Choice(("cosine", "wsd")),
    }
    return Space({**dims, **_fixed(task, plan)})


def _fixed(task: Task, plan: Plan) -> dict[str, Dim]:
    fixed: dict[str, Dim] = {}
    if task.tokenizer.path is not None or task.tokenizer.vocab_size != "auto":
        fixed["vocab_size"] = Fixed(plan.spec.vocab_size)
    for name in ("layers", "hidden_size", "heads", "kv_heads"):
        if getattr(task.model, name) is not None:
            fixed[name] = Fixed(getattr(plan.spec, name))
    if task.model.ffn_size is not None:
        fixed["ffn_ratio"] = Fixed(plan.spec.ffn_size / plan.spec.hidden_size)
    if task.model.dropout is not None:
        fixed["dropout"] = Fixed(plan.dropout)
    for name in _TRAINING:
        if name in task.train.model_fields_set:
            fixed[name] = Fixed(getattr(plan.train, name))
    return fixed


def plan_at(plan: Plan, point: Point) -> Plan:
    """The plan with the values of a point in place; the vocabulary is the tokenizer's business.

    Raises:
        TaskError: the shape at this point cannot be built.
    """
    hidden, heads = int(point["hidden_size"]), int(point["heads"])
    shape: dict[str, Any] = {
        "layers": int(point["layers"]),
        "hidden_size": hidden,
        "heads": heads,
        "kv_heads": int(point["kv_heads"]),
        "head_dim": max(2, hidden // heads // 2 * 2),
        "ffn_size": max(8, round(float(point["ffn_ratio"]) * hidden / 8) * 8),
    }
    train = plan.train.model_validate({**plan.train.model_dump(), **{name: point[name] for name in _TRAINING}})
    return plan.model_copy(
        update={"spec": shaped(plan.spec, shape), "train": train, "dropout": float(point["dropout"])}
    )


def with_vocabulary(plan: Plan, size: int, *, pad_id: int | None, eos_ids: tuple[int, ...]) -> Plan:
    """The plan for another tokenizer."""
    return plan.model_copy(update={"spec": plan.spec.with_vocabulary(size, pad_id=pad_id, eos_ids=eos_ids)})


def head_counts(hidden: int, planned_dim: int) -> list[int]:
    """Numbers of heads whose width is a usual one near the planned, fewest first; at least one."""
    counts = sorted({hidden // dim for dim in (*_HEAD_DIMS, planned_dim)
                     if planned_dim // 2 <= dim <= planned_dim * 2 and hidden % dim == 0})
    return counts or [1]


def divisors(number: int) -> list[int]:
    """The divisors of a number, smallest first."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def training_flops(spec: GlmSpec) -> int:
    """Operations that one training token costs."""
    return spec.training_flops_per_token()


def _vocabularies(planned: int) -> Choice:
    return Choice(tuple(sorted({max(320, planned // 2), planned, planned * 2})))


def _multiple(value: float, step: int) -> int:
    return max(step, round(value / step) * step)


def _power_of_two(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)
