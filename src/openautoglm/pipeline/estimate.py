"""What a run will cost, from a sample of its rows: tokens, lengths, model, minutes, memory, disk."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from openautoglm.core.hardware import Machine
from openautoglm.core.values import Example
from openautoglm.data.pack import collate, plan_pass
from openautoglm.data.tokens import store_from_ids
from openautoglm.models.card import read_card
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.compressing.auto import ways
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.estimating.cost import Cost
from openautoglm.pipeline.estimating.training import training_cost
from openautoglm.pipeline.facts import DataFacts, MachineFacts, machine_facts
from openautoglm.pipeline.material import (
    checkpoint_spec,
    max_positions,
    source_of_tokenizer,
    teacher_folder,
    template_of,
)
from openautoglm.pipeline.plan import Plan, auto_vocabulary, resolve
from openautoglm.pipeline.units import bytes_text, minutes_text
from openautoglm.text.template import Encoded
from openautoglm.text.tokenizer import Tokenizer
from openautoglm.train.footprint import Step, Training, lora_parameters
from openautoglm.train.settings import TrainSettings

if TYPE_CHECKING:
    from openautoglm.pipeline.check import Status

_LONG_RATIO = 0.01
"""Share of examples longer than the model's positions above which packing refuses to start."""


class Rows(NamedTuple):
    """Sampled examples of a split, how many rows its files hold in all, and how many share a source."""

    examples: list[Example]
    rows: int
    per_source: float = 1.0

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the sampled texts."""
        return sum(len(text.encode("utf-8", "replace")) for example in self.examples
                   for text in (example.source, example.target))


@dataclass(frozen=True)
class Estimate:
    """The plan of a run on sampled data, and its costs.

    Attributes:
        plan: the settings that the run would take.
        data: facts of the data, scaled up from the sample.
        overlong_ratio: share of sampled examples longer than `positions`.
        cost: memory and time of training.
        disk_bytes: of the run folder; disk_free_bytes: what there is.
    """

    plan: Plan
    data: DataFacts
    positions: int
    overlong_ratio: float
    cost: Cost
    disk_bytes: int
    disk_free_bytes: int

    @property
    def minutes(self) -> float:
        """Of training; 0 where it has no end."""
        return (self.cost.seconds or 0.0) / 60

    def lines(self) -> list[tuple[str, str, Status, str]]:
        """The estimate as lines of the table: what, value, status, remedy."""
        spec, train, search = self.plan.spec, self.plan.train, self.plan.search
        long_faulty = self.overlong_ratio > _LONG_RATIO
        lines: list[tuple[str, str, Status, str]] = [
            ("tokens", f"about {self.data.train_tokens:,} a pass, vocabulary {self.data.vocab_size:,}", "ok", ""),
            ("lengths", f"longest sampled example {self.data.longest:,} of {self.positions:,} tokens"
             + (f"; {self.overlong_ratio:.1%} are longer" if self.overlong_ratio else ""),
             "fault" if long_faulty else "ok", "raise model.max_positions, or drop long rows with the rule `length`"
             if long_faulty else ""),
            ("model", f"{spec.parameters:,} parameters: {spec.layers} layers of width {spec.hidden_size}, "
             f"{spec.heads}/{spec.kv_heads} heads", "ok", ""),
            ("training", f"{train.passes or '?'} passes, batch {train.batch}, learning rate {train.lr:g}", "ok", ""),
            ("time", f"about {minutes_text(self.minutes)} of training"
             + (f" after {minutes_text(search.minutes)} of search" if search.trials else ", no search"), "ok", "")]
        for what, needed, there, remedy in (
                ("memory", self.cost.peak_bytes, self.cost.limit_bytes, self.cost.remedy),
                ("disk", self.disk_bytes, self.disk_free_bytes, "choose another output folder")):
            short = needed > there
            lines.append((what, f"about {bytes_text(needed)} of {bytes_text(there)}", "fault" if short else "ok",
                          remedy if short else ""))
        return lines


def estimate(run: Run, sample: Rows, machine: Machine) -> Estimate:
    """Estimate a run from sampled training rows.

    Raises:
        TaskError, SpecError, BundleError: no plan can be made.
    """
    given = source_of_tokenizer(run)
    scale = sample.rows / len(sample.examples)
    text_bytes = int(sample.text_bytes * scale)
    asked = run.task.tokenizer.vocab_size
    size = auto_vocabulary(text_bytes) if asked == "auto" else int(asked)
    examples = sample.examples
    tokenizer = Tokenizer.load(given) if given else Tokenizer.train(
        (text for example in examples for text in (example.source, example.target)), size)
    template, positions = template_of(run), max_positions(run)
    encoded = template.encode_many(examples, tokenizer)
    lengths = [len(item.ids) for item in encoded]
    kept = [item for item in encoded if len(item.ids) <= positions] or encoded
    split = run.task.clean.split
    share = 1 - sum(getattr(split, name) for name in ("valid", "test") if not getattr(run.task.data, name))
    data = DataFacts(
        train_rows=max(1, int(sample.rows * share)), valid_rows=max(1, int(sample.rows * max(split.valid, 0.01))),
        train_tokens=max(1, int(sum(len(item.ids) for item in kept) * scale * share)),
        target_tokens=int(sum(len(item.ids) - item.prompt_tokens for item in kept) * scale * share),
        longest=max(lengths), overlong=0, vocab_size=tokenizer.vocab_size if given else size,
        paired=any(example.source for example in examples))
    with tempfile.TemporaryDirectory() as scratch:
        limits = machine_facts(machine, run.task.budget.memory, Path(scratch))
    special = {"pad_id": tokenizer.pad_id, "eos_ids": template.stop_ids(tokenizer)}
    if not given:  # a tokenizer of a sample may be smaller than the one that the run will train
        special = {"pad_id": None, "eos_ids": ()}
    plan = resolve(run.task, data, limits, given=checkpoint_spec(run), **special)  # type: ignore[arg-type]
    return _costs(run, plan, data, limits, machine, kept,
                  sum(length > positions for length in lengths) / len(lengths), positions, text_bytes,
                  sample.per_source)


def _step(settings: TrainSettings, kept: list[Encoded]) -> Step:
    """The largest forward pass of a pass over the sampled examples, laid out as training lays them out."""
    store = store_from_ids((item.ids, item.prompt_tokens) for item in kept)
    steps = plan_pass(store, settings.layout, seed=0, number=0, batch=settings.batch, batch_unit=settings.batch_unit,
                      references_per_source=settings.references_per_source)
    batches = [batch for units in steps for batch in collate(
        store, units, settings.layout, row_tokens=settings.row_tokens, parts=settings.accumulation)]
    largest = max(batches, key=lambda batch: batch.computed_tokens)
    return Step(largest.computed_tokens, len(np.unique(largest.rows)), len(largest.blocks))


def _padding(step: Step, settings: TrainSettings, mean: float) -> float:
    """Computed tokens for each real one, at least one."""
    if settings.batch_unit != "rows" or settings.layout != "bucket":
        return 1.0
    return max(1.0, min(1.5, step.tokens * settings.accumulation / (settings.batch * mean)))


def _costs(run: Run, plan: Plan, data: DataFacts, limits: MachineFacts, machine: Machine, kept: list[Encoded],
           overlong_ratio: float, positions: int, text_bytes: int, per_source: float) -> Estimate:
    spec, train = plan.spec, plan.train
    mean = data.train_tokens / data.train_rows
    tokens = min((limit for limit in (train.tokens, train.passes and train.passes * data.train_tokens) if limit),
                 default=0)
    if train.layout == "shared":
        sharing = min(per_source, train.references_per_source)
        tokens *= (data.target_tokens + (data.train_tokens - data.target_tokens) / sharing) / data.train_tokens
    step = _step(train, kept)
    model, teacher = run.task.model, teacher_folder(run)
    training = Training(
        spec, train, step, bf16=_trains_in_bf16(train), dropout=plan.dropout,
        adapters=lora_parameters(spec, model.lora.rank, model.lora.targets) if model.tune == "lora" else 0)
    more = {} if teacher is None else {
        "teacher": read_card(teacher).spec.inference_memory_bytes(bytes_per_weight=4)}
    cost = training_cost(training, tokens * _padding(step, train, mean), machine, limits, more=more, context=int(mean))
    exported = (1 + len(run.task.export.to)) * (1 + len(run.task.export.packed))
    copies = 4 * spec.parameters * (3 * train.keep + 2 + exported + _compressed(run, spec))
    disk = copies + 3 * text_bytes + 4 * data.train_tokens
    return Estimate(plan=plan, data=data, positions=positions, overlong_ratio=overlong_ratio, cost=cost,
                    disk_bytes=disk, disk_free_bytes=machine.disk_free_bytes(run.folder))


def _compressed(run: Run, spec: GlmSpec) -> int:
    """How many models a compression leaves on disk at most: one a step of every way, and the result with its packs."""
    recipe = run.task.recipe()
    if recipe is None:
        return 0
    return sum(len(way) for way in ways(spec, recipe)) + 1 + len(run.task.export.packed)


def _trains_in_bf16(train: TrainSettings) -> bool:
    import torch

    from openautoglm.pipeline.training import device
    from openautoglm.train import precision

    return precision.choose(train.precision, torch.device(device())) == "bf16"
