"""The report's page: escaping, tables, unfinished runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core.errors import DataError
from openautoglm.core.files import read_json, write_json
from openautoglm.core.page import Section, page, show, table
from openautoglm.pipeline.report.write import write_report
from openautoglm.pipeline.task import make_task

NASTY = "<script>alert('x')</script> & \"quotes\""


def test_everything_is_escaped() -> None:
    html = page(NASTY, NASTY, [Section("Data", table((NASTY,), [(NASTY,)]))])
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 5


def test_numbers_stand_to_the_right_and_the_best_row_is_marked() -> None:
    html = table(("name", "value"), [("a", 1.5), ("b", None)], best=1)
    assert html.count('class=n') == 3
    assert "<tr class=best><td>b</td>" in html


@pytest.mark.parametrize(("value", "text"), [(None, ""), (True, "yes"), (12345, "12,345"), (1234.5, "1,234.50"),
                                             (0.01234, "0.01234"), ("x", "x")])
def test_values_for_people(value: object, text: str) -> None:
    assert show(value) == text


def test_an_unfinished_run_has_a_report_too(tmp_path: Path) -> None:
    task = make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, "name": "early"})
    write_json(tmp_path / "task.json", {"base": "/", "task": task.model_dump(mode="json")})
    (tmp_path / "train").mkdir()
    (tmp_path / "train/metrics.jsonl").write_text(
        '{"step": 1, "tokens": 10, "nll": 2.0, "lr": 0.1, "tokens_per_s": 5.0, '
        '"elapsed_s": 1.0, "valid_loss": null}\n{"step": 2, "tok'
    )
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "early" in html
    assert "1 steps" in html
    assert read_json(tmp_path / "report.json")["scores"] is None
    assert write_report(tmp_path, tmp_path / "else.html") == tmp_path / "else.html"


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run folder"):
        write_report(tmp_path)
    write_json(tmp_path / "task.json", {"task": {"name": "x"}})
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json"):
        write_report(tmp_path)
