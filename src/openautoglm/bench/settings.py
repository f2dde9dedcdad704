"""Options of a load: how requests arrive, what they ask, how their answers are judged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from openautoglm.core.settings import Settings

SLO_NAMES = ("ttft", "tpot", "e2el")
USUAL_PROMPTS = 200
Order = Literal["open", "closed"]


class Arrivals(Settings):
    """When requests are sent.

    Attributes:
        request_rate: requests per second; infinite: all at once, or with `max_concurrency` a closed loop.
        burstiness: shape of the gamma distribution of the gaps: 1 is a Poisson process, less comes in bursts, infinite
            is one request every ``1 / request_rate`` seconds.
        burst_size: requests that arrive together; the bursts then come at ``request_rate / burst_size``.
        max_concurrency: most requests under way; with an infinite rate the number of clients of a closed loop.
        think_time_s: what a client of a closed loop waits between an answer and its next request.
        num_prompts: requests in all; when None, what `duration_s` holds at the rate, or 200.
        duration_s: nothing is sent after so long.
    """

    request_rate: float = Field(default=math.inf, gt=0)
    burstiness: float = Field(default=1.0, gt=0)
    burst_size: int = Field(default=1, ge=1)
    max_concurrency: int | None = Field(default=None, ge=1)
    think_time_s: float = Field(default=0.0, ge=0)
    num_prompts: int | None = Field(default=None, ge=1)
    duration_s: float | None = Field(default=None, gt=0)

    @property
    def order(self) -> Order:
        """``closed`` where clients wait for their answers before they ask again."""
        return "closed" if math.isinf(self.request_rate) and self.max_concurrency is not None else "open"

    @model_validator(mode="after")
    def _fits_together(self) -> Arrivals:
        if math.isinf(self.request_rate) and self.burst_size > 1:
            raise ValueError("burst_size needs a request_rate")
        if self.think_time_s and self.order == "open":
            raise ValueError("only clients of a closed loop think: give max_concurrency and no request_rate")
        return self


class Replay(Settings):
    """A recorded load.

    Attributes:
        path: a file of arrival times and token counts; see `openautoglm.bench.trace`.
        rate_scale: how much faster it is replayed; `Arrivals.request_rate` sets the mean rate instead.
        length_scale: factor for the token counts of prompts and answers.
        start_s, duration_s: the part of it that is taken, in its own time.
        max_input_len, max_output_len: longer ones are cut to these, and counted.
    """

    path: Path
    rate_scale: float = Field(default=1.0, gt=0)
    length_scale: float = Field(default=1.0, gt=0)
    start_s: float = Field(default=0.0, ge=0)
    duration_s: float | None = Field(default=None, gt=0)
    max_input_len: int | None = Field(default=None, ge=1)
    max_output_len: int | None = Field(default=None, ge=1)


class Prompts(Settings):
    """What requests ask.

    Attributes:
        dataset: files of prompts; made of random words when empty.
        column: that holds the prompt; guessed when None.
        input_len, output_len: tokens of prompts that are made, and most tokens of an answer.
        range_ratio: lengths are drawn evenly from ``len * (1 - ratio)`` to ``len * (1 + ratio)``.
        shared_prefix: share of each prompt's tokens that it has in common with others.
        num_prefixes: how many different beginnings there are.
        ignore_eos: answers go on to their full length; when None, for made prompts and traces.
        temperature, top_p, seed: of sampling; a temperature of 0 takes the likeliest token.
    """

    dataset: tuple[str, ...] = ()
    column: str | None = None
    input_len: int = Field(default=128, ge=1)
    output_len: int = Field(default=64, ge=1)
    range_ratio: float = Field(default=0.0, ge=0, lt=1)
    shared_prefix: float = Field(default=0.0, ge=0, le=1)
    num_prefixes: int = Field(default=1, ge=1)
    ignore_eos: bool | None = None
    temperature: float = Field(default=0.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)

    @property
    def ignores_eos(self) -> bool:
        """Whether answers go on to their full length."""
        return not self.dataset if self.ignore_eos is None else self.ignore_eos


class Judgement(Settings):
    """How measurements are judged.

    Attributes:
        num_warmups: requests before the load, one after the other; they are not counted.
        warmup_s: requests that arrive earlier are sent but not counted.
        timeout_s: an answer that takes longer is an error.
        stall_s: a server that gives nothing for so long while requests are under way has stalled.
        lag_ms: a generator that is later than this, at the 99th percentile, is saturated.
        percentiles: of every latency.
        goodput: bounds in milliseconds by name (``ttft``, ``tpot``, ``e2el``): a request that keeps all is good.
        repetitions: how often the whole load is put on, each time with other random numbers.
        confidence: of the intervals.
        resamples: of the bootstrap.
        sample_s: time between two looks at processes and metrics.
    """

    num_warmups: int = Field(default=1, ge=0)
    warmup_s: float = Field(default=0.0, ge=0)
    timeout_s: float = Field(default=600.0, gt=0)
    stall_s: float = Field(default=10.0, gt=0)
    lag_ms: float = Field(default=10.0, gt=0)
    percentiles: tuple[float, ...] = (50, 90, 95, 99)
    goodput: dict[str, float] = Field(default_factory=dict)
    repetitions: int = Field(default=1, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=100)
    sample_s: float = Field(default=0.5, gt=0)

    @field_validator("percentiles")
    @classmethod
    def _inside(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < percentile < 100 for percentile in value):
            raise ValueError("percentiles lie between 0 and 100, both left out")
        return tuple(sorted(set(value)))

    @field_validator("goodput")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        for name, bound in value.items():
            if name not in SLO_NAMES:
                raise ValueError(f"no bound is known for {name!r}; there are {', '.join(SLO_NAMES)}")
            if not bound > 0:
                raise ValueError(f"the bound of {name} is {bound:g} ms; it must be above 0")
        return value


class LoadSettings(Settings):
    """A whole load; `seed` sets arrivals, lengths, words and sampling."""

    arrivals: Arrivals = Field(default_factory=Arrivals)
    replay: Replay | None = None
    prompts: Prompts = Field(default_factory=Prompts)
    judge: Judgement = Field(default_factory=Judgement)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> LoadSettings:
        arrivals, replay = self.arrivals, self.replay
        if replay is not None:
            if arrivals.order == "closed":
                raise ValueError("a trace has its own arrival times, a closed loop has none: leave one of them out")
            if self.prompts.dataset:
                raise ValueError("a trace gives lengths of prompts, a data set gives prompts: leave one of them out")
            if replay.rate_scale != 1 and not math.isinf(arrivals.request_rate):
                raise ValueError("rate_scale and request_rate both set the rate of the trace: give one of them")
        if arrivals.duration_s is not None and self.judge.warmup_s >= arrivals.duration_s:
            raise ValueError("nothing is left after warmup_s: make duration_s longer")
        return self
