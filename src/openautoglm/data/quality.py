"""The quality report: what came in, what was found, what was done about it, and what went out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from openautoglm.core.settings import Settings
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.collect import Shelf
from openautoglm.data.deal import LONGEST, Dealt, read_line
from openautoglm.data.dedup import Found
from openautoglm.data.jsonl import decode_example
from openautoglm.data.leaks import Leak
from openautoglm.data.read import RejectLog
from openautoglm.data.sift import LENGTHS, SPLITS, shown
from openautoglm.data.split import SplitFacts

BINS = 40
FORMAT = 1

ShownRow = dict[str, str]


class Findings(NamedTuple):
    """What the comparison of rows found and decided."""

    exact: Found
    as_read: dict[str, int]
    near: Found
    leaks: list[Leak]
    split: SplitFacts
    dealt: Dealt


class Rejects(Settings):
    """Rows that could not be read, by reason."""

    rows: int
    reasons: dict[str, int]
    examples: dict[str, list[ShownRow]]


class RuleFacts(Settings):
    """What one rule did."""

    rule: str
    changed: int
    dropped: int
    change_examples: list[ShownRow]
    drop_examples: list[ShownRow]


class Fault(Settings):
    """Rows as read whose text on one side shows a fault, by split."""

    fault: str
    side: str
    rows: dict[str, int]


class Duplicates(Settings):
    """Rows that repeat an earlier row of their split, by split; `action` says what became of them."""

    action: str
    rows: dict[str, int]
    examples: list[dict[str, ShownRow]]


class LeakFacts(Settings):
    """What two splits share: distinct texts, and the rows on either side that take part."""

    kind: str
    between: tuple[str, str]
    texts: int
    rows: tuple[int, int]
    examples: list[dict[str, ShownRow]]


class LengthFacts(Settings):
    """Lengths of one text in one split; `counts` are rows by bin of the shared `edges`."""

    mean: float
    median: int
    p95: int
    p99: int
    longest: int
    counts: list[int]


class QualityReport(Settings):
    """Everything that cleaning has to say; `quality.json` is this model.

    `rows_read` counts rows that could be read, `rows_out` rows that were written, both by split; `dropped`
    the rows that went by rule, as duplicates and as leaks. `lengths` go by measure and split, `scripts` by
    split and script (share of the characters of targets), `vocabulary` by split (words of targets, and how
    many of them train has).
    """

    format: int = FORMAT
    files: dict[str, list[str]]
    rows_read: dict[str, int]
    rows_out: dict[str, int]
    dropped: dict[str, int]
    rejects: Rejects
    rules: list[RuleFacts]
    faults: list[Fault]
    fault_examples: dict[str, list[ShownRow]]
    duplicates_as_read: dict[str, int]
    exact_duplicates: Duplicates
    near_duplicates: Duplicates
    leaks: list[LeakFacts]
    leak_action: str
    split_made: list[str]
    split_together: list[str]
    split_groups: int
    split_largest_group: int
    warnings: list[str]
    length_edges: dict[str, list[int]]
    lengths: dict[str, dict[str, LengthFacts]]
    scripts: dict[str, dict[str, float]]
    vocabulary: dict[str, dict[str, float]]
    settings: dict[str, Any]


def quality_report(shelf: Shelf, files: dict[str, list[Path]], rules: list[str], rejects: RejectLog,
                   settings: CleanSettings, found: Findings) -> QualityReport:
    """Put everything together that the passes found out."""
    by_rule = {rule: tally.dropped for rule, tally in zip(rules, shelf.tallies, strict=True) if tally.dropped}
    checks = {name: sum(rows.values()) for name, rows in found.dealt.drops.items() if any(rows.values())}
    edges, lengths = _lengths(found.dealt)
    return QualityReport(
        files={split: [str(path) for path in paths] for split, paths in files.items()},
        rows_read={split: shelf.read[split] for split in files},
        rows_out={split: rows for split, rows in found.dealt.rows.items() if rows},
        dropped={**_summed(rules, shelf), **checks} if by_rule or checks else {},
        rejects=Rejects(rows=rejects.rejects, reasons=dict(rejects.counts.most_common()),
                        examples=shelf.reject_examples),
        rules=[RuleFacts(rule=rule, **tally._asdict())
               for rule, tally in zip(rules, shelf.tallies, strict=True)],
        faults=_faults(shelf), fault_examples=shelf.census.examples,
        duplicates_as_read={split: found.as_read[split] for split in files},
        exact_duplicates=_duplicates(shelf, settings.dedup.exact, found.exact, files),
        near_duplicates=_duplicates(shelf, settings.dedup.near, found.near, files),
        leaks=[LeakFacts(kind=leak.kind, between=leak.between, texts=leak.texts,
                         rows=(leak.rows[0], leak.rows[1]),
                         examples=_pairs(shelf, leak.pairs, leak.between, files)) for leak in found.leaks],
        leak_action=settings.leaks.action, split_made=list(found.split.made),
        split_together=list(found.split.together), split_groups=found.split.groups,
        split_largest_group=found.split.largest_group, warnings=list(found.split.warnings),
        length_edges=edges, lengths=lengths, scripts=_scripts(shelf), vocabulary=found.dealt.words,
        settings=settings.model_dump(mode="json", exclude={"workers"}))


def _summed(rules: list[str], shelf: Shelf) -> dict[str, int]:
    """Rows dropped by rule; a rule that stands in the list twice counts once."""
    out: dict[str, int] = {}
    for rule, tally in zip(rules, shelf.tallies, strict=True):
        if tally.dropped:
            out[rule] = out.get(rule, 0) + tally.dropped
    return out


def _faults(shelf: Shelf) -> list[Fault]:
    counts = shelf.census.faults
    kinds = dict.fromkeys((fault, side) for _, side, fault in sorted(counts))
    faults = [Fault(fault=fault, side=side, rows={split: counts[split, side, fault] for split in SPLITS
                                                  if counts[split, side, fault]})
              for fault, side in kinds]
    return sorted(faults, key=lambda one: (-sum(one.rows.values()), one.fault, one.side))


def _duplicates(shelf: Shelf, action: str, found: Found, files: dict[str, list[Path]]) -> Duplicates:
    return Duplicates(action=action, rows={split: found.rows[split] for split in files},
                      examples=_pairs(shelf, found.pairs, ("repeats", "first"), files))


def _pairs(shelf: Shelf, pairs: list[tuple[int, int]], names: tuple[str, str],
           files: dict[str, list[Path]]) -> list[dict[str, ShownRow]]:
    out = []
    for pair in pairs:
        facts = shelf.facts.take(np.array(pair))
        examples = [decode_example(read_line(shelf, fact)) for fact in facts]
        out.append({name: {"origin": str(example.origin), "source": shown(example.source),
                           "target": shown(example.target)}
                    for name, example in zip(names, examples, strict=True)})
    return out


def _lengths(dealt: Dealt) -> tuple[dict[str, list[int]], dict[str, dict[str, LengthFacts]]]:
    """Return shared bin edges by measure (up to the 99.5th percentile; the last bin is open) and the
    figures."""
    edges: dict[str, list[int]] = {}
    facts: dict[str, dict[str, LengthFacts]] = {}
    for number, measure in enumerate(LENGTHS):
        counts = dealt.lengths[:, number]
        top = max(_quantile(counts.sum(axis=0), 0.995), 1)
        step = -(-(top + 1) // BINS)
        inner = list(range(0, top + 1, step))
        edges[measure] = [*inner, inner[-1] + step]
        facts[measure] = {}
        for split, row in enumerate(counts):
            if not row.sum():
                continue
            binned = np.add.reduceat(row, inner)
            facts[measure][SPLITS[split]] = LengthFacts(
                mean=round(float((row * np.arange(LONGEST + 1)).sum() / row.sum()), 2),
                median=_quantile(row, 0.5), p95=_quantile(row, 0.95), p99=_quantile(row, 0.99),
                longest=int(dealt.longest[split, number]), counts=binned.tolist())
    return edges, facts


def _quantile(counts: Any, share: float) -> int:
    """Return the smallest length that at least `share` of the rows do not exceed."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _scripts(shelf: Shelf) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        counts = {script: count for (name, script), count in shelf.census.scripts.items() if name == split}
        total = sum(counts.values())
        if total:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            out[split] = {script: round(count / total, 6) for script, count in ordered}
    return out
