"""A recipe: which compressions in which order, under which targets; a YAML file or options of the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.settings import AwqSettings, GptqSettings, MixedSettings, RtnSettings
from openautoglm.core.errors import Fault, TaskError
from openautoglm.core.settings import Settings
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.pipeline.distilltask import DistilSettings
from openautoglm.pipeline.faults import faults_of
from openautoglm.pipeline.positions import Document, parse
from openautoglm.pipeline.units import Bytes


class KvSettings(Settings):
    """Keys and values in fewer bits: the card recommends it, and the engine does so where it is not told otherwise."""

    method: Literal["kv"] = "kv"
    format: Literal["int8", "bf16"] = Field(default="int8", description="Of keys and values in the cache.")


class MergeLoraSettings(Settings):
    """Low-rank adapters, as peft writes them, added into the weights."""

    method: Literal["merge-lora"] = "merge-lora"
    adapter: str = Field(description="Folder with adapter_config.json and adapter_model.safetensors; a relative path "
                         "is looked for beside the recipe.")


class DistilStep(DistilSettings):
    """A smaller student of the bundle, trained as the bundle itself was, with the bundle as its teacher."""

    passes: float | None = Field(default=None, gt=0, description="Over the examples; the bundle's own when null.")
    lr: float | None = Field(default=None, gt=0, description="Highest learning rate; the bundle's own when null.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of the student.")


QUANTISING = (RtnSettings, GptqSettings, AwqSettings, MixedSettings)
Step = Annotated[RtnSettings | GptqSettings | AwqSettings | MixedSettings | PruneSettings | DistilStep | KvSettings
                 | MergeLoraSettings, Field(discriminator="method")]


def in_short(value: Any) -> Any:
    """``gptq``, ``auto`` or a list of steps is short for ``{recipe: ...}``."""
    return {"recipe": value} if isinstance(value, str | list) else value


def _named(value: Any) -> Any:
    """``gptq`` is short for ``{method: gptq}``, one step for a list of it."""
    if value == "auto":
        return value
    many = value if isinstance(value, list | tuple) else (value,)
    return tuple({"method": one} if isinstance(one, str) else one for one in many)


class Recipe(Settings):
    """What shall be done to a bundle, and what it must still be worth.

    The targets bind `recipe: auto`; with steps of your own they are checked at the end, and misses are told.
    """

    recipe: Annotated[Literal["auto"] | tuple[Step, ...], BeforeValidator(_named)] = Field(
        default="auto", description="Steps in their order, or `auto` to try some and choose.")
    quality: float = Field(default=0.98, gt=0, le=1.5,
                           description="Share of the parent's metric that must be kept (of a metric where less is "
                           "better, its inverse).")
    metric: str | None = Field(default=None, description="Metric of the task that counts; left out, bleu where answers "
                               "are generated (in a task file: `evaluate.choose_by`), perplexity for plain text.")
    memory: Bytes | None = Field(default=None, description="Peak memory of serving at most.")
    bundle_size: Bytes | None = Field(default=None, description="Bytes of the bundle at most.")
    tokens_per_s: float | None = Field(default=None, gt=0, description="Tokens a second at batch 1, at least.")
    memory_limit: Bytes | None = Field(default=None, description="Memory of the compression itself.")
    cases: int | None = Field(default=300, gt=0, description="Records on which the metric is measured; all when null.")
    texts: int = Field(default=128, gt=0, description="Texts on which divergence and perplexity are measured.")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="How metrics are computed; in a "
                                      "task file as its section `evaluate` says where nothing is given here.")
    calibration: int = Field(default=512, gt=0, description="Records that are given to methods that look at data.")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, key: str | None) -> str | None:
        from openautoglm.evaluate.registry import METRICS

        if key is not None and key not in METRICS:
            raise ValueError(f"no metric {key!r}; there are {', '.join(METRICS)}")
        return key

    @field_validator("recipe")
    @classmethod
    def _in_order(cls, steps: Literal["auto"] | tuple[Step, ...]) -> Literal["auto"] | tuple[Step, ...]:
        if steps == "auto":
            return steps
        if not steps:
            raise ValueError("a recipe has at least one step, or is auto")
        quantised = [number for number, step in enumerate(steps) if isinstance(step, QUANTISING)]
        if len(quantised) > 1:
            raise ValueError("weights are quantised once; keep one of rtn, gptq, awq and mixed")
        if quantised and any(not isinstance(step, KvSettings) for step in steps[quantised[0] + 1:]):
            last = steps[quantised[0]].method
            raise ValueError(f"after {last} only kv can follow: put pruning, distilling and merging before it")
        return steps


def load_recipe(path: str | Path, given: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file; `given` options stand in place of its keys.

    Raises:
        TaskError: the file cannot be read, or has faults; ``faults`` holds all of them.
    """
    path = Path(path)
    try:
        document = parse(path.read_bytes())
    except OSError as error:
        raise TaskError(f"the recipe cannot be read: {error.strerror}", where=str(path),
                        remedy="check the path") from error
    if isinstance(document.value, dict) and given:
        document = Document(value={**document.value, **given}, faults=document.faults)
    return _validated(document, str(path))


def make_recipe(value: Mapping[str, Any]) -> Recipe:
    """A recipe of a mapping with the keys of a recipe file.

    Raises:
        TaskError: it has faults.
    """
    return _validated(Document(value=dict(value)), "recipe")


def _validated(document: Document, where: str) -> Recipe:
    faults: list[Fault] = list(document.faults)
    if not faults and not isinstance(document.value, dict):
        faults.append(Fault("recipe", *document.mark(()), "a recipe file is a mapping", "start with `recipe:`"))
    if not faults:
        try:
            return Recipe.model_validate(document.value)
        except ValidationError as error:
            faults = list(faults_of(error, document, Recipe))
    count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
    raise TaskError(f"{count} in the recipe", where=where, faults=tuple(faults),
                    remedy="correct the lines named; docs/compress.md lists methods and keys")


def steps_of(recipe: Recipe) -> Sequence[Step]:
    """The steps of a recipe that is not ``auto``."""
    return () if recipe.recipe == "auto" else recipe.recipe
