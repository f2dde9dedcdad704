"""The options of training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings
from openautoglm.data.pack import Layout
from openautoglm.models.spec import GlmSpec
from openautoglm.train.freeze import FreezeSettings

PRACTICAL = frozenset({"checkpoint_every_minutes", "checkpoint_every_steps", "keep", "tensorboard", "offload"})
"""Settings that change no number; a run may be resumed with others."""
_LATER = {"optimiser_state": "fp32", "freeze": None}
"""Settings that came later, with the value that means what was done before: finished runs stay finished."""


class TrainSettings(Settings):
    """How a model is trained. The first limit reached (`passes`, `tokens`, `minutes`) ends the run.

    A limit in minutes reads the clock and is therefore not reproducible; the others are, bit for bit on CPU.

    Attributes:
        passes: how often every example is seen; fractions allowed.
        tokens: real tokens (prompt, target and specials of each example) to see.
        minutes: time for training itself, validation and checkpoints included.
        batch: size of one optimiser step in `batch_unit`.
        batch_unit: what `batch` counts: examples, or target tokens.
        layout: how a step's examples lie in rows. ``bucket``: one a row, rows of like length together;
            ``packed``: several a row; ``shared``: examples of one source share a single copy of it.
        row_tokens: length of a row of layout ``packed``, or the longest example of the step if that is
        longer.
        references_per_source: in layout ``shared``, at most so many examples of one source in one unit.
        accumulation: batches whose gradients are added up in one optimiser step; less memory, same gradient.
        lr: the highest learning rate.
        schedule: ``cosine`` to `final_lr_ratio` after warm-up, ``wsd`` (constant, then linear over
            `decay_share`), or ``constant``.
        decay_share: share of the run over which ``wsd`` lowers the learning rate at its end.
        final_lr_ratio: the last learning rate, as a share of the highest.
        warmup_share: share of the run over which the learning rate rises.
        weight_decay: AdamW's; never on norms and biases, on embeddings only with `decay_embeddings`.
        decay_embeddings: whether weight decay acts on embeddings too.
        betas: AdamW's decay rates of the gradient's mean and of its square.
        clip_norm: bound of the gradient's norm; None leaves it.
        label_smoothing: share of probability spread over the vocabulary.
        agreement: how strongly a reference is weighted by its agreement with the other references of its source
            (see `data.agreement`); 0 weighs all alike. Around 1 where sources have several references each.
        ema_decay: decay of the averaged weights, which are then validated and kept; it warms up as
            ``(1 + step) / (10 + step)``. None: no average.
        precision: ``auto`` is bf16 where the hardware multiplies bf16, else fp32.
        compile: ``on`` compiles the layers around attention (torch.compile); on 2 cores in fp32 it gained 0 to 11 %
            and took a minute or more. ``auto`` does not compile so far.
        gradient_checkpointing: recompute layers in the backward pass: less memory, more time.
        optimiser_state: ``8bit`` keeps AdamW's two moments in eight bits a value, a quarter of the memory.
        offload: map AdamW's moments to files in the run folder, which the system may write out when memory is short.
        freeze: what does not learn.
        seed: order of the examples and dropout; left out, the task's `seed`.
        validate_every_passes: passes between validations; there is one at the end always.
        valid_rows: examples of the validation set that are used, evenly spaced; None for all.
        best_by: ``valid_loss`` or a metric which the validation hook returns.
        best_mode: whether the best is the smallest or the greatest; auto: smallest for ``valid_loss`` only.
        patience: validations without a new best after which training ends; None never ends early.
        checkpoint_every_minutes: minutes between checkpoints; None: none by the clock.
        checkpoint_every_steps: steps between checkpoints; None: none by steps.
        keep: checkpoints kept.
        tensorboard: write curves for TensorBoard, where it is installed.
    """

    passes: float | None = Field(default=4.0, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    batch: int = Field(default=64, gt=0)
    batch_unit: Literal["rows", "target_tokens"] = "rows"
    layout: Layout = "bucket"
    row_tokens: int = Field(default=256, gt=0)
    references_per_source: int = Field(default=4, gt=0)
    accumulation: int = Field(default=1, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    decay_share: float = Field(default=0.2, gt=0, le=1)
    final_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    decay_embeddings: bool = False
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float | None = Field(default=1.0, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    agreement: float = Field(default=0.0, ge=0, le=3)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    gradient_checkpointing: bool = False
    optimiser_state: Literal["fp32", "8bit"] = "fp32"
    offload: bool = False
    freeze: FreezeSettings | None = None
    seed: int = Field(default=0, ge=0)
    validate_every_passes: float = Field(default=1.0, gt=0)
    valid_rows: int | None = Field(default=1024, gt=0)
    best_by: str = "valid_loss"
    best_mode: Literal["auto", "min", "max"] = "auto"
    patience: int | None = Field(default=None, gt=0)
    checkpoint_every_minutes: float | None = Field(default=5.0, gt=0)
    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    keep: int = Field(default=2, gt=0)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainSettings:
        if self.passes is None and self.tokens is None and self.minutes is None:
            raise ValueError("one of passes, tokens or minutes must be set, or training never ends")
        return self

    @property
    def smaller_is_better(self) -> bool:
        """Whether the best value of `best_by` is the smallest."""
        return self.best_mode == "min" or (self.best_mode == "auto" and self.best_by == "valid_loss")

    def memory(self, spec: GlmSpec) -> dict[str, Any]:
        """What freezing and the optimiser's state change in `GlmSpec.training_memory_bytes`; gradual thawing ends with
        everything."""
        state = 0.0 if self.offload else 2.05 if self.optimiser_state == "8bit" else 8.0
        freeze = self.freeze
        if freeze is None or freeze.unfreeze is not None:
            return {"state_bytes": state}
        frozen = spec.frozen_parameters(freeze.layers, embeddings=freeze.freezes_embeddings)
        return {"state_bytes": state, "trainable": spec.parameters - frozen,
                "frozen_layers": freeze.layers if freeze.freezes_embeddings else 0}

    def numeric(self) -> dict[str, Any]:
        """Return the settings that change the numbers of a run, as JSON holds them."""
        numbers = self.model_dump(mode="json", exclude=set(PRACTICAL))
        if self.freeze is not None:
            numbers["freeze"] = self.freeze.model_dump(mode="json", exclude={"cache_gib"})
        return {name: value for name, value in numbers.items() if name not in _LATER or value != _LATER[name]}
