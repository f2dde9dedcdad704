"""A teacher in a task: its section, what is checked, the teacher's texts, a student as a recipe's step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openautoglm.core.errors import TaskError
from openautoglm.core.values import Example, Origin
from openautoglm.data.jsonl import encode_example, read_examples
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline import distil
from openautoglm.pipeline.check import check
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.distil import DistilFacts, School, distil_bundle
from openautoglm.pipeline.distilltask import DistilSettings, StudentShape
from openautoglm.pipeline.generation import Answer
from openautoglm.pipeline.task import make_task
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer
from openautoglm.train.settings import TrainSettings
from tiny_task import write_task

SHAPE = {"hidden_size": 32, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn_size": 48,
         "rotary_factor": 1.0, "qkv_bias": False, "tied": True}
TEXTS = [f"Alfa serves Thai food near place {number}." for number in range(24)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    tokenizer, template = Tokenizer.train(TEXTS, 300), Template(kind="pair")
    spec = GlmSpec(vocab_size=304, pad_id=tokenizer.pad_id, eos_ids=template.stop_ids(tokenizer), **SHAPE)
    return write_bundle(tmp_path_factory.mktemp("teacher") / "bundle", model=hf.build(spec, seed=3), spec=spec,
                        tokenizer=tokenizer, template=template, card_facts={"data": "made up", "recipe": {"name": "t"}})


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(encode_example(Example(f"place {number}", text, Origin("x", number)))
                              for number, text in enumerate(TEXTS)) + "\n")
    return path


class Writer:
    """Answers every case with two texts; counts calls."""

    def __init__(self) -> None:
        self.calls = 0

    def answer(self, records, _sampling):
        self.calls += 1
        texts = [(f"It is at {record.source}.", "Nothing.") for record in records]
        return [Answer(pair[0], True, pair, (-1.0, -2.0), (True, True)) for pair in texts]


def facts_of(folder: Path, examples: Path, **changes) -> DistilFacts:
    usual = {"passes": 4, "batch": 8, "lr": 0.01, "tensorboard": False, "checkpoint_every_steps": 2}
    return DistilFacts(folder, examples, examples, TrainSettings(**(usual | changes)), dropout=0.0)


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return bundle.model().state_dict()


def test_a_student_is_trained_written_and_like_its_teacher_in_form(tmp_path, teacher, examples):
    settings = DistilSettings(alpha=0.5, features=0.5, top_k=8, student=StudentShape(layers=2, hidden_size=16))
    found = distil_bundle(teacher.path, tmp_path / "out", settings, facts_of(tmp_path / "work", examples))
    opened = open_bundle(tmp_path / "out")
    assert opened.spec == found.spec
    assert (opened.spec.layers, opened.spec.hidden_size, opened.spec.vocab_size) == (2, 16, 304)
    assert opened.tokenizer.fingerprint == teacher.tokenizer.fingerprint
    assert opened.template == teacher.template
    assert opened.card.recipe["name"] == "t"
    assert opened.card.recipe["distill"]["alpha"] == 0.5
    assert not any("projection" in name or "more" in name for name in weights(opened))


def test_a_stopped_call_goes_on_to_the_same_student(tmp_path, teacher, examples, monkeypatch):
    settings = DistilSettings(alpha=0.5, features=0.5)
    whole = distil_bundle(teacher.path, tmp_path / "whole", settings, facts_of(tmp_path / "a", examples))
    real = distil.drive

    def cut(*args, **kwargs):
        for number, event in enumerate(real(*args, **kwargs)):
            if number == 7:
                raise KeyboardInterrupt
            yield event

    monkeypatch.setattr(distil, "drive", cut)
    with pytest.raises(KeyboardInterrupt):
        distil_bundle(teacher.path, tmp_path / "cut", settings, facts_of(tmp_path / "b", examples))
    monkeypatch.setattr(distil, "drive", real)
    resumed = distil_bundle(teacher.path, tmp_path / "cut", settings, facts_of(tmp_path / "b", examples))
    one, other = weights(whole), weights(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("use", ["only", "added"])
def test_the_teachers_texts_become_targets_once(tmp_path, teacher, examples, monkeypatch, use):
    writer = Writer()
    monkeypatch.setattr(distil, "author_of", lambda bundle: writer)
    school = School(teacher, DistilSettings(responses={"use": use, "choose": "references"}), tmp_path / "work")
    (own := tmp_path / "own").mkdir()
    store = school.store(distil._tokens(teacher, own / "tokens", examples), examples, 512)
    texts = [teacher.template.reply(store[number][store.prompts[number]:].tolist(), teacher.tokenizer)
             for number in range(len(store))]
    written = [example.target for example in read_examples(tmp_path / "work" / "responses" / "targets.jsonl")]
    assert written == [f"It is at place {number}." for number in range(24)]
    assert texts == (TEXTS + written if use == "added" else written)
    again = school.store(store, examples, 512)
    assert (again.fingerprint, writer.calls) == (store.fingerprint, 1)
    changed = School(teacher, DistilSettings(responses={"use": use, "sources": 5}), tmp_path / "work")
    assert len(changed.store(store, examples, 512)) == (29 if use == "added" else 5)
    assert writer.calls == 2


def test_without_a_share_of_the_teacher_the_loss_is_the_usual_one(tmp_path, teacher):
    school = School(teacher, DistilSettings(alpha=0.0), tmp_path)
    assert school.goal(teacher.model(), TrainSettings()) is None
    assert School(teacher, DistilSettings(), tmp_path).goal(teacher.model(), TrainSettings()) is not None


def test_the_student_begins_with_its_teacher_where_it_can(tmp_path, teacher):
    small = GlmSpec(**{**teacher.spec.model_dump(), "layers": 2})
    large = GlmSpec(**{**teacher.spec.model_dump(), "layers": 5})
    for spec, how, taken in ((small, "auto", True), (small, "fresh", False), (large, "auto", False)):
        student = hf.build(spec, seed=1)
        School(teacher, DistilSettings(initialise=how), tmp_path).start(student, spec)
        same = torch.equal(student.model.embed_tokens.weight, teacher.model().model.embed_tokens.weight)
        assert same is taken
    with pytest.raises(Exception, match="layers of 5 is above"):
        School(teacher, DistilSettings(initialise="teacher"), tmp_path).start(hf.build(large, seed=1), large)


def test_a_shape_left_out_is_half_the_layers(teacher):
    assert StudentShape().of(teacher.spec) == {"layers": 2}
    assert StudentShape(ffn_size=8).of(teacher.spec) == {"ffn_size": 8}


def task_of(folder: Path, more: str) -> Run:
    path = write_task(folder, more=more)
    text = path.read_text().replace("tokenizer: {vocab_size: 300}\n", "")
    path.write_text(text)
    return Run.of(path)


def test_check_finds_the_teacher_and_counts_it(tmp_path, teacher):
    found = check(task_of(tmp_path, f"distill: {{teacher: {teacher.path}}}"))
    lines = {line.what: line for line in found.lines}
    assert not found.faulty
    assert lines["teacher"].value.startswith(f"{teacher.spec.parameters:,} parameters: 4 layers")
    assert found.estimate is not None
    assert found.estimate.plan.spec.vocab_size == 304


@pytest.mark.parametrize(("more", "key", "named"), [
    ("distill: {teacher: nowhere}", "distill.teacher", "is no bundle"),
    ("distill: {teacher: TEACHER}\ntokenizer: {path: other}", "distill.teacher", "another tokenizer"),
    ("distill: {teacher: TEACHER}\nseed: 1\ntokenizer: {path: own}", None, None),
    ("distill: {teacher: TEACHER, initialise: teacher}\nsearch: {enabled: false}", None, None),
    ("distill: {teacher: TEACHER, initialise: teacher}\n_wide", "distill.initialise", "hidden_size of 64 is above"),
    ("distill: {teacher: TEACHER}\n_glm4", "model.template", "another prompt form")],
    ids=["nowhere", "other-tokenizer", "own-tokenizer", "cut-out", "too-wide", "other-template"])
def test_check_names_what_does_not_fit(tmp_path, teacher, more, key, named):
    Tokenizer.train([*TEXTS, "Quite other words stand here: zebra, quartz."], 310).save(tmp_path / "other")
    teacher.tokenizer.save(tmp_path / "own")
    path = write_task(tmp_path, more="MORE")
    text = path.read_text().replace("tokenizer: {vocab_size: 300}\n", "")
    for mark, change in (("\n_wide", "hidden_size: 64"), ("\n_glm4", "hidden_size: 16, template: glm4")):
        if mark in more:
            more, text = more.replace(mark, ""), text.replace("hidden_size: 16", change)
    path.write_text(text.replace("MORE", more.replace("TEACHER", str(teacher.path))))
    faults = [line for line in check(Run.of(path)).lines if line.status == "fault"]
    assert [line.what for line in faults][:1] == ([key] if key else [])
    if named:
        assert named in faults[0].value
        assert faults[0].remedy


def test_settings_without_a_teacher_are_refused():
    with pytest.raises(TaskError, match="needs a teacher"):
        make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, "distill": {"alpha": 0.5}})
