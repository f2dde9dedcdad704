"""Who is timed when: a trial of all settings, then rounds in which engines take turns.

Settings of a peer compete: the trial finds, for each kind of measurement, the best of an engine's settings at equal
bits, and only that one goes on. So a peer is represented by its best everywhere, and time goes into repeats.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.catalogue import Variant
from peers.launch import Launcher, Record

JUDGED_BY = {"decode": "decode", "prefill": "prefill", "requests": "trial-8"}
"""Kinds of measurement, and the figure of the trial that chooses the settings for each."""
SERVING = ["sampling", "reuse", "chats", "policies"]


@dataclass(frozen=True)
class Schedule:
    """What is asked for.

    Attributes:
        whole: run the peers' many requests on E whole, where they are else put together from parts.
        quick: no many requests at all.
        serving: time sampling, reuse, chats and policies of our engine, in the first round.
        limit_s: seconds that one process may take.
        ends: when no further process is started, seconds of `time.monotonic`.
    """

    repeats: int
    whole: bool = False
    quick: bool = False
    serving: bool = True
    limit_s: float = 900.0
    ends: float = math.inf

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.ends


def median_of(records: Sequence[Record], shape: str, variant: str, measure: str) -> float | None:
    """The median of what was measured, or None."""
    wanted = (shape, variant, measure)
    values = [record.value for record in records
              if (record.shape, record.variant, record.measure) == wanted and record.value is not None]
    return statistics.median(values) if values else None


def run_trial(launcher: Launcher, shape: str, variants: Sequence[Variant], schedule: Schedule) -> None:
    """Time every setting of the peers once."""
    for variant in variants:
        if not variant.alone:
            many = [] if variant.single else ["trial"]
            launcher.run(variant, shape, 0, ["start", "decode", "prefill", *many, "error"], schedule.limit_s)


def choose(records: Sequence[Record], shape: str, variants: Sequence[Variant]) -> dict[str, list[str]]:
    """Variants, and the kinds of measurement that each is the best of its field in."""
    chosen: dict[str, list[str]] = {variant.key: list(JUDGED_BY) if variant.alone else [] for variant in variants}
    for name in dict.fromkeys(variant.field for variant in variants if not variant.alone):
        rivals = [variant for variant in variants if variant.field == name]
        for kind, judge in JUDGED_BY.items():
            known = [(median_of(records, shape, rival.key, judge), rival.key) for rival in rivals]
            figures = [(figure, key) for figure, key in known if figure is not None]
            if figures:
                chosen[max(figures)[1]].append(kind)
    return chosen


def run_round(launcher: Launcher, shape: str, variants: Sequence[Variant], chosen: dict[str, list[str]], number: int,
              schedule: Schedule) -> None:
    """Time every chosen variant that was not yet in this round; each round begins with the next one."""
    turn = (number - 1) % max(1, len(variants))
    done = {record.variant for record in launcher.records if (record.shape, record.round) == (shape, number)}
    for variant in (*variants[turn:], *variants[:turn]):
        measures = _measures(variant, shape, chosen.get(variant.key, []), number, schedule)
        if measures and variant.key not in done and not schedule.over:
            launcher.run(variant, shape, number, ["start", *measures], schedule.limit_s)


def _measures(variant: Variant, shape: str, kinds: Sequence[str], number: int, schedule: Schedule) -> list[str]:
    if number > 1 and shape == "E" and not variant.often:
        return []
    measures = [kind for kind in ("decode", "prefill") if kind in kinds]
    if "requests" in kinds and not schedule.quick:
        whole = schedule.whole or variant.whole or shape == "S"
        measures += ["requests-8", "requests-32"] if whole else ["scaled"]
    if variant.alone and number == 1:
        measures += [*(SERVING if variant.serving and schedule.serving and not schedule.quick else []), "error"]
    return measures


def save_choice(path: Path, shape: str, chosen: dict[str, list[str]], records: Sequence[Record]) -> None:
    """Keep the trial of a shape for later runs."""
    trial = [vars(record) for record in records if record.shape == shape and record.round == 0]
    stored = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**stored, shape: {"chosen": chosen, "records": trial}}))


def load_choice(path: Path, shape: str,
                variants: Sequence[Variant]) -> tuple[dict[str, list[str]], list[Record]] | None:
    """The trial of a shape, if one is kept that knew all of these variants."""
    stored = json.loads(path.read_text()).get(shape) if path.exists() else None
    if stored is None or not {variant.key for variant in variants if not variant.alone} <= set(stored["chosen"]):
        return None
    own = {variant.key: list(JUDGED_BY) for variant in variants if variant.alone}
    return {**stored["chosen"], **own}, [Record(**record) for record in stored["records"]]
