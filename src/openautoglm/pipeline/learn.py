"""From a plan to a trained model on disk."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from openautoglm.core.errors import TaskError
from openautoglm.core.files import fingerprint
from openautoglm.data.jsonl import read_examples
from openautoglm.data.tokens import TokenStore
from openautoglm.evaluate.run import group_cases
from openautoglm.models import hf
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.distil import School, teacher_of
from openautoglm.pipeline.generation import author_in_training
from openautoglm.pipeline.material import Material, checkpoint_folder, max_positions, template_of
from openautoglm.pipeline.plan import Plan
from openautoglm.pipeline.sampled import dev_hook, evenly
from openautoglm.pipeline.training import device, drive, fresh_model
from openautoglm.train.events import StepEvent
from openautoglm.train.lora import add_lora, merge_lora


def learn(run: Run, plan: Plan, material: Material) -> dict[str, Any]:
    """Train as planned, resuming where a former call stopped, and write ``train/model``.

    Returns:
        Facts for the state: steps, tokens, rate, losses.

    Raises:
        TrainError, CheckpointError: as the training room.
        TaskError: the checkpoint to start from does not fit its tokenizer.
    """
    tokenizer, template = material.tokenizer(), template_of(run)
    teacher = teacher_of(run, tokenizer, template)
    model, spec, adapted = _start(run, plan)
    if tokenizer.vocab_size > spec.vocab_size:
        raise TaskError(f"the tokenizer has {tokenizer.vocab_size:,} entries, the model {spec.vocab_size:,}",
                        where="model.checkpoint", remedy="use the checkpoint's own tokenizer (leave tokenizer out)")
    hook = None
    if plan.train.best_by != "valid_loss":
        cases = evenly(group_cases(read_examples(run.split("valid"))), run.task.evaluate.checkpoint_cases)
        hook = dev_hook(run, author_in_training(model, template, tokenizer), cases, (plan.train.best_by,))
    goal, store = None, material.store("train")
    valid: TokenStore | None = material.store("valid")
    if teacher is not None:
        school = School(teacher, run.task.distill, run.train)
        if run.task.model.checkpoint is None:
            school.start(model, spec)
        store = school.store(store, run.split("train"), max_positions(run))
        goal = school.goal(model, plan.train)
        if run.task.distill.responses.use == "only" and hook is None:
            valid = None  # the likelihood of the data's targets says little of a student that never sees them
    events = drive(model, store, valid, plan.train, run.train, label="train", on_validate=hook, goal=goal)
    last = deque(events, maxlen=1)
    if adapted:
        model = merge_lora(model)
    write_bundle(run.trained, model=model, spec=spec, tokenizer=tokenizer, template=template, card_facts={
        "data": data_fingerprint(run), "recipe": {
            "train": plan.train.model_dump(mode="json"),
            **({"distill": run.task.distill.model_dump(mode="json")} if teacher else {})}})
    return _facts(last[0] if last else None, spec)


def _start(run: Run, plan: Plan) -> tuple[Any, GlmSpec, bool]:
    """The model to be trained, its spec, and whether it wears adapters."""
    folder = checkpoint_folder(run)
    if folder is None:
        model = fresh_model(plan.spec, seed=plan.train.seed, dropout=plan.dropout,
                            attention_dropout=plan.attention_dropout)
        return model, plan.spec, False
    model, spec = hf.load(folder)
    model = model.to(device())
    if plan.dropout:
        hf.Dropouts(model, plan.dropout)
    if run.task.model.tune == "full":
        return model, spec, False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.train.seed)  # peft draws the adapters from the global state
        return add_lora(model, run.task.model.lora), spec, True


def data_fingerprint(run: Run) -> str:
    """Identifies the cleaned training split."""
    return fingerprint(run.state.file_hashes([run.split("train")])[str(run.split("train"))])


def _facts(last: StepEvent | None, spec: GlmSpec) -> dict[str, Any]:
    if last is None:  # everything was trained before; the model alone was missing
        return {"parameters": spec.parameters}
    return {"parameters": spec.parameters, "steps": last.step, "tokens": last.tokens, "loss": last.loss,
            "valid_loss": last.valid_loss, "tokens_per_s": last.tokens_per_s, "seconds": last.elapsed_s}

