"""Guesses of the next tokens from the text so far: what followed the last tokens where they stood before.

Lossless: the program computes the logits of all guessed rows in one step, each token is then chosen from them as ever
(the argmax, or the draw of its own random number), and a guess counts only where it is that token. For a draw this is
speculative sampling (Leviathan et al. 2023, arXiv 2211.17192) with a draft that is certain: it is accepted with the
probability the model gives it, and a refusal draws from the rest; the same seed even gives the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from openautoglm.engine.settings import Speculation

_LONGEST_PAUSE = 4096


class Lookup:
    """The guesses for one sequence.

    Attributes:
        drafted, accepted: tokens guessed so far, and those that came true.
        pauses: how often guessing was switched off for a while.
    """

    def __init__(self, settings: Speculation) -> None:
        self._settings = settings
        self._places: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._judged = (0, 0)
        self._pause = settings.pause
        self._resume_at = 0
        self.drafted = self.accepted = self.pauses = 0

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """Guess at most `most` tokens that follow; often none."""
        size, length = self._settings.ngram, len(tokens)
        if most < 1 or length < self._resume_at or length <= size:
            return []
        for end in range(max(self._indexed, size), length):  # n-grams that end before the last token
            self._places[tuple(tokens[end - size:end])] = end
        self._indexed = length
        place = self._places.get(tuple(tokens[-size:]))
        if place is None:
            return []
        return list(tokens[place:place + min(most, self._settings.draft_tokens)])

    def judge(self, drafted: int, accepted: int, length: int) -> None:
        """Note how many guesses came true; `length` is that of the text now."""
        self.drafted += drafted
        self.accepted += accepted
        tried = self.drafted - self._judged[0]
        if tried < self._settings.patience:
            return
        share = (self.accepted - self._judged[1]) / tried
        self._judged = (self.drafted, self.accepted)
        if share < self._settings.min_acceptance:
            self.pauses += 1
            self._resume_at = length + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            self._pause = self._settings.pause
