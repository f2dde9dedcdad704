"""The quality report: figures that add up, a page that is whole, alone and safe."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from openautoglm.data.census import count_scripts
from openautoglm.data.quality import QualityReport
from openautoglm.data.quality_html import flow

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"quotes\" 'too'"


@pytest.fixture
def report(cleaning: Any) -> QualityReport:
    pairs = [*cleaning.pairs(60), ("record 1", cleaning.sentence(1)), (NASTY, f"{NASTY}  double spaces here"),
             (NASTY, f"{NASTY} double spaces here"), ("null", ""),
             ("caf\u00c3\u00a9", f"caf\u00c3\u00a9 {NASTY} x y z")]
    test = [("t", f"{NASTY} double spaces here")]
    made: QualityReport = cleaning.run(pairs, test=test, split={"valid": 0.1})
    return made


def test_the_json_is_the_report(cleaning: Any, report: QualityReport) -> None:
    read = QualityReport.model_validate_json((cleaning.out / "quality.json").read_text())
    assert read == report


def test_the_way_of_the_rows_adds_up(report: QualityReport) -> None:
    steps = flow(report)
    assert steps[0][2] == sum(report.rows_read.values()) + report.rejects.rows
    assert steps[-1][2] == sum(report.rows_out.values())


def test_lengths_are_those_of_the_rows(cleaning: Any, report: QualityReport) -> None:
    targets = cleaning.targets("train")
    facts = report.lengths["target characters"]["train"]
    assert sum(facts.counts) == len(targets) == report.rows_out["train"]
    assert facts.mean == pytest.approx(sum(map(len, targets)) / len(targets), abs=0.01)
    assert facts.longest == max(map(len, targets))
    assert facts.median == sorted(map(len, targets))[(len(targets) - 1) // 2]
    words = report.lengths["target words"]["train"]
    assert words.longest == max(len(target.split()) for target in targets)


def test_vocabulary_coverage_counts_words(cleaning: Any) -> None:
    report = cleaning.run([("a", "one two three, four five"), ("b", "six seven eight nine ten.")],
                          test=[("c", "One two two new words")], split={"valid": 0})
    facts = report.vocabulary["test"]
    assert facts == {"distinct": 4, "total": 5, "distinct_seen": 0.5, "total_seen": 0.6}


def test_faults_are_counted_as_read(report: QualityReport) -> None:
    faults = {(fault.fault, fault.side): fault.rows for fault in report.faults}
    assert faults["double spaces", "target"] == {"train": 1}
    assert faults["empty", "target"] == {"train": 1}
    assert faults["signs of mojibake", "target"] == {"train": 1}


class Page(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br", "line", "rect", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and tag not in ("rect", "line", "path", "circle"):
            assert self.open.pop() == tag


def test_the_page_is_safe_and_alone(cleaning: Any, report: QualityReport) -> None:
    text = (cleaning.out / "quality.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "&lt;script&gt;alert(1)" in text
    assert page.tags.count("svg") >= 6
    assert "prefers-color-scheme: dark" in text


def test_the_page_shows_the_figures(cleaning: Any) -> None:
    pair = ("a", cleaning.sentence(1))
    cleaning.run([pair] * 1235, split={"valid": 0, "test": 0})
    text = (cleaning.out / "quality.html").read_text()
    assert "1,235" in text
    assert "1,234" in text
    facts = json.loads((cleaning.out / "quality.json").read_text())
    assert facts["exact_duplicates"]["rows"] == {"train": 1234}


def test_scripts_by_code_points() -> None:
    assert count_scripts(["ab 1", "中文。", "ёж", "かな", "é£"]) == {
        "Latin": 3, "space and punctuation": 3, "digits": 1, "Han": 2, "Cyrillic": 2, "Kana": 2}
    assert count_scripts([]) == {}
