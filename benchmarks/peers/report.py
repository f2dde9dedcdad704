"""Tables in Markdown from records: figures beside limits and logit errors, the best of each, and what failed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peers.catalogue import Variant
from peers.launch import Record
from peers.limits import Limits
from peers.shapes import Shape

SPEEDS = {"decode": "batch 1, tok/s", "prefill": "prefill 512, tok/s", "requests-8": "8 requests, out tok/s",
          "requests-32": "32 requests, out tok/s"}
COSTS = {"start": "start to first token, s", "load": "load, s", "resident": "resident, MiB", "peak": "peak, MiB",
         "error": "logit error, %"}
SERVING = {
    "greedy-32": "decoding 32 greedily, tok/s", "sampled-32": "decoding 32 with top-p 0.9, tok/s",
    "sampling-cost": "share that sampling costs",
    "reuse-step-ms": "a token at 512 tokens of context with its cache, ms",
    "recompute-ms": "the same, the context computed again, ms",
    "chats-shared-s": "chats, prefixes shared, s", "chats-alone-s": "the same, none shared, s",
    "chats-hit-rate": "share of prompt tokens found in the cache",
    "continuous-rate": "continuous batching, out tok/s", "continuous-p99-s": "its p99 latency, s",
    "static-rate": "static batches, out tok/s", "static-p99-s": "its p99 latency, s",
    "none-rate": "one after the other, out tok/s", "none-p99-s": "its p99 latency, s", "torch": "torch was imported",
}


@dataclass(frozen=True)
class Figure:
    """The median of a measurement.

    Attributes:
        runs: how many; 0 for a figure of the trial alone.
        scaled: put together from parts.
    """

    value: float
    low: float
    high: float
    runs: int
    scaled: bool = False

    def text(self, number: Callable[[float], str]) -> str:
        """As a cell: the median, and what it lies between."""
        shown = f"{'~' if self.scaled else ''}{number(self.value)}"
        if self.runs > 1:
            return f"{shown} [{number(self.low)}, {number(self.high)}]"
        return shown if self.runs else f"({shown})"


class Book:
    """Records of one shape, to be asked for figures."""

    def __init__(self, records: Sequence[Record], shape: Shape, variants: Sequence[Variant], limits: Limits) -> None:
        self.records = [record for record in records if record.shape == shape.name]
        self.shape, self.variants, self.limits = shape, variants, limits

    def figure(self, variant: Variant, measure: str) -> Figure | None:
        """The median of the rounds; of the trial where no round has it; put together from parts where none is whole."""
        names = [(measure, False)]
        if measure.startswith("requests-"):
            names.append((measure.replace("requests", "scaled"), True))
        for name, scaled in names:
            found = [record for record in self.records if record.variant == variant.key and record.measure == name
                     and record.value is not None]
            rounds = [record.value for record in found if record.round > 0 and record.value is not None]
            values = rounds or [record.value for record in found if record.value is not None]
            if values:
                return Figure(statistics.median(values), min(values), max(values), len(rounds), scaled)
        return None

    def best(self, measure: str, bits: int, ours: bool) -> tuple[Figure, Variant] | None:
        """The fastest of the peers at these bits, whatever its settings; or our main recipe, the same always."""
        found = [(figure, variant) for variant in self.variants
                 if variant.bits == bits and (variant.engine == "ours") == ours and (variant.whole or not ours)
                 and (figure := self.figure(variant, measure))]
        return max(found, key=lambda pair: pair[0].value, default=None)

    def _named(self, pair: tuple[Figure, Variant]) -> str:
        error = self.figure(pair[1], "error")
        return f"{pair[1].key} {_three(pair[0].value)}" + (f" (error {_three(100 * error.value)} %)" if error else "")

    def table(self) -> str:
        """Every variant, one a row."""
        lines = [_row("", *SPEEDS.values(), *COSTS.values()), _row(*["---"] * (1 + len(SPEEDS) + len(COSTS)))]
        for variant in self.variants:
            cells = [self._speed(variant, measure) for measure in SPEEDS]
            for measure in COSTS:
                figure = self.figure(variant, measure)
                cells.append(_middle(figure, 100 if measure == "error" else 1))
            if any(cells):
                lines.append(_row(variant.key, *cells))
        return "\n".join(lines)

    def _speed(self, variant: Variant, measure: str) -> str:
        figure, limit = self.figure(variant, measure), self.limits.of(self.shape, measure, variant.bits)
        if figure is None:
            return ""
        share = f", {100 * figure.value / limit:.0f} %" if limit else ""
        return figure.text(_three) + share

    def ratios(self) -> str:
        """Our main recipe against the best peer at equal bits, with the logit errors of both."""
        lines = [_row("", *SPEEDS.values()), _row(*["---"] * (1 + len(SPEEDS)))]
        for bits in sorted({variant.bits for variant in self.variants}):
            cells = []
            for measure in SPEEDS:
                ours, peer = self.best(measure, bits, True), self.best(measure, bits, False)
                cells.append(f"{ours[0].value / peer[0].value:.2f}: {self._named(ours)} to {self._named(peer)}"
                             if ours and peer else "")
            if any(cells):
                lines.append(_row(f"{bits} bits", *cells))
        return "\n".join(lines)

    def serving(self) -> str:
        """What was measured of our engine alone."""
        own = [variant for variant in self.variants if any(self.figure(variant, name) for name in SERVING)]
        if not own:
            return ""
        lines = [_row("", *(variant.key for variant in own)), _row(*["---"] * (1 + len(own)))]
        lines += [_row(words, *(_middle(self.figure(variant, name)) for variant in own))
                  for name, words in SERVING.items()]
        return "\n".join(lines)

    def failures(self) -> str:
        """What gave no figure, and why."""
        failed = dict.fromkeys((record.variant, record.measure, record.failed)
                               for record in self.records if record.failed)
        return "\n".join(f"- {variant}, {measure}: {why}" for variant, measure, why in failed)


def write_report(book: Book) -> str:
    """All tables of a shape."""
    shape, limits = book.shape, book.limits
    others = [record.others for record in book.records if record.round and record.value is not None]
    parts = [f"### Shape {shape.name}, {shape.parameters / 1e6:.1f} M parameters",
             f"Limits of this run: {limits.read_gb_s:.1f} GB/s, {limits.int8_gop_s:.0f} GOP/s int8, "
             f"{limits.fp32_gop_s:.0f} GOP/s fp32. Cores that other processes kept busy during the rounds: median "
             f"{statistics.median(others):.2f}, at most {max(others):.2f}." if others else "No round was run.",
             "Medians [least, most]; in percent the share of the limit; (in brackets) one run of the trial; ~ put "
             "together from parts.",
             book.table(), "Our main recipe against the best peer at equal bits:", book.ratios()]
    for title, text in (("Our engine alone:", book.serving()), ("Failed:", book.failures())):
        parts += [title, text] if text else []
    return "\n\n".join(parts)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _middle(figure: Figure | None, times: float = 1) -> str:
    return "" if figure is None else _three(figure.value * times)


def _three(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
