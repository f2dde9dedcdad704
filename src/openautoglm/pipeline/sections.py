"""Sections of a task file that belong to the pipeline itself; the others are the settings of their rooms."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from openautoglm.core.settings import Settings
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.sources import Format
from openautoglm.pipeline.units import Bytes, Count, Minutes
from openautoglm.train.lora import LoraSettings


class Budget(Settings):
    """What the whole run may cost. Everything left out is set from it."""

    minutes: Minutes = Field(
        default=30.0, description="Wall-clock time of search and training together: minutes, or 25m, 1h30m.")
    trials: int | None = Field(
        default=None, ge=0, description="Trials of the search; 0 switches it off. Left out, the time decides.")
    memory: Bytes | None = Field(
        default=None, description="Memory of a training step, e.g. 2GB. Left out, what the machine has free.")
    parameters: Count | None = Field(
        default=None, description="Most parameters that the model may have, e.g. 30M.")


class TokenizerTask(Settings):
    """Where the tokenizer comes from: trained on the data, or given."""

    vocab_size: Literal["auto"] | int = Field(
        default="auto", description="Entries of the byte-level BPE trained on the training split; "
        "`auto` goes by the amount of text.")
    path: str | None = Field(
        default=None, description="Folder with a tokenizer.json to be used as it is, instead of training one.")

    @field_validator("vocab_size")
    @classmethod
    def _holds_bytes(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 300 <= value <= 200_000:
            raise ValueError("must lie between 300 (bytes and special tokens) and 200000")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizerTask:
        if self.path is not None and self.vocab_size != "auto":
            raise ValueError("vocab_size and path exclude each other: a given tokenizer has its size")
        return self


class ModelTask(Settings):
    """The model: a size from scratch, with its shape overridden at will, or a checkpoint to start from."""

    size: str = Field(
        default="auto", description="`auto` (from data, budget and machine), or a preset: tiny, small, base, "
        "medium, large, or a released shape such as glm-edge-1.5b.")
    family: Literal["glm", "glm4"] | None = Field(
        default=None, description="Architecture: glm (GLM-4-9B, GLM-Edge) or glm4 (GLM-4-0414).")
    hidden_size: int | None = Field(default=None, gt=0, description="Width of the residual stream.")
    layers: int | None = Field(default=None, gt=0, description="Number of layers.")
    heads: int | None = Field(default=None, gt=0, description="Number of query heads.")
    kv_heads: int | None = Field(default=None, gt=0, description="Number of key and value heads.")
    head_dim: int | None = Field(default=None, gt=0, description="Width of one head.")
    ffn_size: int | None = Field(default=None, gt=0, description="Width of the feed-forward.")
    tied: bool | None = Field(default=None, description="Whether the head shares the embedding's weights.")
    max_positions: int | None = Field(
        default=None, gt=0, description="Longest text in tokens; longer examples are counted and left out.")
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout on embedding and residual branches.")
    attention_dropout: float | None = Field(default=None, ge=0, lt=1, description="Dropout on attention weights.")
    checkpoint: str | None = Field(
        default=None, description="Folder of a checkpoint or bundle, or a hub name, whose weights and tokenizer "
        "training starts from.")
    tune: Literal["full", "lora"] = Field(
        default="full", description="With a checkpoint: train all weights, or low-rank adapters that are "
        "merged into the weights at the end.")
    lora: LoraSettings = Field(default_factory=LoraSettings, description="The adapters of `tune: lora`.")
    template: Literal["auto", "glm4", "pair"] = Field(
        default="auto", description="Prompt form: glm4 (released chat checkpoints), pair (compact, from scratch); "
        "`auto`: that of the checkpoint, glm4 for a checkpoint without one, pair from scratch.")
    system: str | None = Field(default=None, description="System text before every prompt.")

    @field_validator("size")
    @classmethod
    def _known_size(cls, value: str) -> str:
        from openautoglm.models.presets import PRESETS

        if value != "auto" and value not in PRESETS:
            raise ValueError(f"there is no size {value!r}; use auto or one of {', '.join(PRESETS)}")
        return value

    @model_validator(mode="after")
    def _checkpoint_has_its_shape(self) -> ModelTask:
        if self.checkpoint is None:
            if self.tune == "lora":
                raise ValueError("tune: lora needs a checkpoint to adapt")
            return self
        given = [name for name in ("size", *_SHAPE) if name in self.model_fields_set]
        if given:
            raise ValueError(f"a checkpoint has its own shape; leave out {', '.join(given)}")
        return self

    @property
    def shape(self) -> dict[str, Any]:
        """The shape as far as it was given, by the names of `GlmSpec`."""
        values = {name: getattr(self, name) for name in _SHAPE}
        return {name: value for name, value in values.items() if value is not None}


_SHAPE = ("family", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "ffn_size", "tied", "max_positions")


class PackedTask(Settings):
    """One packed file: weights as the native engine holds them, so that it starts without converting any.

    In short: `int4` for `{format: int4}`.
    """

    format: Literal["stored", "int8", "int4"] = Field(
        default="stored", description="`stored`: weights as they are, which the engine loads unless it is told "
        "otherwise; int8, int4: for `--quantise`.")
    group: Literal[0, 32, 64, 128] = Field(
        default=32, description="Of int8 and int4: neighbouring input columns that share a scale; 0: a row.")
    symmetric: bool = Field(default=True, description="Of int8 and int4: without a zero point.")
    head: Format = Field(default="int8", description="Of int8 and int4: format of the head.")

    @model_validator(mode="after")
    def _only_recipes_have_groups(self) -> PackedTask:
        if self.format == "stored" and (more := sorted(self.model_fields_set - {"format"})):
            raise ValueError(f"{', '.join(more)}: only with format int8 or int4")
        return self

    def __str__(self) -> str:
        return self.format

    def recipe(self) -> Quantisation | None:
        """How linears are quantised; None: not at all."""
        if self.format == "stored":
            return None
        return Quantisation(format=self.format, group=self.group, symmetric=self.symmetric, head=self.head)


_PACKED_IN_SHORT = ("stored", "int8", "int4")


class ExportTask(Settings):
    """Copies of the bundle (the bundle itself always lies in the run folder), and weights packed for the engine."""

    to: tuple[str, ...] = Field(
        default=(), description="Paths relative to the task file: a folder, or a name ending in .zip, .pkl, or .gguf "
        "for llama.cpp.")
    packed: tuple[PackedTask, ...] = Field(
        default=(PackedTask(),), description="Packed files that the bundle holds beside its weights: `none`, `stored`, "
        "`int8`, `int4`, a section, or a list of these. Each takes about as much disk as the weights in its format. "
        "A compressed bundle gets them too; one that is quantised, in its own bits alone.")

    @field_validator("to", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("packed", mode="before")
    @classmethod
    def _in_short(cls, value: Any) -> Any:
        if value == "none":
            return ()
        many = value if isinstance(value, list | tuple) else (value,)
        if any(not isinstance(item, dict | PackedTask) and item not in _PACKED_IN_SHORT for item in many):
            raise ValueError(f"use none, {', '.join(_PACKED_IN_SHORT)}, a section, or a list of these")
        return tuple({"format": item} if isinstance(item, str) else item for item in many)

    @field_validator("packed")
    @classmethod
    def _each_once(cls, value: tuple[PackedTask, ...]) -> tuple[PackedTask, ...]:
        return tuple(dict.fromkeys(value))
