"""The options of pruning and of the training that follows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings

Form = Literal["structured", "unstructured", "2:4", "4:8"]
Score = Literal["l1", "l2", "wanda", "gradient", "random", "sparsegpt"]
NEEDS_DATA = frozenset({"wanda", "gradient", "sparsegpt"})


class RecoverSettings(Settings):
    """The training after pruning: the parent's own settings, shorter and gentler.

    Attributes:
        passes: how often every example is seen after the last step; 0 trains nothing.
        step_passes: the same after each earlier step of a gradual schedule.
        batch: examples of one optimiser step.
        lr: the highest learning rate; None: `lr_ratio` of the parent's.
        lr_ratio: share of the learning rate that the parent was trained with.
        ema_decay: decay of the averaged weights, which are kept; None: no average.
        label_smoothing: None: the parent's.
        dropout: on embedding and residual branches.
        checkpoint_every_minutes: minutes between checkpoints.
    """

    passes: float = Field(default=3.0, ge=0)
    step_passes: float = Field(default=0.5, ge=0)
    batch: int = Field(default=32, gt=0)
    lr: float | None = Field(default=None, gt=0)
    lr_ratio: float = Field(default=0.5, gt=0, le=1)
    ema_decay: float | None = Field(default=0.99, gt=0, lt=1)
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    checkpoint_every_minutes: float = Field(default=2.0, gt=0)


class PruneSettings(Settings):
    """What is removed, how it is chosen, and how the model recovers.

    Attributes:
        form: ``structured`` takes out heads, feed-forward channels and layers, so that the model is smaller and faster
            everywhere; the others set single weights of the layers' matrices to zero: any (``unstructured``), or two
            of four and four of eight neighbours in a row.
        score: by what the least important is found. ``l1``, ``l2``: the size of the weights; ``wanda``: weights times
            the norm of their inputs; ``gradient``: how the loss would change, to first order; ``random``;
            ``sparsegpt`` (single weights only): by the error that the other weights cannot make good, which they do.
        sparsity: share to remove: of feed-forward channels and of heads, or of single weights. Where `form` is a
            pattern, that alone counts.
        ffn, heads: that share for channels and for heads alone; None: `sparsity`.
        layers: share of whole layers to remove, those that change their input least.
        heads_by: ``groups``: whole kv heads with the query heads that share them; ``queries``: as many query heads of
            each group; ``auto``: what comes nearest to the asked share, groups where both do.
        multiple: what stays of the channels is a multiple of it, so that groups of quantised weights fit.
        compare: among which weights single ones are chosen: those of a row, of a matrix, or all (``global``); auto:
            rows for wanda, else matrices. Structured removal takes as many of every layer, so that all have one shape.
        compensate: structured: give the weights that stay the least-squares values for the outputs of before.
        rows: examples that importance is measured on.
        steps: 1 prunes at once; more reach the share in so many steps, the first ones larger, training after each.
        damping: share of the mean added to the diagonal of a Hessian before it is inverted.
        block: columns that sparsegpt works on at a time.
        seed: of the random score.
        recover: the training that follows.
    """

    method: Literal["prune"] = "prune"
    form: Form = "structured"
    score: Score = "gradient"
    sparsity: float = Field(default=0.4, gt=0, lt=1)
    ffn: float | None = Field(default=None, ge=0, lt=1)
    heads: float | None = Field(default=None, ge=0, lt=1)
    layers: float = Field(default=0.0, ge=0, lt=1)
    heads_by: Literal["auto", "groups", "queries"] = "auto"
    multiple: int = Field(default=32, gt=0)
    compare: Literal["auto", "row", "matrix", "global"] = "auto"
    compensate: bool = False
    rows: int = Field(default=256, gt=0)
    steps: int = Field(default=1, ge=1, le=100)
    damping: float = Field(default=0.01, gt=0, le=1)
    block: int = Field(default=128, gt=0)
    seed: int = Field(default=0, ge=0)
    recover: RecoverSettings = Field(default_factory=RecoverSettings)

    @model_validator(mode="after")
    def _fits_together(self) -> PruneSettings:
        structured = self.form == "structured"
        if structured and self.score == "sparsegpt":
            raise ValueError("score sparsegpt chooses single weights: give form unstructured, 2:4 or 4:8")
        if self.compare != "auto" and (structured or self.pattern is not None or self.score == "sparsegpt"):
            raise ValueError(f"compare {self.compare} does not go with form {self.form} and score {self.score}: "
                             "leave compare out")
        if self.compare == "global" and self.score == "wanda":
            raise ValueError("score wanda compares inside a row or a matrix: give compare row or matrix")
        if self.compensate and not structured:
            raise ValueError("compensate goes with form structured; score sparsegpt does it for single weights")
        if self.pattern is not None and self.steps > 1:
            raise ValueError(f"the pattern {self.form} is reached in one step: leave steps out")
        if not structured and (self.layers or self.ffn is not None or self.heads is not None):
            raise ValueError(f"ffn, heads and layers go with form structured, not {self.form}")
        return self

    @property
    def pattern(self) -> tuple[int, int] | None:
        """How many of how many neighbours are zero; None without a pattern."""
        if ":" not in self.form:
            return None
        zeros, of = self.form.split(":")
        return int(zeros), int(of)

    @property
    def ffn_share(self) -> float:
        """Share of the channels to remove."""
        return self.sparsity if self.ffn is None else self.ffn

    @property
    def head_share(self) -> float:
        """Share of the heads to remove."""
        return self.sparsity if self.heads is None else self.heads

    @property
    def needs_data(self) -> bool:
        """Whether importance is measured on examples."""
        return self.score in NEEDS_DATA or self.compensate or (self.layers > 0 and self.score != "random")

    def share_after(self, step: int) -> float:
        """What share of the removal is done after `step` of `steps`: cubic (Zhu and Gupta 2017, arXiv 1710.01878)."""
        return 1.0 - (1.0 - step / self.steps) ** 3
