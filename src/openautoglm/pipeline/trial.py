"""One trial of the search: a model trained from a point, reported as it learns."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from openautoglm.core.errors import SearchError
from openautoglm.data.jsonl import read_examples
from openautoglm.evaluate.registry import METRICS
from openautoglm.evaluate.run import Case, group_cases
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.facts import MachineFacts, machine_facts
from openautoglm.pipeline.generation import author_in_training
from openautoglm.pipeline.material import Material, prepare, template_of
from openautoglm.pipeline.plan import Plan
from openautoglm.pipeline.sampled import dev_hook, evenly
from openautoglm.pipeline.space import plan_at, space_of, with_vocabulary
from openautoglm.pipeline.training import drive, fresh_model
from openautoglm.search.records import Outcome, SearchResult
from openautoglm.search.settings import SearchSettings
from openautoglm.search.space import Point
from openautoglm.search.study import Report, search
from openautoglm.train.footprint import Step, Training, footprint

REPORTS = 9
"""Validations of a whole trial; Hyperband may stop it at each."""
COSTLIER = 3.0
"""A trial's model may cost at most so many times the planned model's operations per token."""


def run_search(run: Run, plan: Plan) -> SearchResult:
    """Search around `plan`; a search that was stopped goes on.

    Raises:
        SearchError: no trial completed, or the space is wrong.
    """
    from openautoglm.core.hardware import probe

    section = run.task.search
    metric = plan.search.metric
    if metric is not None and metric not in METRICS:
        raise SearchError(f"there is no metric {metric!r}", where="search.metric",
                          remedy=f"use one of {', '.join(METRICS)}")
    own = {name: getattr(section, name) for name in SearchSettings.model_fields}
    settings = SearchSettings(**{**own, "trials": plan.search.trials, "minutes": plan.search.minutes, "metric": metric,
                                 "seed": section.seed if "seed" in section.model_fields_set else run.task.seed})
    trials = Trials(run, plan, machine_facts(probe(), run.task.budget.memory, run.folder), metric)
    return search(space_of(run.task, plan), trials.objective, settings, run.search,
                  max_tokens=plan.search.trial_tokens, min_tokens=max(1, plan.search.trial_tokens // REPORTS),
                  maximize=metric is not None and METRICS[metric].better == "higher",
                  constraints={"parameters": trials.parameters_excess, "memory": trials.memory_excess,
                               "time": trials.time_excess})


@dataclass
class Trials:
    """The objective of the search, and its constraints."""

    run: Run
    plan: Plan
    machine: MachineFacts
    metric: str | None

    def parameters_excess(self, point: Point) -> float:
        """Parameters over the budget; below 0 within it."""
        limit = self.run.task.budget.parameters
        return -1.0 if limit is None else float(self._rough(point).spec.parameters - limit)

    def memory_excess(self, point: Point) -> float:
        """Bytes of a training step over what there is."""
        plan = self._rough(point)
        mean = self._material(self.plan.spec.vocab_size).store("train")
        tokens = int(plan.train.batch * mean.tokens / len(mean)) // plan.train.accumulation + plan.train.row_tokens
        parts = footprint(Training(plan.spec, plan.train, Step(tokens, tokens // 2), dropout=plan.dropout, saves=False))
        needed = sum(parts["step"].values())
        return float(needed - self.machine.memory_bytes)

    def time_excess(self, point: Point) -> float:
        """Cost of a token, in costs of the planned model's, over `COSTLIER`."""
        return (self._rough(point).spec.training_flops_per_token()
                / self.plan.spec.training_flops_per_token()) - COSTLIER

    def objective(self, point: Point, report: Report) -> Outcome:
        """Train one model for the trial's tokens; its value is the validation loss, per byte of text where
        vocabularies differ."""
        material = self._material(int(point["vocab_size"]))
        plan = final_plan(self.run, self.plan, point, material)
        tokens = self.plan.search.trial_tokens
        every = tokens / REPORTS / material.store("train").tokens
        settings = plan.train.model_copy(update={
            "passes": None, "minutes": None, "tokens": tokens, "validate_every_passes": every, "patience": None,
            "best_by": "valid_loss", "best_mode": "auto", "tensorboard": False})
        model = fresh_model(plan.spec, seed=settings.seed, dropout=plan.dropout,
                            attention_dropout=plan.attention_dropout)
        valid = material.store("valid")
        fair = valid.target_tokens / self._material(self.plan.spec.vocab_size).store("valid").target_tokens
        loss, reported = float("inf"), 0
        with closing(drive(model, material.store("train"), valid, settings, None, label="trial")) as events:
            for event in events:
                if event.valid_loss is None:
                    continue
                loss = event.valid_loss * fair
                if event.tokens < tokens and event.tokens > reported:
                    reported = event.tokens
                    report(event.tokens, loss)
        metrics = {}
        if self.metric is not None:
            author = author_in_training(model, template_of(self.run), material.tokenizer())
            metrics = dict(dev_hook(self.run, author, self._dev_cases(), (self.metric,))(model, 0))
        return Outcome(loss, metrics)

    def _rough(self, point: Point) -> Plan:
        plan = plan_at(self.plan, point)
        return with_vocabulary(plan, int(point["vocab_size"]), pad_id=None, eos_ids=())

    def _material(self, vocab_size: int) -> Material:
        return material_of(self.run, self.plan, vocab_size)

    def _dev_cases(self) -> list[Case]:
        return evenly(group_cases(read_examples(self.run.split("valid"))), self.run.task.search.dev_cases)


def material_of(run: Run, plan: Plan, vocab_size: int) -> Material:
    """The material of a vocabulary: the run's own, or one made (once) for the search."""
    if vocab_size == plan.spec.vocab_size:
        return Material(run.tokenizer)
    return prepare(run, run.search / f"vocabulary-{vocab_size}", vocab_size)


def final_plan(run: Run, plan: Plan, point: Point, material: Material) -> Plan:
    """The plan at a point, with the tokenizer's ids."""
    tokenizer = material.tokenizer()
    return with_vocabulary(plan_at(plan, point), tokenizer.vocab_size, pad_id=tokenizer.pad_id,
                           eos_ids=template_of(run).stop_ids(tokenizer))
