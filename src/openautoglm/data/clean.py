"""Cleaning as a whole: files in; train, valid and test out; every row that left accounted for.

Three passes: rows are read, ruled and keyed (in several processes); tables of keys are compared (duplicates,
leaks, groups for the split); rows are dealt out. Rows are never held in memory: what must be compared lies in
tables on disk. The result depends on neither the number of processes nor on what was there before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from openautoglm.core.errors import DataError
from openautoglm.core.files import write_json
from openautoglm.core.progress import Progress, progress
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.collect import Files, Shelf, collect, fitted
from openautoglm.data.deal import deal
from openautoglm.data.dedup import Found, NearDuplicates, PairConsumer, exact_duplicates, near_pairs
from openautoglm.data.keys import Signer
from openautoglm.data.leaks import LeakCheck
from openautoglm.data.quality import Findings, QualityReport, quality_report
from openautoglm.data.quality_html import render
from openautoglm.data.read import RejectLog, count_bytes, resolve
from openautoglm.data.rules.registry import build_rules
from openautoglm.data.settings import DataSettings
from openautoglm.data.sift import SPLITS
from openautoglm.data.split import Splitter
from openautoglm.data.verdicts import Verdicts

SEAL = "quality.json"
OUTPUTS = ("train.jsonl", "valid.jsonl", "test.jsonl", "dropped.jsonl", "quality.html", SEAL)


def clean(data: DataSettings, settings: CleanSettings, out: str | Path, *, base: str | Path) -> QualityReport:
    """Clean and split data.

    Writes ``train.jsonl``, ``valid.jsonl``, ``test.jsonl`` (those that have rows), ``rejected.jsonl`` (rows
    that cannot be read), ``dropped.jsonl`` (rows that a rule or a check removed), ``quality.html`` and, last
    of all, ``quality.json``: where that stands, the others are whole and belong together.

    Args:
        data: files and how their rows become examples.
        settings: rules, duplicates, splits and leaks.
        out: folder for the results; other files in it are left alone.
        base: folder to which the paths in `data` are relative.

    Raises:
        DataError: a file cannot be read, too many rows are rejects, no row is left to train on, or another
            run is
            cleaning into the same folder.
        RuleError: a rule cannot work as configured.
    """
    out, base = Path(out), Path(base)
    files: Files = {split: resolve(getattr(data, split), base) for split in SPLITS if getattr(data, split)}
    rules = build_rules(settings.rules)
    paths = [path for given in files.values() for path in given]
    fits = sum(rule.needs_fit for rule in rules)
    size = count_bytes(paths) + fits * count_bytes(files["train"])
    with _workplace(out) as scratch, progress(size, "clean", "bytes") as bar:
        rules = fitted(rules, files, data, bar.advance)
        shelf = Shelf(scratch, settings, len(rules))
        with closing(shelf):
            with RejectLog(out / "rejected.jsonl", data.max_reject_ratio) as rejects:
                collect(shelf, files, data, settings, rules, rejects, bar)
            report = _finish(shelf, files, settings, [rule.name for rule in rules], rejects, scratch, bar)
        write_json(scratch / SEAL, report.model_dump(mode="json"))
        (scratch / "quality.html").write_text(render(report), encoding="utf-8")
        _publish(scratch, out)
    return report


def _finish(shelf: Shelf, files: Files, settings: CleanSettings, rules: list[str], rejects: RejectLog,
            scratch: Path, bar: Progress) -> QualityReport:
    """Compare the rows, decide about them, deal them out and report."""
    bar.update(stage="compare")
    verdicts = Verdicts(scratch, shelf.rows)
    exact, as_read = (exact_duplicates(shelf.exact, shelf.facts, verdicts, settings.dedup, settings.examples)
                      if settings.dedup.exact != "keep" else (Found.none(), dict.fromkeys(SPLITS, 0)))
    near = NearDuplicates(scratch, verdicts, settings.dedup)
    leaks = LeakCheck(scratch, verdicts, settings.leaks, settings.examples)
    wanted = {number: share for number, share in ((1, settings.split.valid), (2, settings.split.test))
              if share and SPLITS[number] not in files}
    splitter = Splitter(scratch, settings.split, wanted, shelf.rows)
    if len(files) > 1:
        leaks.look(shelf.exact)
    splitter.look(shelf.exact)
    alike = Found.none()
    consumers: list[PairConsumer] = [leaks, splitter]
    if settings.dedup.near != "keep":
        consumers.append(near)
    near_pairs(shelf.bands, shelf.signatures, Signer(settings.near), verdicts, consumers)
    if settings.dedup.near != "keep":
        alike = near.decide(shelf.facts, settings.examples)
    split = splitter.assign(shelf.facts, verdicts)
    bar.update(stage="write")
    names = [str(path) for paths in files.values() for path in paths]
    dealt = deal(shelf, verdicts, splitter.split, names, scratch)
    if not dealt.rows["train"]:
        raise DataError("no row is left to train on", where=names[0],
                        remedy="loosen clean.rules, or look at the data: autoglm check shows its first rows")
    found = Findings(exact, as_read, alike, leaks.found(), split, dealt)
    return quality_report(shelf, files, rules, rejects, settings, found)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """Lend a scratch folder inside `out`, for one run at a time; what a killed run left there is removed
    first."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".clean.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError("another run is cleaning into this folder", where=str(out),
                            remedy="wait for it, or choose another output folder") from error
        scratch = out / ".clean"
        shutil.rmtree(scratch, ignore_errors=True)
        for part in out.glob(".rejected.jsonl.*.part"):
            part.unlink()
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, out: Path) -> None:
    """Move the results into place: the seal of an older run goes first, the new one comes last."""
    (out / SEAL).unlink(missing_ok=True)
    for name in OUTPUTS:
        made = scratch / name
        if made.exists():
            with made.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(made, out / name)
        else:
            (out / name).unlink(missing_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
