"""Recorded loads: arrival times and token counts, read from a file and scaled to a machine.

Formats are told by their columns (CSV, TSV, JSON or JSON Lines): the Azure LLM inference traces (Patel et al. 2024),
BurstGPT (Wang et al. 2024), Mooncake (Qin et al. 2024), and our own ``arrival_s, prompt_tokens, output_tokens``.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.bench.settings import Replay
from openautoglm.core.errors import DataError
from openautoglm.data.read.paths import file_format
from openautoglm.data.read.reader import columns, open_table
from openautoglm.data.read.row import Bad
from openautoglm.data.settings import DataSettings

_MOST_ROWS = 10_000_000


class Form(NamedTuple):
    """Columns of one kind of trace: arrival time, tokens of prompt and answer, and seconds of one unit of time."""

    name: str
    arrival: str
    prompt: str
    output: str
    unit_s: float = 1.0


FORMS = (Form("openautoglm", "arrival_s", "prompt_tokens", "output_tokens"),
         Form("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
         Form("BurstGPT", "Timestamp", "Request tokens", "Response tokens"),
         Form("Mooncake", "timestamp", "input_length", "output_length", 1e-3))


class Trace(NamedTuple):
    """A load as it was recorded or scaled.

    Attributes:
        arrival_s: [requests] from the first one on, in order.
        prompt_tokens, output_tokens: [requests] at least 1.
        notes: what was cut or left out, in words.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Mean requests per second: gaps by the time from first to last; infinite where all come at once."""
        count = len(self.arrival_s)
        span = float(self.arrival_s[-1] - self.arrival_s[0]) if count else 0.0
        return (count - 1) / span if span > 0 else math.inf


def read_trace(path: str | Path) -> Trace:
    """Read a trace, sorted by time; requests without tokens of a prompt or of an answer are left out and counted.

    Raises:
        DataError: the file cannot be read, its columns are of no known kind, or a row is broken; names file and line.
    """
    path = Path(path)
    settings = DataSettings(train=(str(path),), text="text")
    if not path.is_file():
        raise DataError("no such file", where=str(path), remedy="give a trace of arrival times and token counts")
    if file_format(path, settings) in ("parquet", "text"):
        raise DataError("a trace has columns: CSV, TSV, JSON or JSON Lines", where=str(path),
                        remedy="convert the file first")
    form = _form(columns(path, settings), path)
    table = np.array(list(_rows(path, settings, form)), np.float64).reshape(-1, 3)
    kept = table[(table[:, 1] >= 1) & (table[:, 2] >= 1)]
    if not len(kept):
        raise DataError("the trace holds no request with tokens", where=str(path), remedy="give another file")
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    empty = len(table) - len(kept)
    notes = (f"{empty:,} of {len(table):,} requests of the trace have no tokens and were left out",) if empty else ()
    return Trace((kept[:, 0] - kept[0, 0]) * form.unit_s, kept[:, 1].astype(np.int64), kept[:, 2].astype(np.int64),
                 notes)


def scaled(trace: Trace, settings: Replay, *, count: int | None = None, request_rate: float = math.inf) -> Trace:
    """Take a part of a trace, and scale its rate and its lengths.

    Args:
        count: at most so many requests, the first ones of the part.
        request_rate: mean rate of what is taken, in requests per second; infinite: as `Replay.rate_scale` says.

    Raises:
        DataError: nothing is left.
    """
    end = math.inf if settings.duration_s is None else settings.start_s + settings.duration_s
    chosen = np.flatnonzero((trace.arrival_s >= settings.start_s) & (trace.arrival_s < end))[:count]
    if not len(chosen):
        raise DataError(f"the trace has no request from {settings.start_s:g} s on within that time",
                        where=str(settings.path), remedy="take another part of it")
    part = Trace(trace.arrival_s[chosen] - trace.arrival_s[chosen[0]], trace.prompt_tokens[chosen],
                 trace.output_tokens[chosen], trace.notes)
    scale = settings.rate_scale
    if not math.isinf(request_rate) and not math.isinf(part.rate):
        scale = request_rate / part.rate
    prompts, cut_prompts = _lengths(part.prompt_tokens, settings.length_scale, settings.max_input_len)
    outputs, cut_outputs = _lengths(part.output_tokens, settings.length_scale, settings.max_output_len)
    notes = [*part.notes]
    for cut, what, bound in ((cut_prompts, "prompts", settings.max_input_len),
                             (cut_outputs, "answers", settings.max_output_len)):
        if cut:
            notes.append(f"{cut:,} of {len(prompts):,} {what} of the trace were cut to {bound:,} tokens")
    return Trace(part.arrival_s / scale, prompts, outputs, tuple(notes))


def _lengths(tokens: NDArray[np.int64], scale: float, most: int | None) -> tuple[NDArray[np.int64], int]:
    lengths = np.maximum(np.rint(tokens * scale), 1).astype(np.int64)
    if most is None:
        return lengths, 0
    return np.minimum(lengths, most), int((lengths > most).sum())


def _form(names: list[str], path: Path) -> Form:
    for form in FORMS:
        if {form.arrival, form.prompt, form.output} <= set(names):
            return form
    known = "; ".join(f"{form.arrival}, {form.prompt}, {form.output}" for form in FORMS)
    raise DataError(f"its columns ({', '.join(names[:20])}) are of no known kind of trace", where=str(path),
                    remedy=f"use one of: {known}")


def _rows(path: Path, settings: DataSettings, form: Form) -> Iterator[tuple[float, float, float]]:
    with open_table(path, settings) as table:
        for number, row in enumerate(table.rows):
            where = f"{path}:{row.line}"
            if isinstance(row, Bad):
                raise DataError(f"{row.reason}: {row.detail}", where=where, remedy="repair or remove the line")
            if number >= _MOST_ROWS:
                raise DataError(f"has more than {_MOST_ROWS:,} requests", where=where, remedy="cut the file")
            yield (_time(row.values.get(form.arrival), where, form.arrival),
                   _number(row.values.get(form.prompt), where, form.prompt),
                   _number(row.values.get(form.output), where, form.output))


def _time(value: Any, where: str, column: str) -> float:
    """Seconds of a date with time, or a number as it is."""
    number = _float(value)
    if math.isfinite(number):
        return number
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DataError(f"the column {column!r} holds {value!r}, which is neither a number nor a date with time",
                        where=where, remedy="repair or remove the line") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _number(value: Any, where: str, column: str) -> float:
    number = _float(value)
    if not 0 <= number <= 1e9:
        raise DataError(f"the column {column!r} holds {value!r}, which is no number of tokens", where=where,
                        remedy="repair or remove the line")
    return number


def _float(value: Any) -> float:
    """A number, or NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
