"""Self-distillation: which candidate becomes a target, what a stopped call leaves, what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core.errors import TaskError
from openautoglm.evaluate.run import Case
from openautoglm.pipeline import self_distill
from openautoglm.pipeline.distilltask import SelfDistillTask
from openautoglm.pipeline.generation import Answer
from openautoglm.pipeline.self_distill import chosen_target, read_targets, settings_of, write_targets
from openautoglm.train.settings import TrainSettings

FIELDS = (("name", "Alfa"), ("food", "Thai"))
REFERENCES = ("Alfa serves Thai food.", "Alfa is a place for Thai food.")


def case(number: int = 0) -> Case:
    return Case(f"record {number}", (), FIELDS, REFERENCES)


def answer(*texts: str, ended: tuple[bool, ...] | None = None) -> Answer:
    return Answer(texts[0], True, texts, tuple(-float(place) for place in range(len(texts))),
                  ended or (True,) * len(texts))


@pytest.mark.parametrize("by", ["references", "consensus"])
def test_a_text_that_covers_the_record_goes_before_a_likelier_one(by: str) -> None:
    assert chosen_target(case(), answer("Alfa serves food.", "Alfa has Thai."), by) == "Alfa has Thai."


def test_among_covered_texts_the_one_likest_to_the_references_is_taken() -> None:
    texts = ("Thai, Thai and Alfa", "Alfa serves Thai food.", "There is Thai at Alfa")
    assert chosen_target(case(), answer(*texts), "references") == texts[1]


def test_the_likelier_texts_have_more_weight_in_a_consensus() -> None:
    texts = ("Alfa cooks Thai meals daily", "Alfa cooks Thai meals", "Thai things from Alfa", "Alfa Thai")
    assert chosen_target(case(), answer(*texts), "consensus") == texts[0]


def test_texts_that_were_cut_or_are_empty_are_no_targets() -> None:
    assert chosen_target(case(), answer("Alfa serves Thai food.", " ", "Thai Alfa", ended=(False, True, True)),
                         "references") == "Thai Alfa"
    assert chosen_target(case(), answer("Alfa serves Thai food.", ended=(False,)), "references") is None


class FakeAuthor:
    """Answers by the record's number; may stop before a chunk."""

    def __init__(self, stop_at: int | None = None, ended: bool = True) -> None:
        self.asked: list[int] = []
        self.stop_at, self.ended = stop_at, ended

    def answer(self, records: list[Case], _sampling: object) -> list[Answer]:
        if self.stop_at is not None and len(self.asked) >= self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(len(records))
        return [answer(f"Alfa serves Thai food, says {record.source}.", ended=(self.ended,)) for record in records]


def test_a_stopped_call_goes_on_after_its_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_distill, "CHUNK", 4)
    cases, path, section = [case(number) for number in range(10)], tmp_path / "targets.jsonl", SelfDistillTask()
    whole = tmp_path / "whole.jsonl"
    assert write_targets(whole, FakeAuthor(), cases, section, 20) == 10
    with pytest.raises(KeyboardInterrupt):
        write_targets(path, FakeAuthor(stop_at=2), cases, section, 20)
    with path.open("ab") as file:
        file.write(b'{"source":"record 8","target":"half')
    author = FakeAuthor()
    assert write_targets(path, author, cases, section, 20) == 10
    assert author.asked == [2]
    assert path.read_bytes() == whole.read_bytes()
    author = FakeAuthor()
    assert write_targets(path, author, cases, section, 20) == 10
    assert author.asked == []


def test_a_damaged_line_makes_its_chunk_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_distill, "CHUNK", 2)
    cases, path = [case(number) for number in range(6)], tmp_path / "targets.jsonl"
    write_targets(path, FakeAuthor(), cases, SelfDistillTask(), 20)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + b"\0\0\0\n" + b"".join(lines[4:]))
    assert write_targets(path, FakeAuthor(), cases, SelfDistillTask(), 20) == 6
    assert path.read_bytes().splitlines(keepends=True) == lines


def test_a_model_that_never_ends_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no text of the model ended within 20 tokens"):
        write_targets(tmp_path / "targets.jsonl", FakeAuthor(ended=False), [case()], SelfDistillTask(), 20)
    assert list(read_targets(tmp_path / "targets.jsonl")) == []


def test_the_loop_is_gentler_and_ends_by_passes() -> None:
    train = TrainSettings(lr=2e-3, minutes=5, layout="shared", agreement=1.0, best_by="bleu", seed=7)
    settings = settings_of(SelfDistillTask(passes=2, batch=16), train)
    assert (settings.passes, settings.minutes, settings.batch, settings.lr) == (2, None, 16, 5e-4)
    assert (settings.layout, settings.agreement, settings.best_by, settings.seed) == ("bucket", 0, "valid_loss", 7)
