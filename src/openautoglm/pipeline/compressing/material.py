"""The task's own data as compression needs it: records to answer, texts to compare on, ids to calibrate with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from openautoglm.core import log
from openautoglm.core.errors import CompressError, DataError
from openautoglm.core.values import Example, Origin, Turn
from openautoglm.data.jsonl import read_examples
from openautoglm.data.read.paths import resolve
from openautoglm.data.read.reader import read
from openautoglm.data.settings import DataSettings
from openautoglm.evaluate.run import Case, group_cases
from openautoglm.models.bundle import Bundle
from openautoglm.pipeline.recovery import Recovery
from openautoglm.pipeline.sampled import evenly
from openautoglm.pipeline.scoring_bundle import data_settings

_log = log.get(__name__)
LONGEST = 256
"""Tokens of a text on which two models are compared."""


@dataclass(frozen=True)
class Material:
    """What is there of a task.

    Attributes:
        cases: records with references, that no step is shown.
        examples: records for methods that look at data; those of `cases` where there are no others.
        tokens: what pruned models recover with; None where there is no run.
        run: the folder of that run.
    """

    cases: Sequence[Case]
    examples: Sequence[Example]
    tokens: Recovery | None = None
    run: Path | None = None

    @property
    def paired(self) -> bool:
        """Whether there is something to answer, rather than plain text."""
        return any(case.source or case.turns for case in self.cases)

    def texts(self, bundle: Bundle, most: int) -> list[tuple[list[int], int]]:
        """Ids of up to `most` records with their first references, and the first id that is predicted."""
        chosen = [Example(case.source, case.references[0], Origin("", 0), case.fields, case.turns)
                  for case in evenly(self.cases, most)]
        longest = min(LONGEST, bundle.spec.max_positions)
        found = []
        for item in bundle.template.encode_many(chosen, bundle.tokenizer):
            ids, first = list(item.ids), max(1, item.prompt_tokens)
            if len(ids) > longest and first >= longest:  # a long prompt: its end says more than its beginning
                ids, first = ids[first - longest // 2:], longest // 2
            if first < len(ids[:longest]):
                found.append((ids[:longest], first))
        return found

    def calibration(self, bundle: Bundle, most: int) -> list[list[int]]:
        """Ids of up to `most` whole records, as the model sees them."""
        return [list(item.ids) for item in bundle.template.encode_many(evenly(self.examples, most), bundle.tokenizer)]


def of_run(folder: Path, most: int | None) -> Material:
    """The cleaned splits of a run folder: the validation records are measured on, the training records are shown.

    Raises:
        CompressError: the folder is that of no finished run.
    """
    data = folder / "data"
    valid, train = data / "valid.jsonl", data / "train.jsonl"
    if not (valid.is_file() and train.is_file()):
        raise CompressError("holds no cleaned data", where=str(folder),
                            remedy="give the folder of a finished `autoglm run`, or --data FILES")
    cases = evenly(group_cases(read_examples(valid)), most)
    return Material(cases, list(islice(read_examples(train), 4096)), Recovery.of_run(folder), folder)


def of_files(bundle: Bundle, data: Sequence[str], calibration: Sequence[str], most: int | None, *,
             source: str | None = None, target: str | None = None) -> Material:
    """Records of data files, read as the bundle's own data was, or by other columns; where nothing is known of them,
    plain text: paragraphs, or lines where no blank line parts them.

    Args:
        calibration: files with records that methods are shown; half of `data` where there are none.

    Raises:
        DataError: a file or column is missing, or nothing can be read.
    """
    shown = list(_rows(bundle, calibration, source, target)) if calibration else []
    rows = list(_rows(bundle, data, source, target))
    groups = group_cases(rows)
    if not shown and len(groups) > 1:
        held = {id(case) for case in groups[1::2]}
        keys = {_key(case.source, case.turns, case.references[0]) for case in groups if id(case) not in held}
        shown = [row for row in rows if _key(row.source, row.turns, row.target) in keys]
        groups = [case for case in groups if id(case) in held]
        _log.info("half of the records are shown to methods that look at data, the others are measured on")
    return Material(evenly(groups, most), shown or rows)


def _key(source: str, turns: tuple[Turn, ...], target: str) -> tuple[object, ...]:
    """What tells a record from others: what is answered, or the text itself where there is nothing to answer."""
    return (source, turns) if source or turns else (target,)


def _rows(bundle: Bundle, files: Sequence[str], source: str | None, target: str | None) -> Iterable[Example]:
    if source is None and not bundle.card.recipe.get("record"):  # a released checkpoint: plain text
        settings = DataSettings(train=tuple(files), text=target or "text")
    else:
        settings = data_settings(bundle, files, source, target)
    paths = resolve(settings.train, Path.cwd())
    found = [row for row in read(paths, settings) if isinstance(row, Example)]
    if len(found) <= len(paths) and settings.text is not None:  # no blank line in a text file
        settings = settings.model_copy(update={"text_unit": "line"})
        found = [row for row in read(paths, settings) if isinstance(row, Example)]
    if not found:
        raise DataError("not one row can be read", where=", ".join(files), remedy="check the columns and the format")
    return found
