"""Validation by generated text on a few records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from openautoglm.engine.sampling import Sampling
from openautoglm.evaluate.run import Case, score
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.pipeline.context import Run

if TYPE_CHECKING:
    from openautoglm.pipeline.generation import Author

T = TypeVar("T")


def evenly(items: Sequence[T], most: int | None) -> list[T]:
    """At most `most` items, evenly spaced, in order."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def dev_hook(run: Run, author: Author, cases: Sequence[Case], metrics: tuple[str, ...]
             ) -> Callable[[Any, int], Mapping[str, float]]:
    """A validation hook for training: greedy texts of `cases`, scored without intervals."""
    own = {name: getattr(run.task.evaluate, name) for name in EvaluateSettings.model_fields}
    settings = EvaluateSettings(**{**own, "metrics": metrics, "bootstrap": 0})
    bound = max(len(author.tokenizer.encode(text)) for case in cases for text in case.references)
    greedy = Sampling(max_new_tokens=max(16, bound * 3 // 2))

    def hook(_model: Any, _step: int) -> Mapping[str, float]:
        answers = author.answer(cases, greedy)
        scores = score([answer.text for answer in answers], [case.references for case in cases],
                       fields=[case.fields for case in cases] if any(case.fields for case in cases) else None,
                       settings=settings)
        return {one.key: one.value for one in scores}

    return hook
