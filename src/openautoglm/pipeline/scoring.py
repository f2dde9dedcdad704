"""Scores of predictions against references, two files; no model is loaded for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openautoglm.core.errors import EvaluationError
from openautoglm.core.files import write_json
from openautoglm.evaluate.files import read_predictions_references
from openautoglm.evaluate.run import score
from openautoglm.evaluate.settings import EvaluateSettings


def evaluate_settings(**given: Any) -> EvaluateSettings:
    """Settings of evaluation from options of the command line; ``metrics`` is a text with commas.

    Raises:
        EvaluationError: an option is out of its range, or a metric is unknown.
    """
    metrics = given.pop("metrics", None)
    if metrics is not None:
        given["metrics"] = tuple(key.strip() for key in metrics.split(",") if key.strip())
    try:
        return EvaluateSettings(**given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise EvaluationError(faults.replace("Value error, ", ""), remedy="change these options") from error


def score_files(predictions: Path, references: Path, settings: EvaluateSettings, *, source: str | None,
                target: str | None, output: Path) -> tuple[dict[str, Any], Path]:
    """Score a file of predictions against a file of references; return the scores and where they were written.

    Raises:
        EvaluationError: the files cannot be read or do not belong together.
    """
    pairs = read_predictions_references(predictions, references, reference_column=target, source_column=source)
    scores = score(pairs.predictions, pairs.references, settings=settings).to_dict()
    path = output if output.suffix == ".json" else output / "scores.json"
    write_json(path, scores)
    return scores, path
