"""The plan of a load: each request with its time, its prompt and its bound, made before anything is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from openautoglm.bench.arrivals import Seconds, arrival_times
from openautoglm.bench.prompts import Lengths, Prompt, drawn_lengths, made_prompts, read_prompts
from openautoglm.bench.settings import USUAL_PROMPTS, LoadSettings
from openautoglm.bench.trace import Trace, read_trace, scaled
from openautoglm.bench.words import Vocabulary


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the plan.

    Attributes:
        number: its place in the plan.
        at_s: when it is to be sent, from the start of the load; of a closed loop 0.
        prompt: what is asked.
        max_tokens: most tokens of the answer.
        seed: of its sampling.
    """

    number: int
    at_s: float
    prompt: Prompt
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """All requests in the order of their times, and what is to be said about them."""

    asks: tuple[Ask, ...]
    notes: tuple[str, ...] = ()

    @property
    def span_s(self) -> float:
        """When the last request is sent."""
        return self.asks[-1].at_s if self.asks else 0.0


class Planner:
    """Makes plans of one load; files are read once.

    Raises:
        DataError: a trace or a data set cannot be read.
    """

    def __init__(self, settings: LoadSettings, vocabulary: Vocabulary) -> None:
        self._settings, self._vocabulary = settings, vocabulary
        self._trace: Trace | None = None
        if settings.replay is not None:
            self._trace = scaled(read_trace(settings.replay.path), settings.replay,
                                 count=settings.arrivals.num_prompts, request_rate=settings.arrivals.request_rate)
        self._rows = read_prompts(settings.prompts) if settings.prompts.dataset else []

    def plan(self, repetition: int = 0, most: int | None = None) -> Plan:
        """The plan of one repetition: the same settings, other random numbers; a trace keeps times and lengths.

        Args:
            most: only so many requests, the first ones.
        """
        seed = self._settings.seed + repetition
        if self._trace is not None:
            return self._of_trace(self._trace, seed, most)
        arrivals = self._settings.arrivals
        if arrivals.order == "open":
            times = arrival_times(arrivals, seed)[:most]
        else:
            times = np.zeros(arrivals.num_prompts or USUAL_PROMPTS)[:most]
        if self._rows:
            return self._of_rows(times, seed)
        prompts = self._settings.prompts
        dice = np.random.default_rng((seed, 3))
        lengths = drawn_lengths(prompts.input_len, prompts.range_ratio, len(times), dice)
        outputs = drawn_lengths(prompts.output_len, prompts.range_ratio, len(times), dice)
        made = made_prompts(prompts, self._vocabulary, lengths, seed)
        return Plan(_asks(times, made, outputs, seed), self._about_words())

    def _of_trace(self, trace: Trace, seed: int, most: int | None) -> Plan:
        limit = self._settings.arrivals.duration_s or math.inf
        count = int((trace.arrival_s[:most] < limit).sum())
        made = made_prompts(self._settings.prompts, self._vocabulary, trace.prompt_tokens[:count], seed)
        asks = _asks(trace.arrival_s[:count], made, trace.output_tokens[:count], seed)
        return Plan(asks, (*trace.notes, *self._about_words()))

    def _of_rows(self, times: Seconds, seed: int) -> Plan:
        rows, count = self._rows, len(times)
        dice = np.random.default_rng((seed, 4))
        order = np.concatenate([dice.permutation(len(rows)) for _ in range(-(-count // len(rows)) or 1)])[:count]
        chosen = [rows[int(place)] for place in order]
        usual = self._settings.prompts.output_len
        notes: tuple[str, ...] = ()
        if count > len(rows):
            notes = (f"the data set has {len(rows):,} prompts for {count:,} requests: they repeat, and a prefix cache "
                     "knows them",)
        return Plan(_asks(times, chosen, np.array([row.output_tokens or usual for row in chosen]), seed), notes)

    def _about_words(self) -> tuple[str, ...]:
        if self._vocabulary.exact:
            return ()
        return ("prompts are plain words, whose tokens only the server knows: give --tokenizer for exact lengths",)


def _asks(times: Seconds, prompts: list[Prompt], outputs: Lengths, seed: int) -> tuple[Ask, ...]:
    return tuple(Ask(number, float(at_s), prompt, int(output), (seed << 20) + number)
                 for number, (at_s, prompt, output) in enumerate(zip(times, prompts, outputs, strict=True)))
