"""From one dial to every setting: what a task leaves out is filled in from data, budget and machine.

What the task says explicitly is never changed. Each choice is noted with its reason, and the resolved settings are
kept in the run folder (``plan.json``).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from openautoglm.core.errors import SpecError, TaskError
from openautoglm.core.settings import Settings
from openautoglm.models.presets import auto_spec, preset
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.facts import DataFacts, MachineFacts
from openautoglm.pipeline.task import Task
from openautoglm.train.settings import TrainSettings

MOST_PASSES = 8.0
"""More passes than these overfit, unless the data is so small that they make fewer than `FEWEST_STEPS` steps."""
FEWEST_STEPS = 1200
SEARCH_SHARE = 0.5
"""Share of the budget's minutes that goes to the search where there is one."""
SEARCH_FROM_MINUTES = 60.0
"""Budgets from here on are searched even if the task does not ask for it."""
FEWEST_DEV_ROWS = 50
"""Validation rows from which trials are chosen by the task's metric on generated texts rather than by loss."""


class SearchPlan(Settings):
    """How the search will be run.

    Attributes:
        trials: most trials; 0 means no search.
        minutes: most minutes.
        trial_tokens: training tokens of a full trial.
        metric: what the best trial is chosen by; None: the validation loss.
    """

    trials: int
    minutes: float
    trial_tokens: int
    metric: str | None = None


class Plan(Settings):
    """The settings of a run, none left open.

    Attributes:
        spec: the architecture before the search; None where a checkpoint brings it.
        dropout, attention_dropout: of the model.
        train: the training loop.
        search: the search.
        reasons: why each setting that the task left out is what it is.
    """

    spec: GlmSpec
    dropout: float
    attention_dropout: float
    train: TrainSettings
    search: SearchPlan
    reasons: dict[str, str] = Field(default_factory=dict)


def auto_vocabulary(text_bytes: int) -> int:
    """Vocabulary for `text_bytes` of training text: 0.7 times its square root, as a power of two, 512 to 32,768."""
    size = 512
    while size < 32_768 and size * 2 <= 1.41 * 0.7 * text_bytes**0.5:
        size *= 2
    return size


def resolve(task: Task, data: DataFacts, machine: MachineFacts, *, pad_id: int | None, eos_ids: tuple[int, ...],
            given: GlmSpec | None = None) -> Plan:
    """Fill every setting that the task leaves out.

    Args:
        data: facts of the tokenised data.
        machine: what training may use.
        pad_id, eos_ids: of the tokenizer, for a spec from scratch.
        given: the spec of the checkpoint that training starts from, if there is one.

    Raises:
        TaskError: the shape asked for cannot be built, or exceeds the budget.
    """
    reasons: dict[str, str] = {}
    search = _search_minutes(task, reasons)
    minutes = task.budget.minutes - search
    spec = given or _spec(task, data, machine, minutes, reasons).with_vocabulary(
        data.vocab_size, pad_id=pad_id, eos_ids=eos_ids)
    if given is None and task.budget.parameters is not None and spec.parameters > task.budget.parameters:
        raise TaskError(f"the model has {spec.parameters:,} parameters, the budget allows "
                        f"{task.budget.parameters:,}", where="model", remedy="choose a smaller size, or raise "
                        "budget.parameters")
    train = _train(task, data, machine, minutes, spec, reasons)
    scratch = given is None
    dropout, attention = task.model.dropout, task.model.attention_dropout
    if dropout is None:
        dropout = 0.1 if scratch and (train.passes or 0) > 1.5 else 0.0
        reasons["model.dropout"] = "0.1 where a model from scratch sees its data more than once"
    return Plan(spec=spec, dropout=dropout, attention_dropout=attention or 0.0, train=train, reasons=reasons,
                search=_search(task, data, machine, spec, search))


def _spec(task: Task, data: DataFacts, machine: MachineFacts, minutes: float, reasons: dict[str, str]) -> GlmSpec:
    if task.model.size == "auto":
        auto = auto_spec(data.train_tokens, minutes=minutes, flops_per_s=machine.flops_per_s,
                         parameters_max=task.budget.parameters, memory_bytes=machine.memory_bytes,
                         vocab_size=data.vocab_size)
        reasons["model.size"] = f"{auto.name}: {auto.reason}"
        spec = auto.spec
    else:
        spec = preset(task.model.size, vocab_size=data.vocab_size)
    return shaped(spec, task.model.shape)


