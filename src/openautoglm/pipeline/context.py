"""One run: its task, its folder and the places in it. Facts are few; everything else is derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openautoglm.core.files import read_json
from openautoglm.models.card import CARD_NAME, read_card
from openautoglm.pipeline.task import Task, load_task, make_task

if TYPE_CHECKING:
    from openautoglm.pipeline.plan import Plan
    from openautoglm.pipeline.state import RunState

SPLITS = ("train", "valid", "test")


@dataclass
class Run:
    """A task at work in its folder.

    Attributes:
        task: what the user wants.
        base: the folder that relative paths of the task start from (that of the task file).
        folder: the run folder.
        state: what is finished; set once the folder is held.
    """

    task: Task
    base: Path
    folder: Path
    state: RunState = field(init=False, repr=False)

    @classmethod
    def of(cls, task: str | Path | Mapping[str, Any] | Task, output: str | Path | None = None) -> Run:
        """A run of a task file, of a mapping or of a task; `output` (from the working folder) moves the run folder.

        Raises:
            TaskError: the task has faults.
        """
        base = Path.cwd()
        if isinstance(task, str | Path):
            base, task = Path(task).resolve().parent, load_task(task)
        elif not isinstance(task, Task):
            task = make_task(task)
        folder = Path(output).resolve() if output is not None else base / (task.output or f"runs/{task.name}")
        return cls(task, base, folder.resolve())

    @property
    def data(self) -> Path:
        """Cleaned examples and the quality report."""
        return self.folder / "data"

    def split(self, name: str) -> Path:
        """The cleaned examples of a split; the file may be absent or empty."""
        return self.data / f"{name}.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer and the token ids of the splits."""
        return self.folder / "tokenizer"

    @property
    def plan_file(self) -> Path:
        """Every setting of the run, none left open."""
        return self.folder / "plan.json"

    def plan(self) -> Plan:
        """Read the plan."""
        from openautoglm.pipeline.plan import Plan

        return Plan.model_validate(read_json(self.plan_file))

    @property
    def search(self) -> Path:
        """Journal and trials of the search."""
        return self.folder / "search"

    @property
    def search_file(self) -> Path:
        """The point that the search chose."""
        return self.search / "chosen.json"

    @property
    def train(self) -> Path:
        """Checkpoints, metrics and the trained model."""
        return self.folder / "train"

    @property
    def trained(self) -> Path:
        """The model as training left it, a bundle without scores."""
        return self.train / "model"

    @property
    def self_distill(self) -> Path:
        """Targets, checkpoints and the model of self-distillation."""
        return self.folder / "self_distill"

    @property
    def model(self) -> Path:
        """The model that is evaluated and exported, a bundle without scores."""
        return self.self_distill / "model" if self.task.self_distill.enabled else self.trained

    @property
    def evaluate(self) -> Path:
        """Scores and predictions."""
        return self.folder / "evaluate"

    @property
    def scores_file(self) -> Path:
        """All scores, and the decoding that was chosen."""
        return self.evaluate / "scores.json"

    @property
    def bundle(self) -> Path:
        """The finished bundle."""
        return self.folder / "bundle"

    @property
    def compressed(self) -> Path:
        """The compressed bundle; absent where the task has no `compress` section, or nothing met its targets."""
        return self.folder / "compressed"

    @property
    def result(self) -> Path:
        """The bundle to use: the compressed one where the task asks for it and it meets its targets, else `bundle`."""
        if self.task.compress is None or not (self.compressed / CARD_NAME).is_file():
            return self.bundle
        found = read_card(self.compressed).scores.get("compression", {})
        return self.bundle if found.get("missed", True) else self.compressed

    @property
    def report(self) -> Path:
        """The report, one HTML page."""
        return self.folder / "report.html"
