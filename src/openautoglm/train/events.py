"""What a training run tells its consumer after every optimiser step, and what it remembers of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One optimiser step.

    Attributes:
        step: steps done, from 1.
        passes: passes over the data done.
        progress: share of the run done, 0 to 1, by the nearest limit.
        tokens: real tokens seen so far (prompt, target and specials of every example).
        target_tokens: tokens that carried loss so far.
        loss: the step's objective per target token, in nats (label smoothing included).
        nll: the step's negative log likelihood per target token, in nats.
        lr: the learning rate used.
        grad_norm: norm of the gradient before clipping.
        tokens_per_s: real tokens per second of training proper, lately.
        elapsed_s: seconds of the run so far, earlier sittings included.
        left_s: seconds left at the present rate.
        valid_loss: negative log likelihood per target token of validation, where this step was followed by
        one.
        metrics: what the validation hook returned.
        best: whether this validation is the best so far.
    """

    step: int
    passes: float
    progress: float
    tokens: int
    target_tokens: int
    loss: float
    nll: float
    lr: float
    grad_norm: float
    tokens_per_s: float
    elapsed_s: float
    left_s: float
    valid_loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: bool = False


@dataclass(slots=True)
class RunState:
    """Where a run stands; everything a resumed run needs besides the tensors. All of it is JSON."""

    step: int = 0
    pass_number: int = 0
    step_in_pass: int = 0
    tokens: int = 0
    target_tokens: int = 0
    elapsed_s: float = 0.0
    validations: int = 0
    best_value: float | None = None
    best_step: int | None = None
    worse_in_a_row: int = 0
    finished: bool = False
    thawed: int = 0
