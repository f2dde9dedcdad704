"""The ``distill`` and ``self_distill`` sections, and distillation as a step of a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings
from openautoglm.engine.sampling import Sampling
from openautoglm.models.spec import GlmSpec
from openautoglm.train.distil_settings import DistilLoss


class SelfDistillTask(Settings):
    """Sequence-level self-distillation (Kim and Rush 2016, arXiv 1606.07947): what beams find, greedy learns.

    After training, the model writes candidates for every training source; the best one of each becomes its target, and
    the model learns these. Its time comes on top of `budget.minutes`.
    """

    enabled: bool = Field(default=False, description="Whether to do it at all. The data needs sources.")
    decoding: Sampling = Field(
        default_factory=lambda: Sampling(num_beams=10, n=10),
        description="How candidates are written; `choose` is not read here.")
    choose: Literal["consensus", "references"] = Field(
        default="references", description="Which candidate becomes the target, among those that cover the record best: "
        "the one most like the `references` of its source, or the one most like the other candidates.")
    sources: int = Field(
        default=20_000, gt=0, description="At most so many training sources, evenly spaced.")
    passes: float = Field(default=3.0, gt=0, description="How often each new target is seen.")
    batch: int = Field(default=32, gt=0, description="Examples of one optimiser step.")
    lr_ratio: float = Field(default=0.25, gt=0, le=1, description="Learning rate, as a share of training's.")
    ema_decay: float = Field(default=0.99, gt=0, lt=1, description="Decay of the averaged weights, which are kept.")


class Responses(Settings):
    """Texts that the teacher writes for the training sources, as targets of the student (Kim and Rush 2016)."""

    use: Literal["off", "added", "only"] = Field(
        default="off", description="`only`: the student learns them in place of the data's targets; `added`: both.")
    decoding: Sampling = Field(
        default_factory=lambda: Sampling(num_beams=10, n=10),
        description="How candidates are written; `choose` is not read here.")
    choose: Literal["consensus", "references"] = Field(
        default="references", description="Which candidate becomes the target, among those that cover the record best.")
    sources: int = Field(
        default=20_000, gt=0, description="At most so many training sources, evenly spaced.")


class DistilCore(DistilLoss):
    """What a student learns of its teacher: distribution, hidden states, texts, and what it begins with."""

    initialise: Literal["auto", "teacher", "fresh"] = Field(
        default="auto", description="Whether the student begins with weights cut out of the teacher's; `auto`: where "
        "it is nowhere larger, and does not start from a checkpoint.")
    responses: Responses = Field(
        default_factory=Responses, description="Texts of the teacher as targets.")


class StudentShape(Settings):
    """The student, where it differs from its teacher."""

    layers: int | None = Field(
        default=None, gt=0, description="Number of layers; half of the teacher's if nothing is given.")
    hidden_size: int | None = Field(default=None, gt=0, description="Width of the residual stream.")
    heads: int | None = Field(default=None, gt=0, description="Number of query heads.")
    kv_heads: int | None = Field(default=None, gt=0, description="Number of key and value heads.")
    head_dim: int | None = Field(default=None, gt=0, description="Width of one head.")
    ffn_size: int | None = Field(default=None, gt=0, description="Width of the feed-forward.")
    tied: bool | None = Field(default=None, description="Whether the head shares the embedding's weights.")

    def of(self, teacher: GlmSpec) -> dict[str, Any]:
        """What differs, by the names of `GlmSpec`."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return given or {"layers": max(1, teacher.layers // 2)}


class DistilSettings(DistilCore):
    """A step of a recipe: a smaller student of the bundle."""

    method: Literal["distill"] = "distill"
    student: StudentShape = Field(default_factory=StudentShape, description="The student's shape.")


class DistilTask(DistilCore):
    """Training with a teacher: the model of the task is its student."""

    teacher: str | None = Field(
        default=None, description="Folder of the teacher's bundle, relative to the task file. The student takes its "
        "tokenizer and, if not told otherwise, its prompt form.")

    @model_validator(mode="after")
    def _has_a_teacher(self) -> DistilTask:
        if self.teacher is None and self.model_fields_set:
            raise ValueError("distillation needs a teacher: give distill.teacher, the folder of a bundle")
        return self
