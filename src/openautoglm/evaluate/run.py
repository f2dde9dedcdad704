"""The face of evaluation: cases in, scores out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from openautoglm.core.errors import EvaluationError
from openautoglm.core.values import Example, Turn
from openautoglm.evaluate.base import Inputs, Likelihood, Metric
from openautoglm.evaluate.bootstrap import intervals
from openautoglm.evaluate.registry import METRICS
from openautoglm.evaluate.scores import Score, Scores
from openautoglm.evaluate.settings import EvaluateSettings

_CHINESE = re.compile(r"[㐀-䶿一-鿿豈-﫿]")


@dataclass(frozen=True, slots=True)
class Case:
    """One input to be answered, with all its accepted answers."""

    source: str
    turns: tuple[Turn, ...]
    fields: tuple[tuple[str, str], ...]
    references: tuple[str, ...]


def group_cases(examples: Iterable[Example]) -> list[Case]:
    """Merge the rows of one source (and earlier turns) into one case, in order of first appearance.

    Examples without any source (plain text) stay apart, one case each.
    """
    groups: dict[object, list[Example]] = {}
    for number, example in enumerate(examples):
        key: object = (example.source, example.turns) if example.source or example.turns else number
        groups.setdefault(key, []).append(example)
    return [Case(rows[0].source, rows[0].turns, rows[0].fields, tuple(row.target for row in rows))
            for rows in groups.values()]


def run(dataset: Sequence[Case], generate: Callable[[Sequence[Case]], Sequence[str]],
        settings: EvaluateSettings, *, likelihoods: Sequence[Likelihood] | None = None) -> Scores:
    """Generate a prediction for each case and score them. EvaluationError where the counts differ."""
    predictions = generate(dataset)
    fields = [case.fields for case in dataset] if any(case.fields for case in dataset) else None
    return score(predictions, [case.references for case in dataset], fields=fields, settings=settings,
                 likelihoods=likelihoods)


def score(predictions: Sequence[str], references: Sequence[Sequence[str]], *,
          fields: Sequence[tuple[tuple[str, str], ...]] | None = None, settings: EvaluateSettings,
          likelihoods: Sequence[Likelihood] | None = None) -> Scores:
    """Measure predictions against references.

    Args:
        predictions: one text a case.
        references: for each case one or more accepted texts; cases may have different numbers.
        fields: for each case the record behind it (slot coverage).
        settings: which metrics, and how.
        likelihoods: for each case what the model says of its reference (perplexity, bits per byte).

    Raises:
        EvaluationError: counts differ, a case has no reference, or an asked metric lacks its data.
    """
    inputs = Inputs(predictions, references, fields, likelihoods)
    _check(inputs)
    metrics = _chosen(inputs, settings)
    measured = [metric.measure(inputs, settings) for metric in metrics]
    once = np.ones((1, len(predictions)))
    values = [float(one.under(once)[0]) for one in measured]
    spans: Sequence[tuple[float | None, float | None]] = [(None, None)] * len(measured)
    bootstrap = ""
    if settings.bootstrap:
        spans = intervals(measured, values, len(predictions), count=settings.bootstrap,
                          confidence=settings.confidence, seed=settings.seed)
        bootstrap = (f"{settings.confidence:.0%} percentile bootstrap over cases, "
                     f"{settings.bootstrap} resamples, seed {settings.seed}")
    scores = tuple(Score(metric.key, one.name, value, low, high, one.signature, metric.better)
                   for metric, one, value, (low, high) in zip(metrics, measured, values, spans, strict=True))
    return Scores(scores, len(predictions), sum(map(len, references)), bootstrap, _notes(inputs, settings))


def _check(inputs: Inputs) -> None:
    count = len(inputs.predictions)
    if not count:
        raise EvaluationError("there is nothing to evaluate", remedy="give at least one prediction")
    for what, rows in (("references", inputs.references), ("fields", inputs.fields),
                       ("likelihoods", inputs.likelihoods)):
        if rows is not None and len(rows) != count:
            raise EvaluationError(f"{count} predictions but {what} for {len(rows)} cases",
                                  remedy="give one prediction a case, in the same order")
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    for number, (prediction, references) in enumerate(pairs, start=1):
        if isinstance(references, str) or not references:
            raise EvaluationError("a case needs a list of at least one reference", where=f"case {number}")
        if not isinstance(prediction, str) or not all(isinstance(text, str) for text in references):
            raise EvaluationError("predictions and references must be text", where=f"case {number}")


def _chosen(inputs: Inputs, settings: EvaluateSettings) -> list[Metric]:
    if settings.metrics is not None:
        return [METRICS[key] for key in settings.metrics]
    there = {"texts": True, "fields": inputs.fields is not None,
             "likelihoods": inputs.likelihoods is not None}
    several = inputs.most_references > 1
    return [metric for metric in METRICS.values()
            if there[metric.needs] and metric.key != "ter" and (several or not metric.key.endswith("_first"))]


def _notes(inputs: Inputs, settings: EvaluateSettings) -> tuple[str, ...]:
    notes = []
    empty = sum(not prediction.strip() for prediction in inputs.predictions)
    if empty:
        notes.append(f"{empty} of {len(inputs.predictions)} predictions are empty")
    text = "".join(references[0] for references in inputs.references[:1000])
    chinese = len(_CHINESE.findall(text))
    if chinese > 0.3 * len(text) and settings.tokenize not in ("zh", "char"):
        notes.append(f"the references are Chinese, but tokenize is {settings.tokenize}: set it to zh or char "
                     "(BLEU sees whole clauses as words, ROUGE sees none)")
    split = sum(prediction.endswith(" .") for prediction in inputs.predictions)
    if split > 0.5 * len(inputs.predictions):
        notes.append("most predictions end in a separate full stop: they look tokenised, give plain text")
    return tuple(notes)
