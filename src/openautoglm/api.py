"""The public face: `AutoTrainer` builds a model from a task, `Pruner` makes one smaller, `load` generates text with it.

`open_engine`, `Engine` and `AsyncEngine` are the engine alone: token ids in, token ids out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.files import read_json
from openautoglm.engine.async_engine import AsyncEngine
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import open_engine
from openautoglm.export.export import ExportType, export_model
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.pruner import Pruner
from openautoglm.pipeline.stages.order import run_stages
from openautoglm.pipeline.task import Task

_log = log.get(__name__)
__all__ = ["AsyncEngine", "AutoTrainer", "Engine", "Model", "Pruner", "load", "open_engine"]
Record = str | Mapping[str, Any]


class AutoTrainer:
    """Builds a model from a task; stages that are finished in the run folder are not run again.

    ::

        trainer = AutoTrainer(config_path="task.yaml")
        trainer.search()
        trainer.train()
        print(trainer.evaluate())
        trainer.export("best_model")

    Args:
        config_path: a task file, a mapping with its keys, or a `Task`.
        output: run folder, in place of the task's own.

    Raises:
        TaskError: the task has faults; ``faults`` holds all of them.
    """

    def __init__(self, config_path: str | Path | Mapping[str, Any] | Task, *,
                 output: str | Path | None = None) -> None:
        self._run = Run.of(config_path, output)

    @property
    def task(self) -> Task:
        """The validated task."""
        return self._run.task

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.folder

    def clean(self) -> dict[str, Any]:
        """Clean and split the data; return the quality report."""
        run_stages(self._run, until="clean")
        report: dict[str, Any] = read_json(self._run.data / "quality.json")
        return report

    def search(self) -> dict[str, Any] | None:
        """Search as the task says; return the chosen point, None where the task has no search."""
        run_stages(self._run, until="search")
        if not self._run.search_file.is_file():
            return None
        point: dict[str, Any] = read_json(self._run.search_file)["point"]
        return point

    def train(self) -> Path:
        """Train, with all that comes before; return the folder of the trained model."""
        run_stages(self._run, until="self_distill")
        return self._run.model

    def evaluate(self) -> dict[str, Any]:
        """Evaluate, with all that comes before; return the scores of all decodings on all splits."""
        run_stages(self._run, until="evaluate")
        scores: dict[str, Any] = read_json(self._run.scores_file)
        return scores

    def export(self, path: str | Path, type: ExportType | None = None) -> Path:
        """Write the finished model to `path`: a bundle's folder, or a name ending in ``.zip``, ``.pkl`` or ``.gguf``.

        Whatever is not finished yet runs first. Where the task has a section `compress` and its targets are met, the
        compressed model is written, else the trained one; the log says which.

        Args:
            type: element type of a ``.gguf``, e.g. ``q8_0``; left out, as the weights are stored.
        """
        run_stages(self._run, until="export")
        written = export_model(self._run.result, path, type)
        if self.task.compress is not None:
            _log.info("exported %s, of the %s bundle", written.path,
                      "trained" if self._run.result == self._run.bundle else "compressed")
        return written.path

    def compress(self) -> dict[str, Any]:
        """Compress as the task says, with all that comes before; return what it brought and cost, as in the report.

        ``missed`` lists the targets that are not met; the result is empty where the task has no section `compress`.
        """
        run_stages(self._run, until="compress")
        found = self._run.state.finished("compress")
        return dict(found["facts"]) if found else {}

    def run(self) -> Path:
        """Run all stages; return the folder of the bundle to use, which `export` would write."""
        run_stages(self._run)
        return self._run.result


class Model:
    """An open bundle that generates; made by `load`."""

    def __init__(self, path: str | Path) -> None:
        from openautoglm.data.records import Reader
        from openautoglm.models.bundle import open_bundle
        from openautoglm.pipeline.engines import author_of

        self.bundle = open_bundle(path)
        self._author = author_of(self.bundle)
        self._reader = Reader(self.bundle.card.recipe.get("record"))

    def export(self, path: str | Path, type: ExportType | None = None) -> Path:
        """Write the model to `path`, as `AutoTrainer.export` does.

        Raises:
            AutoGLMError: the form cannot hold the model; message and remedy say why.
        """
        return export_model(self.bundle, path, type).path

    def generate(self, records: Record | Iterable[Record], **options: Any) -> Any:
        """Answer one record or many.

        Args:
            records: texts, or mappings with ``source``, ``messages`` or the columns the bundle was trained on.
            options: of `Sampling` (``temperature``, ``num_beams``, ``n``, ...); those left out are the card's.

        Returns:
            The text for one record, a list of texts for several.

        Raises:
            GenerationError: a record has nothing to answer, its prompt is too long, or an option is wrong.
        """
        from openautoglm.pipeline.answering import recommended

        single = isinstance(records, str | Mapping)
        many = [records] if single else list(records)
        sampling = recommended(self.bundle, options)
        answers = self._author.answer([self._reader.question(record) for record in many], sampling)
        return answers[0].text if single else [answer.text for answer in answers]


def load(path: str | Path) -> Model:
    """Open a bundle (folder, ``.zip`` or ``.pkl``) to generate with.

    Raises:
        BundleError: not a bundle, damaged, or of a newer format.
    """
    return Model(path)
