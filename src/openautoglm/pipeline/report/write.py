"""Writes the report: the page, and its facts as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openautoglm.core.files import atomic_write, write_json
from openautoglm.core.page import Section, page
from openautoglm.pipeline.report.chapters import (
    data_chapter,
    sample_chapter,
    score_chapter,
    search_chapter,
    settings_chapter,
    summary_chapter,
    training_chapter,
)
from openautoglm.pipeline.report.compression import compression_chapter
from openautoglm.pipeline.report.facts import RunFacts, read_facts

_CHAPTERS = (("Summary", summary_chapter), ("Data", data_chapter), ("Search", search_chapter),
             ("Training", training_chapter), ("Scores", score_chapter),
             ("Compression", compression_chapter), ("Samples", sample_chapter), ("Settings", settings_chapter))


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write ``report.html`` and ``report.json`` of a run folder; return the page's path.

    Args:
        output: another place for the page.

    Raises:
        DataError: `folder` is not a run folder, or a file in it is damaged.
    """
    facts = read_facts(folder)
    sections = [Section(title, html) for title, write in _CHAPTERS if (html := write(facts))]
    path = output or folder / "report.html"
    subtitle = f"Open-AutoGLM run in {folder.name}"
    with atomic_write(path) as file:
        file.write(page(str(facts.task["name"]), subtitle, sections))
    write_json(folder / "report.json", summary(facts))
    return path


def summary(facts: RunFacts) -> dict[str, Any]:
    """The same facts for machines."""
    scores = facts.scores or {}
    chosen = scores.get("chosen")
    return {
        "name": facts.task["name"], "stages": facts.state.get("stages", {}),
        "rows": {"read": facts.quality["rows_read"], "kept": facts.quality["rows_out"]} if facts.quality else None,
        "plan": facts.plan, "search": facts.facts("search"), "training": facts.facts("train"), "decoding": chosen,
        "compression": facts.facts("compress") or None,
        "scores": {split: by[chosen] for split, by in scores.get("splits", {}).items()} if chosen else None,
        "files": facts.facts("export").get("files"), "versions": (facts.card or {}).get("versions")}
