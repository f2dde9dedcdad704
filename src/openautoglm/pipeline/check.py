"""Looks at a task and its data before anything runs: files, columns, rows, lengths, and what the run will cost."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openautoglm.core import hardware
from openautoglm.core.errors import AutoGLMError, Fault, TaskError, TrainError
from openautoglm.core.extras import installed
from openautoglm.core.values import Example, Reject
from openautoglm.data.read.paths import count_bytes, resolve
from openautoglm.data.read.reader import columns
from openautoglm.data.read.sample import Sample, sample
from openautoglm.models.card import read_card
from openautoglm.pipeline.compressing.recipe import MergeLoraSettings, steps_of
from openautoglm.pipeline.context import SPLITS, Run
from openautoglm.pipeline.estimate import Estimate, Rows, estimate
from openautoglm.pipeline.material import checkpoint_folder, source_of_tokenizer, teacher_folder, template_of
from openautoglm.pipeline.positions import key_text
from openautoglm.pipeline.units import bytes_text

Status = Literal["ok", "warning", "fault"]
SAMPLED = 1000


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    what: str
    value: str
    status: Status = "ok"
    remedy: str = ""


@dataclass
class Check:
    """What was found: the lines of the table, and the estimate (None where faults leave nothing to estimate)."""

    lines: list[Line] = field(default_factory=list)
    estimate: Estimate | None = None
    example: Example | None = None

    @property
    def faulty(self) -> bool:
        """Whether the run cannot work."""
        return any(line.status == "fault" for line in self.lines)

    def add(self, what: str, value: str, status: Status = "ok", remedy: str = "") -> None:
        """Add a line."""
        self.lines.append(Line(what, value, status, remedy))

    def error(self, where: str) -> TaskError:
        """The faults as an error."""
        faults = tuple(Fault(line.what, 0, 0, line.value, line.remedy) for line in self.lines if line.status == "fault")
        return TaskError("the data does not fit the task", where=where, faults=faults,
                         remedy="correct what is marked as a fault")


def check(run: Run) -> Check:
    """Look at the files of a task and estimate its run. Faults are lines of the result, nothing is raised for them."""
    found = Check()
    if any(path.lower().endswith(".gguf") for path in run.task.export.to) and not installed("gguf"):
        found.add("export.to", "the package gguf is not installed, which writes .gguf", "fault",
                  "pip install 'openautoglm[export]' -c constraints.txt")
    samples: dict[str, Rows] = {}
    for split in SPLITS:
        paths = _files(run, split, found)
        if paths and _columns_fit(run, split, paths, found):
            rows = _rows(run, split, paths, found)
            if rows is not None:
                samples[split] = rows
    _teacher(run, found)
    train = samples.get("train")
    if train is None or not train.examples or found.faulty:
        return found
    found.example = train.examples[0]
    try:
        found.estimate = estimate(run, train, hardware.probe())
    except AutoGLMError as error:
        found.add("plan", error.message, "fault", error.remedy or "")
        return found
    found.lines += [Line(*line) for line in found.estimate.lines()]
    _student(run, found.estimate, found)
    _compression(run, found.estimate, found)
    return found


def _teacher(run: Run, found: Check) -> None:
    """Whether the teacher of a distillation is there, whole, and reads texts as the student will."""
    if run.task.distill.teacher is None:
        return
    from openautoglm.models.bundle import open_bundle
    from openautoglm.pipeline.distil import refuse_strangers
    from openautoglm.text.tokenizer import Tokenizer

    try:
        folder, source = teacher_folder(run), source_of_tokenizer(run)
        assert folder is not None
        assert source is not None
        teacher = open_bundle(folder)
        own = [Tokenizer.load(path) for path in {source, checkpoint_folder(run) or source}]
        for tokenizer in own:
            refuse_strangers(teacher.card.tokenizer, teacher.template, tokenizer, template_of(run))
    except AutoGLMError as error:
        found.add(error.where if error.where and error.where[0] != "/" else "distill.teacher", error.message, "fault",
                  error.remedy or "")
        return
    found.add("teacher", f"{teacher.spec.parameters:,} parameters: {teacher.spec.layers} layers of width "
              f"{teacher.spec.hidden_size}")


def _student(run: Run, known: Estimate, found: Check) -> None:
    """Whether the student can begin with its teacher's weights, where that is asked for."""
    folder = teacher_folder(run)
    if folder is None or run.task.distill.initialise != "teacher":
        return
    from openautoglm.train.student import refuse

    try:
        if run.task.model.checkpoint is not None:
            raise TrainError("a student that starts from a checkpoint has weights already", where="distill.initialise",
                             remedy="leave distill.initialise or model.checkpoint out")
        refuse(known.plan.spec, read_card(folder).spec)
    except TrainError as error:
        found.add("distill.initialise", error.message, "fault", error.remedy or "")


