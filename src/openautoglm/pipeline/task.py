"""The task: what the user wants, one YAML file validated into one frozen model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from openautoglm.core.errors import AutoGLMError, Fault, TaskError
from openautoglm.core.settings import Settings
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.settings import DataSettings
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.pipeline.compressing.checks import metric_faults
from openautoglm.pipeline.compressing.recipe import Recipe, in_short
from openautoglm.pipeline.distilltask import DistilTask, SelfDistillTask
from openautoglm.pipeline.evaluation import EvaluateTask
from openautoglm.pipeline.expand import expand
from openautoglm.pipeline.faults import faults_of
from openautoglm.pipeline.positions import Document, KeyPath, key_text, parse
from openautoglm.pipeline.searchtask import SearchTask
from openautoglm.pipeline.sections import Budget, ExportTask, ModelTask, TokenizerTask
from openautoglm.train.settings import TrainSettings


class Task(Settings):
    """A task file. One dial first: ``model.size`` and ``budget.minutes`` set everything that is left out."""

    name: str = Field(
        default="task", description="Name of the model; letters, digits, dot, dash and underscore.")
    data: DataSettings = Field(description="Which files, and how their rows become examples.")
    clean: CleanSettings = Field(
        default_factory=CleanSettings, description="Cleaning rules, duplicates, splits and leaks.")
    tokenizer: TokenizerTask = Field(
        default_factory=TokenizerTask, description="The tokenizer; trained on the data unless given.")
    model: ModelTask = Field(default_factory=ModelTask, description="The model's size and shape, or a checkpoint.")
    budget: Budget = Field(default_factory=Budget, description="What the run may cost.")
    search: SearchTask = Field(default_factory=SearchTask, description="The search over shape and training.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="The training loop.")
    distill: DistilTask = Field(
        default_factory=DistilTask, description="A teacher that the model learns from, beside the data.")
    self_distill: SelfDistillTask = Field(
        default_factory=SelfDistillTask, description="What follows training: the model learns its own best texts.")
    evaluate: EvaluateTask = Field(default_factory=EvaluateTask, description="Metrics and decodings.")
    compress: Annotated[Recipe | None, BeforeValidator(in_short)] = Field(
        default=None, description="A smaller and faster bundle beside the trained one; left out, there is none. In "
        "short: `auto`, the name of a method, or a list of steps.")
    export: ExportTask = Field(default_factory=ExportTask, description="Copies of the finished bundle.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of everything that draws by chance.")
    output: str | None = Field(
        default=None, description="Run folder, relative to the task file. Default: runs/NAME.")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", value):
            raise ValueError("must consist of letters, digits, dot, dash and underscore, at most 100")
        return value

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose name stands alone means its defaults."""
        return (
            {key: value for key, value in values.items() if value is not None}
            if isinstance(values, dict)
            else values
        )


    def recipe(self) -> Recipe | None:
        """The `compress` section; how metrics are computed, and which one counts, is as in `evaluate` if not told."""
        if self.compress is None:
            return None
        changes: dict[str, Any] = {}
        if "evaluate" not in self.compress.model_fields_set:
            changes["evaluate"] = EvaluateSettings(**{name: getattr(self.evaluate, name)
                                                      for name in EvaluateSettings.model_fields})
        asked = changes.get("evaluate", self.compress.evaluate).metrics
        if self.compress.metric is None and self.data.text is None and (
                asked is None or self.evaluate.choose_by in asked):
            changes["metric"] = self.evaluate.choose_by
        return self.compress.model_copy(update=changes)


def load_task(path: str | Path, environment: Mapping[str, str] | None = None) -> Task:
    """Read a task file.

    Args:
        path: the YAML file.
        environment: variables for ``${NAME}`` in paths; the process's own by default.

    Raises:
        TaskError: the file cannot be read, or has faults; ``faults`` holds all of them.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TaskError(f"the task file cannot be read: {error.strerror}", where=str(path),
                        remedy="check the path; `autoglm check FILE` reads it without running") from error
    return _validated(parse(data), str(path), os.environ if environment is None else environment)


def make_task(value: Mapping[str, Any]) -> Task:
    """Make a task of a mapping with the keys of a task file.

    Raises:
        TaskError: as `load_task`, without lines.
    """
    return _validated(Document(value=dict(value)), "task", os.environ)


def _validated(document: Document, where: str, environment: Mapping[str, str]) -> Task:
    faults = list(document.faults)
    task = None
    if document.value is None and not faults:
        faults.append(Fault("task", 1, 1, "the file is empty", "a task needs at least `data: {train: FILE, ...}`"))
    elif document.value is not None and not isinstance(document.value, dict):
        faults.append(Fault("task", *document.mark(()), "a task file is a mapping of sections",
                            "start with `data:`"))
    elif isinstance(document.value, dict):
        faults += expand(document, environment)
        rules = _rule_faults(document)
        faults += rules
        try:
            task = Task.model_validate(document.value)
        except ValidationError as error:
            faults += [fault for fault in faults_of(error, document, Task)
                       if not (rules and fault.key == "clean.rules")]
        except AutoGLMError:
            faults += _section_faults(document)
    faults += _recipe_faults(task, document) if task else []
    if task is None or faults:
        places = dict.fromkeys(sorted(faults, key=lambda fault: (fault.line, fault.column, fault.key)))
        count = f"{len(places)} fault" + ("s" if len(places) != 1 else "")
        raise TaskError(f"{count} in the task", where=where, faults=tuple(places),
                        remedy="correct the lines named; docs/task-reference.md lists all keys")
    return task


def _section_faults(document: Document) -> list[Fault]:
    """Validate each section by itself, because one of them raised an error of ours, which ends a validation."""
    faults: list[Fault] = []
    for name, field in Task.model_fields.items():
        model, value = field.annotation, document.value.get(name)
        if value is None or not (isinstance(model, type) and issubclass(model, Settings)):
            continue
        try:
            model.model_validate(value)
        except ValidationError as error:
            faults += faults_of(error, document, Task, prefix=(name,))
        except AutoGLMError as error:
            key = f"{name}.{error.where}" if error.where else name
            faults.append(Fault(key, *document.mark((name,), of_key=True), error.message, error.remedy or ""))
    return faults


def _recipe_faults(task: Task, document: Document) -> list[Fault]:
    """What ``compress`` asks of the data that the data does not have."""
    recipe, data = task.recipe(), task.data
    if recipe is None:
        return []
    found = metric_faults(recipe, paired=data.text is None, fields=bool(data.fields or data.template))
    return [Fault(key_text(path), *document.mark(path), message, remedy)
            for path, message, remedy in ((("compress", *path), message, remedy) for path, message, remedy in found)]


def _rule_faults(document: Document) -> list[Fault]:
    """The faults of ``clean.rules``, which the cleaning room knows by their place in the list."""
    from openautoglm.data.rules.registry import rule_faults

    section = document.value.get("clean")
    rules = section.get("rules") if isinstance(section, dict) else None
    if not isinstance(rules, list):
        return []
    faults = []
    for fault in rule_faults(rules):
        path: KeyPath = ("clean", "rules", *(int(part) if part.isdigit() else part for part in fault.key.split(".")))
        of_key = "no setting" in fault.message
        faults.append(Fault(key_text(path), *document.mark(path, of_key=of_key), fault.message, fault.remedy))
    return faults