def shaped(spec: GlmSpec, shape: dict[str, Any]) -> GlmSpec:
    """The spec with some of its shape replaced; widths of heads follow where they are not given.

    Raises:
        TaskError: the shape does not fit together.
    """
    if not shape:
        return spec
    merged = {**spec.model_dump(), **shape}
    if "head_dim" not in shape and {"heads", "hidden_size"} & shape.keys():
        merged["head_dim"] = max(2, merged["hidden_size"] // merged["heads"] // 2 * 2)
    if "kv_heads" not in shape and merged["heads"] % merged["kv_heads"]:
        merged["kv_heads"] = merged["heads"]
    if "ffn_size" not in shape and "hidden_size" in shape:
        merged["ffn_size"] = max(8, round(spec.ffn_size / spec.hidden_size * merged["hidden_size"] / 8) * 8)
    try:
        return GlmSpec(**merged)
    except ValueError as error:
        reason = "; ".join(str(item["msg"]) for item in error.errors()) if hasattr(error, "errors") else str(error)
        raise TaskError(f"this shape cannot be built: {reason}", where="model",
                        remedy="heads must be a multiple of kv_heads, head_dim even") from error
    except SpecError as error:
        raise TaskError(error.message, where="model", remedy=error.remedy) from error


def _train(task: Task, data: DataFacts, machine: MachineFacts, minutes: float, spec: GlmSpec,
           reasons: dict[str, str]) -> TrainSettings:
    own = task.train.model_fields_set
    filled: dict[str, Any] = {}

    def fill(name: str, value: Any, reason: str) -> None:
        if name not in own:
            filled[name] = value
            reasons[f"train.{name}"] = reason

    scratch = task.model.checkpoint is None
    batch = next((size for size in (64, 32, 16) if data.train_rows >= 40 * size), 8)
    fill("batch", batch, f"{data.train_rows:,} rows: at least 40 steps a pass, at most 64 rows")
    batch = filled.get("batch", task.train.batch)
    if not {"passes", "tokens", "minutes"} & own:
        fit = minutes * 60 * machine.flops_per_s / (data.train_tokens * spec.training_flops_per_token())
        steps_a_pass = max(1.0, data.train_rows / batch)
        most = max(MOST_PASSES if scratch else 3.0, min(60.0, FEWEST_STEPS / steps_a_pass))
        fill("passes", round(most, 1), f"the most that help; about {fit:.1f} fit into {minutes:g} minutes, whose end "
             "the schedule follows")
        fill("minutes", minutes, "the budget's minutes, less those of the search")
    elif "passes" not in own:
        fill("passes", None, "the task sets another limit")
    if scratch:
        fill("lr", round(min(3e-3, 2e-3 * (256 / spec.hidden_size) ** 0.5), 6), "2e-3 at width 256, by its root")
        fill("label_smoothing", 0.1, "from scratch")
        fill("ema_decay", 0.999, "from scratch: averaged weights vary less from seed to seed")
    else:
        lora = task.model.tune == "lora"
        fill("lr", 2e-4 if lora else 5e-5, "adapters" if lora else "all weights of a checkpoint")
        fill("weight_decay", 0.01, "weights of a checkpoint")
    fill("seed", task.seed, "the task's seed")
    return TrainSettings(**{**task.train.model_dump(), **filled})


def _search_minutes(task: Task, reasons: dict[str, str]) -> float:
    search, budget = task.search, task.budget
    wanted = search.enabled
    if "enabled" not in search.model_fields_set:
        wanted = budget.trials is not None or budget.minutes >= SEARCH_FROM_MINUTES or bool(search.model_fields_set)
        reasons["search.enabled"] = f"asked for, or {SEARCH_FROM_MINUTES:g} minutes and more"
    if not wanted or budget.trials == 0 or task.model.checkpoint is not None or task.distill.teacher:
        return 0.0
    return search.minutes or budget.minutes * search.share


def _search(task: Task, data: DataFacts, machine: MachineFacts, spec: GlmSpec, minutes: float) -> SearchPlan:
    if not minutes:
        return SearchPlan(trials=0, minutes=0.0, trial_tokens=0)
    trials = task.search.trials or task.budget.trials or 1000
    tokens = task.search.trial_tokens
    if tokens is None:
        affordable = minutes * 60 * machine.flops_per_s / spec.training_flops_per_token()
        tokens = int(min(2 * data.train_tokens, affordable / max(4, min(trials, 24) / 2)))
    generates = task.search.dev_cases and data.paired and data.valid_rows >= FEWEST_DEV_ROWS
    return SearchPlan(trials=trials, minutes=minutes, trial_tokens=max(tokens, 2000),
                      metric=task.search.metric or (task.evaluate.choose_by if generates else None))
