"""What training takes: the footprint of its settings and the libraries; the time of its operations and its traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from openautoglm.core.hardware import Machine
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.estimating.cost import LIBRARIES, Cost
from openautoglm.pipeline.estimating.libraries import library_bytes
from openautoglm.pipeline.estimating.speed import bytes_per_s
from openautoglm.pipeline.facts import REACHED, MachineFacts
from openautoglm.train.footprint import Step, Training, footprint, kept_values, lora_parameters
from openautoglm.train.settings import TrainSettings

_GPU_CONTEXT_BYTES = 600_000_000
_OF_PRODUCTS = 0.85
"""Share of the rate of large square products that the products of a step reach."""
_PASSES = 6
"""How often what a layer keeps passes through memory: written and read forward, read backward, its gradient alike."""
_OPTIMISER_BYTES = {"fp32": 44, "8bit": 400}
"""Bytes a parameter that a step of the optimiser reads and writes: zeroing, the norm, clipping, the update; in eight
bits some forty passes over pieces that are decoded and coded again."""


def training_cost(training: Training, tokens: float, machine: Machine, limits: MachineFacts, *,
                  more: Mapping[str, int] | None = None, context: int = 0) -> Cost:
    """Estimate a training run.

    Args:
        tokens: that are computed in all, padding included; 0: it has no end but its minutes.
        limits: the memory there is, and the rate of the machine.
        more: bytes of other parts, such as a teacher.
        context: tokens that a token attends to, on average.

    Raises:
        ResourceError: the libraries cannot be measured.
    """
    settings, rate, read = training.settings, limits.flops_per_s / REACHED, bytes_per_s()
    seconds = tokens * _token_seconds(training, rate, read, context) if tokens else None
    if settings.minutes is not None:
        seconds = min(seconds or 60 * settings.minutes, 60 * settings.minutes)
    minutes = settings.checkpoint_every_minutes
    clocked = minutes is not None and not 0 < (seconds or 0) < 60 * minutes
    training = replace(training, background=clocked or settings.checkpoint_every_steps is not None)
    moments = _moments(training, machine, more or {})
    limit = limits.memory_bytes
    peak = max(sum(parts.values()) for parts in moments.values())
    remedies = () if peak <= limit else tuple(_remedies(training, machine, more or {}, peak))
    per_token = _token_seconds(training, rate, read, context)
    return Cost(
        "train", moments, seconds, (f"{tokens:,.0f} tokens at {1 / per_token:,.0f} a second: " if tokens else "")
        + "products at "
        f"{rate * _OF_PRODUCTS / 1e9:.0f} GFLOP/s, memory at {read / 1e9:.1f} GB/s, both measured now; validation not "
        "counted", _named(training), limit, {"tokens/s": 1 / per_token}, remedies)


def _moments(training: Training, machine: Machine, more: Mapping[str, int]) -> dict[str, dict[str, int]]:
    libraries = _GPU_CONTEXT_BYTES if machine.gpus else library_bytes("lora" if training.adapters else "train")
    return {moment: {**parts, **more, LIBRARIES: libraries} for moment, parts in footprint(training).items()}


def _remedies(training: Training, machine: Machine, more: Mapping[str, int], peak: int) -> Iterator[tuple[str, int]]:
    """Changes, each alone, that lower the peak by a twentieth and more."""
    settings, step = training.settings, training.step
    half = Step(-(-step.tokens // 2), -(-step.needed // 2), step.blocks)
    changed: dict[str, dict[str, Any]] = {"train.gradient_checkpointing: true": {"gradient_checkpointing": True},
                                          "train.optimiser_state: 8bit": {"optimiser_state": "8bit"},
                                          f"train.accumulation: {2 * settings.accumulation}, or half the batch": {}}
    for text, change in changed.items():
        smaller = replace(training, settings=settings.model_copy(update=change), step=step if change else half)
        needed = max(sum(parts.values()) for parts in _moments(smaller, machine, more).values())
        if needed < 0.95 * peak:
            yield text, needed
    if not training.adapters:
        adapted = replace(training, adapters=lora_parameters(training.spec, 16, "all"))
        needed = max(sum(parts.values()) for parts in _moments(adapted, machine, more).values())
        if needed < 0.95 * peak:
            yield "model.tune: lora (rank 16, on a checkpoint)", needed


def _token_seconds(training: Training, rate: float, read: float, context: int) -> float:
    """Seconds of a computed token: its products, what its values pass through memory, its share of the optimiser."""
    spec, step, settings = training.spec, training.step, training.settings
    share = step.needed / step.tokens
    table = 2 * spec.vocab_size * spec.hidden_size
    layer, head = (spec.flops_per_token - table) / spec.layers + 4 * spec.query_size * context, table * share
    trained, back = spec.layers - training.frozen_layers, 1 if training.adapters else 2
    forward = spec.layers * layer + head
    operations = forward + back * (trained * layer + head)
    if settings.gradient_checkpointing:
        operations += trained * layer
    moved = _PASSES * trained * kept_values(training)[0] + 8 * spec.hidden_size
    update = training.learnt * _OPTIMISER_BYTES[settings.optimiser_state] / step.tokens / settings.accumulation
    return operations / (rate * _OF_PRODUCTS) + (moved + update) / read


def _named(training: Training) -> dict[str, str]:
    """The settings on which the figures depend."""
    spec, settings, freeze = training.spec, training.settings, training.settings.freeze
    return {"model": f"{spec.parameters:,} parameters, {spec.layers} layers of width {spec.hidden_size}",
            "step": f"{training.step.tokens:,} tokens at a time, {training.step.needed:,} of them predict a target",
            "precision": "bf16" if training.bf16 else "fp32",
            "learns": f"{training.learnt:,} parameters" + (" (adapters)" if training.adapters else ""),
            "optimiser state": settings.optimiser_state + (", in files" if settings.offload else ""),
            "gradient checkpointing": "on" if settings.gradient_checkpointing else "off",
            **({} if freeze is None else {"frozen": f"{freeze.layers} layers"})}


def step_of(batch: int, length: int, accumulation: int) -> Step:
    """A step of `batch` examples of `length` tokens, half of them targets."""
    rows = -(-batch // accumulation)
    return Step(rows * max(1, length - 1), rows * max(1, length // 2))


def given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `TrainSettings` from options of a command; None stands for one that was left out."""
    options = {name: value for name, value in given.items() if value is not None}
    if "freeze" in options:
        options["freeze"] = {"layers": options["freeze"]} if options["freeze"] else None
    return options


def plain_training(spec: GlmSpec, settings: TrainSettings, length: int, *, bf16: bool, adapters: int) -> Training:
    """Training of a spec without data: examples of one length."""
    step = step_of(settings.batch, length, settings.accumulation)
    if settings.layout == "packed":
        rows = -(-settings.batch * length // settings.row_tokens // settings.accumulation)
        step = Step(rows * settings.row_tokens, rows * settings.row_tokens // 2)
    return Training(spec, settings, step, bf16=bf16, adapters=adapters, dropout=0.1 if not adapters else 0.0)

