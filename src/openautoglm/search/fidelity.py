"""Hyperband (Li et al., JMLR 2018) over training tokens, reproducible across interruptions.

Optuna gives a trial its bracket by a hash of its number, and counts the rungs of every trial, whatever became
of it. Both change when a killed trial runs again. Here a bracket follows from the trial's *position*: its
number less the interrupted trials before it. Interrupted trials belong to no bracket. Brackets exist from the
start, not from the first report on, so that a resumed process groups trials as the first one did.
"""

from __future__ import annotations

import binascii
import math
from bisect import bisect_left
from collections.abc import Sequence

import optuna
from optuna.pruners import HyperbandPruner

NO_BRACKET = -1


def bracket_count(min_tokens: int, max_tokens: int, reduction_factor: int) -> int:
    """Return how many brackets fit between the least and the most tokens of a trial."""
    brackets = 1
    while min_tokens * reduction_factor**brackets <= max_tokens:
        brackets += 1
    return brackets


def affordable_brackets(trials: int | None, startup_trials: int, most: int) -> int:
    """Return how many brackets `trials` can fill with twice the start-up trials each: 1 to `most`."""
    return 1 if trials is None else max(1, min(most, trials // (2 * startup_trials)))


class TokenHyperband(HyperbandPruner):  # type: ignore[misc]
    """Optuna's Hyperband with brackets by position.

    Args:
        min_tokens: first rung of the first bracket.
        max_tokens: tokens of a whole trial.
        reduction_factor: one of so many trials goes on at each rung.
        brackets: number of brackets.
        interrupted: sorted numbers of the trials that were interrupted and run again.
    """

    def __init__(self, *, min_tokens: int, max_tokens: int, reduction_factor: int, brackets: int,
                 interrupted: Sequence[int]) -> None:
        super().__init__(min_resource=min_tokens, max_resource=max_tokens, reduction_factor=reduction_factor)
        self._interrupted = list(interrupted)
        self._n_brackets = brackets
        self._budget_edges = self._edges(brackets, reduction_factor)

    @staticmethod
    def _edges(brackets: int, reduction_factor: int) -> list[int]:
        sizes = [math.ceil(brackets * reduction_factor**left / (left + 1))
                 for left in reversed(range(brackets))]
        return [sum(sizes[:count]) for count in range(1, brackets + 1)]

    def position(self, number: int) -> int:
        """Return a trial's place in the sequence without interruptions."""
        return number - bisect_left(self._interrupted, number)

    def interrupt(self, number: int) -> None:
        """Take a trial out of its bracket: it was interrupted and will run again."""
        place = bisect_left(self._interrupted, number)
        if place == len(self._interrupted) or self._interrupted[place] != number:
            self._interrupted.insert(place, number)

    def _get_bracket_id(self, study: optuna.study.Study, trial: optuna.trial.FrozenTrial) -> int:
        place = bisect_left(self._interrupted, trial.number)
        if place < len(self._interrupted) and self._interrupted[place] == trial.number:
            return NO_BRACKET
        draw = binascii.crc32(f"{study.study_name}_{trial.number - place}".encode()) % self._budget_edges[-1]
        return next(bracket for bracket, edge in enumerate(self._budget_edges) if draw < edge)
