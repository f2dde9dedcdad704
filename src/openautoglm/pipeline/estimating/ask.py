"""From what was asked to the estimates: of a task by its own plan, of a model by the settings given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import TaskError
from openautoglm.core.hardware import Machine, probe
from openautoglm.engine.open import ProgramSettings
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.check import check
from openautoglm.pipeline.compressing.recipe import Recipe
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.estimating.compressing import compression_cost
from openautoglm.pipeline.estimating.cost import Cost, What
from openautoglm.pipeline.estimating.serving import serving_cost
from openautoglm.pipeline.estimating.subject import Subject
from openautoglm.pipeline.estimating.training import given_settings, plain_training, training_cost
from openautoglm.pipeline.facts import MachineFacts, machine_rate, memory_there
from openautoglm.train.footprint import lora_parameters
from openautoglm.train.settings import TrainSettings

ALL: tuple[What, ...] = ("train", "compress", "serve")


@dataclass(frozen=True)
class Asked:
    """What is to be estimated, and under which settings.

    Attributes:
        train: fields of `TrainSettings`, None for what was left out; of a task they stand in place of its own.
        lora: rank of low-rank adapters; None: as the task says, or none.
        length: tokens of an example or text, where there is no data.
        tokens: that training sees, where there is no data; None: the time has no end.
        recipe: of the compression; its `memory_limit` is its limit.
        calibration_tokens: see `compression_cost`.
        program: how the engine loads.
        memory: bytes that must suffice; None: what is free, less a reserve.
    """

    wanted: tuple[What, ...] = ALL
    train: Mapping[str, Any] = field(default_factory=dict)
    lora: int | None = None
    length: int = 128
    tokens: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    calibration_tokens: int | None = None
    program: ProgramSettings = field(default_factory=ProgramSettings)
    memory: int | None = None


def costs(subject: Subject, asked: Asked) -> list[Cost]:
    """Estimate all that is wanted, in the order of `ALL`; nothing is loaded.

    Raises:
        TaskError: a setting is out of its range, or the task has faults.
        AutoGLMError: as the rooms that would do the work.
    """
    machine = probe()
    limit = memory_there(machine, asked.memory)
    found, spec = list[Cost](), subject.spec
    if subject.task is not None:
        cost, spec = _of_task(subject, asked)
        if "train" in asked.wanted:
            found.append(cost)
    elif "train" in asked.wanted:
        assert spec is not None
        found.append(_of_spec(spec, asked, machine, limit))
    assert spec is not None
    program = asked.program
    if subject.bf16 and program.dtype is None:
        program = program.model_copy(update={"dtype": "bf16"})
    if "compress" in asked.wanted:
        most = limit if asked.recipe.memory_limit is None else min(limit, asked.recipe.memory_limit)
        found.append(compression_cost(spec, asked.recipe, most, subject.folder, dtype=program.dtype,
                                      calibration_tokens=asked.calibration_tokens, length=asked.length))
    if "serve" in asked.wanted:
        found.append(serving_cost(spec, program, limit, subject.folder))
    return found


def _of_task(subject: Subject, asked: Asked) -> tuple[Cost, GlmSpec]:
    """What `check` finds, and the planned model."""
    assert subject.task is not None
    run = Run.of(subject.task)
    given = given_settings(asked.train)
    changes: dict[str, Any] = {}
    if given:
        own = run.task.train.model_dump(include=run.task.train.model_fields_set)
        changes["train"] = train_settings({**own, **given})
    if asked.lora is not None:
        changes["model"] = run.task.model.model_copy(update={
            "tune": "lora", "lora": run.task.model.lora.model_copy(update={"rank": asked.lora})})
    if asked.memory is not None:
        changes["budget"] = run.task.budget.model_copy(update={"memory": asked.memory})
    found = check(replace(run, task=run.task.model_copy(update=changes)))
    if found.estimate is None:
        raise found.error(str(subject.task))
    return found.estimate.cost, found.estimate.plan.spec


def _of_spec(spec: GlmSpec, asked: Asked, machine: Machine, limit: int) -> Cost:
    import torch

    from openautoglm.pipeline.training import device
    from openautoglm.train import precision

    settings = train_settings(given_settings(asked.train))
    bf16 = precision.choose(settings.precision, torch.device(device())) == "bf16"
    adapters = lora_parameters(spec, asked.lora, "all") if asked.lora else 0
    training = plain_training(spec, settings, asked.length, bf16=bf16, adapters=adapters)
    return training_cost(training, asked.tokens or 0, machine, MachineFacts(
        memory_bytes=limit, flops_per_s=machine_rate()), context=asked.length // 2)


def train_settings(given: Mapping[str, Any]) -> TrainSettings:
    """Settings of training from their fields.

    Raises:
        TaskError: one is out of its range, or they do not fit together.
    """
    try:
        return TrainSettings.model_validate(dict(given))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                           for item in error.errors())
        raise TaskError(faults.replace("Value error, ", ""), where="train", remedy="change these options") from error