def _compression(run: Run, known: Estimate, found: Check) -> None:
    """Whether the steps of `compress` fit the model that the plan names, and their adapters are there."""
    from openautoglm.pipeline.compressing.checks import step_faults

    recipe, plan = run.task.recipe(), known.plan
    if recipe is None:
        return
    missing: list[Fault] = []
    for number, step in enumerate(steps_of(recipe)):
        if isinstance(step, MergeLoraSettings) and not (run.base / step.adapter / "adapter_config.json").is_file():
            missing.append(Fault(f"compress.recipe[{number}].adapter", 0, 0, f"{step.adapter} holds no adapters",
                                 "give a folder that peft wrote, relative to the task file"))
    if not plan.search.trials:  # a search may choose other widths
        missing += [Fault(key_text(("compress", *path)), 0, 0, message, remedy)
                    for path, message, remedy in step_faults(recipe, plan.spec)]
    for fault in missing:
        found.add(fault.key, fault.message, "fault", fault.remedy)
    if not missing:
        steps = ", ".join(step.method for step in steps_of(recipe)) or "auto"
        found.add("compression", f"{steps}; at least {recipe.quality:g} of the metric is to be kept")


def _files(run: Run, split: str, found: Check) -> list[Path]:
    given = getattr(run.task.data, split)
    if not given:
        if split != "train":
            share = getattr(run.task.clean.split, split)
            found.add(f"{split} files", f"none: {share:.0%} of the training rows are split off")
        return []
    try:
        paths = resolve(given, run.base)
    except AutoGLMError as error:
        found.add(f"data.{split}", f"{error.where}: {error.message}" if error.where else error.message, "fault",
                  error.remedy or "")
        return []
    names = ", ".join(path.name for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    found.add(f"{split} files", f"{names} ({bytes_text(count_bytes(paths))})")
    return paths


def _columns_fit(run: Run, split: str, paths: list[Path], found: Check) -> bool:
    needed = run.task.data.needed_columns()
    good = True
    for path in paths:
        try:
            there = columns(path, run.task.data)
        except AutoGLMError as error:
            found.add(f"data.{split}", str(error.message), "fault", error.remedy or "")
            good = False
            continue
        for name in needed:
            if name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(there[:12])}"
                found.add(f"data.{split}", f"{path.name} has no column {name!r}", "fault", remedy)
                good = False
    return good


def _rows(run: Run, split: str, paths: list[Path], found: Check) -> Rows | None:
    try:
        seen = sample(paths, run.task.data, SAMPLED, run.task.seed)
    except AutoGLMError as error:
        found.add(f"data.{split}", error.message, "fault", error.remedy or "")
        return None
    found.add(f"{split} rows", f"{'' if seen.complete else 'about '}{seen.rows_estimate:,}")
    rows = Rows([row for row in seen.random if isinstance(row, Example)], seen.rows_estimate, seen.per_source)
    if not rows.examples:
        found.add(f"data.{split}", "not one row can be read", "fault", "check format, encoding and delimiter")
    if seen.rejects:
        _tell_rejects(run, split, seen, found)
    empty = sum(not example.target.strip() for example in rows.examples)
    if empty:
        found.add(f"{split} targets", f"{empty} of {len(rows.examples)} sampled targets are empty", "warning",
                  "the cleaning rule `length` drops them")
    if run.task.data.fields is not None and rows.examples and not any(row.fields for row in rows.examples):
        found.add("data.fields", "the fields are found in no sampled row", "fault",
                  "check the columns, or the expression with its two groups")
    return rows


def _tell_rejects(run: Run, split: str, seen: Sample, found: Check) -> None:
    ratio, allowed = seen.rejects / seen.rows, run.task.data.max_reject_ratio
    first = next((row for row in (*seen.first, *seen.random) if isinstance(row, Reject)), None)
    example = f"; e.g. {first.origin}: {first.reason}: {first.detail}" if first else ""
    found.add(f"{split} rejects", f"{seen.rejects:,} of {seen.rows:,} rows cannot be read ({ratio:.2%}){example}",
              "fault" if ratio > allowed else "warning",
              "correct the rows, or raise data.max_reject_ratio" if ratio > allowed else "")
