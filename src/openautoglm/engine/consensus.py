"""The choice of one text among candidates: the first, the best covered, or the one most agreed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy

from openautoglm.engine.coverage import best_covered
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.similarity import UTILITIES


def consensus(
    texts: Sequence[str],
    utility: Literal["bleu", "chrf"] = "bleu",
    *,
    weights: Sequence[float] | None = None,
    among: Sequence[int] | None = None,
) -> int:
    """Return the number of the text with the largest expected utility: minimum Bayes risk (Kumar and Byrne
    2004).

    The expectation is over the texts themselves, a text counting as often as it stands there. Ties go to the
    first.

    Args:
        texts: candidates, at least one.
        utility: what agreement of two texts is.
        weights: of the texts in the expectation; all the same when None.
        among: numbers that may be chosen; all when None.
    """
    distinct = list(dict.fromkeys(texts))
    place = {text: number for number, text in enumerate(distinct)}
    mass = numpy.zeros(len(distinct))
    for number, text in enumerate(texts):
        mass[place[text]] += 1.0 if weights is None else weights[number]
    expected = UTILITIES[utility](distinct) @ mass
    return max(
        range(len(texts)) if among is None else among, key=lambda number: expected[place[texts[number]]]
    )


def choose(
    texts: Sequence[str],
    fields: Sequence[tuple[str, str]],
    settings: Sampling,
    logprobs: Sequence[float] | None = None,
) -> int:
    """Return the number of the text that `settings.choose` asks for.

    Args:
        texts: candidates, best first.
        fields: name and value of the record behind the prompt.
        logprobs: of the texts. Beams are no draws from the model, so they count by their probability in a
            consensus;
            samples count alike, for likely ones were drawn more often already.
    """
    if settings.choose == "first" or len(texts) == 1:
        return 0
    among = best_covered(fields, texts) if "coverage" in settings.choose else list(range(len(texts)))
    if settings.choose == "coverage":
        return among[0]
    weights = None
    if settings.num_beams > 1 and logprobs is not None:
        shifted = numpy.array(logprobs) - max(logprobs)
        weights = numpy.exp(shifted).tolist()
    return consensus(texts, settings.utility, weights=weights, among=among)
