"""Predictions and references from files: CSV, TSV, JSON Lines or plain text, several references a source.

Ways of giving several references: a JSON list on one line; rows that repeat their source; blocks of lines
between blank lines (the E2E challenge's own format). Tables have a header line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from openautoglm.core.errors import EvaluationError

PREDICTION_NAMES = ("prediction", "output", "hypothesis", "generated", "text")
REFERENCE_NAMES = ("references", "reference", "ref", "target", "completion", "text")
SOURCE_NAMES = ("source", "input", "prompt", "mr")
_MOST_BYTES = 1 << 30
_REMEDY = ("give one prediction a case; several references of a case as a JSON list, as rows with the same "
           "source, or as a block between blank lines")


class Row(NamedTuple):
    """One row of a file: its line, its source (None where the file has none), its texts."""

    line: int
    source: str | None
    texts: tuple[str, ...]


class Pairs(NamedTuple):
    """Predictions and references in one order, with the sources where a file gave them."""

    predictions: list[str]
    references: list[tuple[str, ...]]
    sources: list[str] | None


def read_predictions_references(predictions_path: str | Path, references_path: str | Path, *,
                                prediction_column: str | None = None,
                                reference_column: str | None = None,
                                source_column: str | None = None) -> Pairs:
    """Read two files that belong together.

    Files are matched by source where both have one (with one prediction for each), by order otherwise.

    Args:
        predictions_path: one prediction a row; `.csv`, `.tsv`, `.jsonl`, anything else is plain text.
        references_path: the same formats, with several references a source.
        prediction_column, reference_column, source_column: names, where they are none of the usual ones.

    Raises:
        EvaluationError: a file cannot be read, a column is missing, or the two do not fit; names file and line.
    """
    predictions, references = Path(predictions_path), Path(references_path)
    given = _single(predictions, _rows(predictions, prediction_column, PREDICTION_NAMES, source_column))
    wanted = _grouped(_rows(references, reference_column, REFERENCE_NAMES, source_column))
    if not wanted or not given:
        raise EvaluationError("the file holds no text", where=str(predictions if not given else references))
    if all(row.source is not None for row in [*given, *wanted]):
        given = _matched(given, wanted, predictions, references)
    if len(given) != len(wanted):
        longer, rows, count = ((predictions, given, len(wanted)) if len(given) > len(wanted)
                               else (references, wanted, len(given)))
        raise EvaluationError(f"{len(given)} predictions, but references for {len(wanted)} cases",
                              where=f"{longer}:{rows[count].line}", remedy=_REMEDY)
    sources = [row.source for row in wanted if row.source is not None]
    return Pairs([row.texts[0] for row in given], [row.texts for row in wanted],
                 sources if len(sources) == len(wanted) else None)


def _rows(path: Path, column: str | None, usual: Sequence[str], source: str | None) -> list[Row]:
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        delimiter = "\t" if suffix == ".tsv" else ","
        return list(_table(path, text, delimiter, column, usual, source))
    if suffix in (".jsonl", ".ndjson"):
        return list(_json_lines(path, text, column, usual, source))
    return _plain(text, blocks=usual is REFERENCE_NAMES)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise EvaluationError("the file is larger than 1 GiB", where=str(path))
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EvaluationError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b"\n") + 1
        raise EvaluationError("not UTF-8", where=f"{path}:{line}", remedy="convert it to UTF-8") from error


def _table(path: Path, text: str, delimiter: str, column: str | None, usual: Sequence[str],
           source: str | None) -> Iterable[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(reader, [])
        at = _index(path, header, column, usual)
        source_at = _index(path, header, source, SOURCE_NAMES, needed=source is not None)
        if at is None:
            return
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise EvaluationError(f"{len(cells)} cells under {len(header)} columns",
                                      where=f"{path}:{line}")
            if cells:
                yield Row(line, None if source_at is None else cells[source_at], (cells[at],))
            line = reader.line_num + 1
    except csv.Error as error:
        raise EvaluationError(f"not a table: {error}", where=f"{path}:{line}") from error


def _index(path: Path, header: Sequence[str], name: str | None, usual: Sequence[str], *,
           needed: bool = True) -> int | None:
    for candidate in (name,) if name is not None else usual:
        if candidate in header:
            return list(header).index(candidate)
    if name is None and usual is not SOURCE_NAMES and len(header) == 1:
        return 0
    if not needed:
        return None
    raise EvaluationError(f"there is no column {name or ' or '.join(usual)}, only {', '.join(header)}",
                          where=f"{path}:1", remedy="name the column")


def _json_lines(path: Path, text: str, column: str | None, usual: Sequence[str],
                source: str | None) -> Iterable[Row]:
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        where = f"{path}:{line}"
        try:
            value = json.loads(raw)
        except (json.JSONDecodeError, RecursionError) as error:
            raise EvaluationError(f"not JSON: {error}", where=where) from error
        origin = None
        if isinstance(value, dict):
            named = [source] if source is not None else [name for name in SOURCE_NAMES if name in value][:1]
            found = value.get(named[0]) if named else None
            origin = found if isinstance(found, str) else None
            names = [name for name in ((column,) if column is not None else usual) if name in value]
            if not names:
                raise EvaluationError(f"there is no key {column or ' or '.join(usual)}", where=where)
            value = value[names[0]]
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(item, str) for item in texts):
            raise EvaluationError("a text or a list of texts is needed", where=where)
        if any("\ud800" <= character <= "\udfff" for item in texts for character in item):
            raise EvaluationError("half of a surrogate pair is no text", where=where)
        yield Row(line, origin, tuple(texts))


def _plain(text: str, *, blocks: bool) -> list[Row]:
    """One row a line; for references with blank lines inside, one row a block of lines."""
    lines = text.removesuffix("\n").split("\n") if text else []
    lines = [line.removesuffix("\r") for line in lines]
    while lines and not lines[-1].strip() and blocks:
        lines.pop()
    if not blocks or all(line.strip() for line in lines):
        return [Row(number, None, (line,)) for number, line in enumerate(lines, start=1)]
    rows: list[Row] = []
    block: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            rows.append(Row(number - len(block), None, tuple(block)))
            block = []
    return rows


def _single(path: Path, rows: list[Row]) -> list[Row]:
    for row in rows:
        if len(row.texts) != 1:
            raise EvaluationError(f"{len(row.texts)} predictions for one case", where=f"{path}:{row.line}")
    return rows


def _grouped(rows: list[Row]) -> list[Row]:
    """Merge rows that repeat their source; rows without one stay apart."""
    groups: dict[object, Row] = {}
    for number, row in enumerate(rows):
        key: object = number if row.source is None else row.source
        known = groups.get(key)
        groups[key] = row if known is None else known._replace(texts=known.texts + row.texts)
    return list(groups.values())


def _matched(given: list[Row], wanted: list[Row], predictions: Path, references: Path) -> list[Row]:
    """Bring predictions into the order of the references, by source."""
    by_source: dict[str | None, Row] = {}
    known = {row.source for row in wanted}
    for row in given:
        if row.source in by_source:
            first = by_source[row.source]
            if first.texts != row.texts:
                raise EvaluationError(f"another prediction than on line {first.line} for the same source",
                                      where=f"{predictions}:{row.line}",
                                      remedy="keep one prediction a source")
        elif row.source not in known:
            raise EvaluationError("there are no references for this source",
                                  where=f"{predictions}:{row.line}")
        else:
            by_source[row.source] = row
    for row in wanted:
        if row.source not in by_source:
            raise EvaluationError("there is no prediction for this source",
                                  where=f"{references}:{row.line}")
    return [by_source[row.source] for row in wanted]
