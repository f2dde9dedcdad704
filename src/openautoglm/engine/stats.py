"""What an engine has done and how it stands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openautoglm.engine.pages import PagePool
    from openautoglm.engine.schedule import Scheduler

_RECENT = 1024


@dataclass(frozen=True)
class Stats:
    """A picture of an engine at one moment; counts are since it was made.

    Attributes:
        waiting, filling, decoding: sequences in the queue, computing their prompt, generating.
        pages, pages_held, pages_idle: of the cache; held by sequences; kept for later ones.
        requests, finished, failed, cancelled: requests; those that ended well, by a fault, by client or deadline.
        steps, step_seconds: steps of the program, and the time they and their bookkeeping took.
        prompt_tokens, generated_tokens: tokens of prompts that were computed, and tokens generated.
        prefix_hit_rate: share of tokens of admitted sequences found in the cache.
        evictions, preemptions, failed_steps: how often.
        drafted, accepted: tokens guessed ahead, and those that came true.
        tokens_per_second: generated tokens by second of stepping.
        ttft_s: median time to first token, of the last requests; None before the first.
        prefix_asked, prefix_hit: tokens of admitted sequences, and those of them found in the cache.
    """

    waiting: int
    filling: int
    decoding: int
    pages: int
    pages_held: int
    pages_idle: int
    requests: int
    finished: int
    failed: int
    cancelled: int
    steps: int
    step_seconds: float
    prompt_tokens: int
    generated_tokens: int
    prefix_hit_rate: float
    evictions: int
    preemptions: int
    failed_steps: int
    drafted: int
    accepted: int
    tokens_per_second: float
    ttft_s: float | None
    prefix_asked: int = 0
    prefix_hit: int = 0


def stats_of(schedule: Scheduler, pool: PagePool, counts: Counts) -> Stats:
    """How an engine of these parts stands."""
    return Stats(
        waiting=schedule.waiting, filling=len(schedule.filling), decoding=schedule.rows.count, pages=pool.pages,
        pages_held=pool.held, pages_idle=pool.idle, requests=counts.requests, finished=counts.finished,
        failed=counts.failed, cancelled=counts.cancelled, steps=counts.steps, step_seconds=counts.step_seconds,
        prompt_tokens=counts.prompt_tokens, generated_tokens=counts.generated_tokens,
        prefix_hit_rate=pool.hit_tokens / pool.asked_tokens if pool.asked_tokens else 0.0,
        evictions=pool.evictions, preemptions=schedule.preemptions, failed_steps=counts.failed_steps,
        drafted=counts.drafted, accepted=counts.accepted,
        tokens_per_second=counts.generated_tokens / counts.step_seconds if counts.step_seconds else 0.0,
        ttft_s=counts.ttft_s, prefix_asked=pool.asked_tokens, prefix_hit=pool.hit_tokens)


class Counts:
    """Counts that grow while an engine runs; `Stats` says what they are."""

    def __init__(self) -> None:
        self.requests = self.finished = self.failed = self.cancelled = 0
        self.steps = self.prompt_tokens = self.generated_tokens = self.failed_steps = 0
        self.drafted = self.accepted = 0
        self.step_seconds = 0.0
        self.first_tokens: deque[float] = deque(maxlen=_RECENT)

    @property
    def ttft_s(self) -> float | None:
        """The median of the last times to first token."""
        times = sorted(self.first_tokens)
        return times[len(times) // 2] if times else None
