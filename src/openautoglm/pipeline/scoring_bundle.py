"""Scores of a bundle on data files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openautoglm.core import log
from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Reject
from openautoglm.data.read.paths import resolve
from openautoglm.data.read.reader import read
from openautoglm.data.settings import DataSettings
from openautoglm.engine.open import ProgramSettings
from openautoglm.evaluate.run import group_cases
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.pipeline.answering import recommended
from openautoglm.pipeline.evaluation import EvaluateTask
from openautoglm.pipeline.measure import measure_bundle
from openautoglm.pipeline.sampled import evenly

_log = log.get(__name__)


def score_bundle(path: Path, files: Sequence[str], settings: EvaluateSettings, *, source: str | None,
                 target: str | None, num_beams: int | None, most: int | None, output: Path,
                 program: ProgramSettings | None = None) -> tuple[dict[str, Any], Path]:
    """Generate with a bundle for the records of some files, and score; texts and scores go to the folder `output`.

    `program` says how the bundle is loaded.

    Raises:
        BundleError: the bundle cannot be opened.
        DataError: a file or a column is missing, or no row can be read.
    """
    bundle = open_bundle(path)
    data = data_settings(bundle, files, source, target)
    paths = resolve(data.train, Path.cwd())
    examples, rejects = list[Example](), list[Reject]()
    for row in read(paths, data):
        (examples if isinstance(row, Example) else rejects).append(row)  # type: ignore[arg-type]
    if rejects:
        first = rejects[0]
        _log.warning(
            "%d rows cannot be read; first: %s: %s: %s",
            len(rejects),
            first.origin,
            first.reason,
            first.detail,
        )
    if not examples:
        raise DataError("not one row can be read", where=", ".join(files), remedy="check the columns and the format")
    sampling = recommended(bundle, {} if num_beams is None else {"num_beams": num_beams})
    section = EvaluateTask(**settings.model_dump(), decodings={"recommended": sampling})
    measured = measure_bundle(bundle, {"data": evenly(group_cases(examples), most)}, section, output, program)
    by = measured["splits"]["data"]
    return next(iter(by.values())), output / "scores.json"


def data_settings(bundle: Bundle, files: Sequence[str], source: str | None, target: str | None) -> DataSettings:
    """How the rows of `files` are read: as the bundle's training data was, with other columns in place if given.

    Raises:
        DataError: the bundle does not say how records look, and no columns were given.
    """
    record = {key: value for key, value in bundle.card.recipe.get("record", {}).items() if value is not None}
    if source is not None:
        record = {key: value for key, value in record.items() if key not in ("template", "messages", "text")}
        record["source"] = source
    if target is not None:
        record["target"] = target
    try:
        return DataSettings.model_validate({**record, "train": tuple(files)})
    except ValidationError as error:
        raise DataError("; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors()),
                        where=str(bundle.path), remedy="give --source and --target") from error
