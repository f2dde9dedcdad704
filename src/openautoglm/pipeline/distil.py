"""Distillation: a teacher's bundle teaches a smaller student, in a task's training or as a step of a recipe."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import DataError, TaskError, TrainError
from openautoglm.core.files import fingerprint, read_json, sha256_file, write_json
from openautoglm.core.values import Example
from openautoglm.data.jsonl import read_examples
from openautoglm.data.tokens import TokenStore, build_store, open_store
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.distilltask import DistilCore, DistilSettings
from openautoglm.pipeline.engines import author_of
from openautoglm.pipeline.material import teacher_folder
from openautoglm.pipeline.plan import shaped
from openautoglm.pipeline.self_distill import bound_of, cases_of, read_targets, write_targets
from openautoglm.pipeline.training import device, drive, fresh_model
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer
from openautoglm.train.distil import Distil
from openautoglm.train.settings import TrainSettings
from openautoglm.train.student import initialise

_log = log.get(__name__)


def teacher_of(run: Run, tokenizer: Tokenizer, template: Template) -> Bundle | None:
    """The teacher's bundle, opened and found fit; None: there is none.

    Raises:
        TaskError: another tokenizer or prompt form than the student's.
        BundleError: it is damaged.
    """
    folder = teacher_folder(run)
    if folder is None:
        return None
    teacher = open_bundle(folder)
    refuse_strangers(teacher.card.tokenizer, teacher.template, tokenizer, template)
    return teacher


def refuse_strangers(fingerprint_of_teacher: str, form: Template, tokenizer: Tokenizer, template: Template) -> None:
    """Raise TaskError where teacher and student read texts differently."""
    if fingerprint_of_teacher != tokenizer.fingerprint:
        raise TaskError("the teacher has another tokenizer than the student", where="distill.teacher",
                        remedy="leave tokenizer.path and model.checkpoint out, so that the student takes the teacher's "
                               "tokenizer; or use distill.responses with a task of its own")
    if form != template:
        raise TaskError("the teacher has another prompt form than the student", where="model.template",
                        remedy="leave model.template and model.system out, so that the teacher's are taken")


@dataclass
class School:
    """What a teacher gives to one student's training.

    Args:
        work: the folder of that training.
    """

    teacher: Bundle
    settings: DistilCore
    work: Path
    _model: Any = field(default=None, repr=False)

    def model(self) -> Any:
        """The teacher in transformers' class, on the training device."""
        if self._model is None:
            self._model = self.teacher.model().to(device())
        return self._model

    def start(self, student: Any, spec: GlmSpec) -> None:
        """Give the student weights of the teacher, if so set.

        Raises:
            TrainError: it is set, but the student is larger somewhere.
        """
        if self.settings.initialise == "fresh":
            return
        try:
            initialise(student, spec, self.model(), self.teacher.spec)
        except TrainError as error:
            if self.settings.initialise == "teacher":
                raise
            _log.info("distill: the student begins with fresh weights: %s", error.message)
            return
        _log.info("distill: the student begins with weights of the teacher")

    def store(self, own: TokenStore, examples: Path, max_tokens: int) -> TokenStore:
        """The tokens that the student trains on: `own`, or with the teacher's texts; a stopped call goes on.

        Args:
            own: of the examples as they are.

        Raises:
            TaskError: no text of the teacher ended by itself, or the data has no sources.
        """
        wanted = self.settings.responses
        if wanted.use == "off":
            return own
        folder = self.work / "responses"
        self._sweep(folder, examples)
        cases = cases_of(examples, self.teacher, wanted.sources)
        if not cases:
            raise TaskError("plain text has no sources to write targets for", where="distill.responses",
                            remedy="set distill.responses.use to off")
        try:
            return open_store(folder / "tokens")
        except DataError:
            write_targets(folder / "targets.jsonl", author_of(self.teacher), cases, wanted,
                          bound_of(self.teacher, cases), "distill")
        texts: Iterator[Example] = read_targets(folder / "targets.jsonl")
        if wanted.use == "added":
            texts = chain(read_examples(examples), texts)
        return build_store(texts, self.teacher.template, self.teacher.tokenizer, folder / "tokens", max_tokens)

    def goal(self, student: Any, train: TrainSettings) -> Distil | None:
        """What the student's training minimises; None: the cross entropy alone."""
        if not self.settings.alpha and not self.settings.features:
            return None
        return Distil(self.model(), student, self.settings, name=self.name, smoothing=train.label_smoothing,
                      seed=train.seed)

    @property
    def name(self) -> str:
        """Identifies the teacher by its files."""
        return fingerprint(dict(self.teacher.card.files))

    def _sweep(self, folder: Path, examples: Path) -> None:
        """Remove texts that another teacher wrote, or with other settings, or for other data."""
        mine = fingerprint({"teacher": self.name, "responses": self.settings.responses.model_dump(mode="json"),
                            "data": sha256_file(examples)})
        note = folder / "identity.json"
        if folder.is_dir() and not (note.is_file() and read_json(note) == mine):
            shutil.rmtree(folder)
        write_json(note, mine)


@dataclass(frozen=True)
class DistilFacts:
    """What a distillation needs beside its settings.

    Attributes:
        work: a folder for what a stopped call left.
        train_examples, valid_examples: examples as a run keeps them (``data/train.jsonl``); without the second, or
            where the student learns the teacher's texts only, the last weights are kept.
        train: the training loop.
        dropout: of the student.
        recipe: goes into the student's card, beside the teacher's own recipe.
    """

    work: Path
    train_examples: Path
    valid_examples: Path | None
    train: TrainSettings
    dropout: float = 0.1
    recipe: Mapping[str, Any] = field(default_factory=dict)


def distil_bundle(teacher: Path, out: Path, settings: DistilSettings, facts: DistilFacts) -> Bundle:
    """Train a student of the bundle `teacher` and write it to `out`; a call that was stopped goes on.

    Raises:
        BundleError: the teacher is damaged.
        TaskError: the shape cannot be built.
        DataError, TrainError, CheckpointError, ResourceError: as their rooms.
    """
    bundle = open_bundle(teacher)
    spec = shaped(bundle.spec, settings.student.of(bundle.spec))
    school = School(bundle, settings, facts.work)
    train, valid = (_tokens(bundle, facts.work / f"tokens-{name}", path) for name, path in (
        ("train", facts.train_examples), ("valid", facts.valid_examples)))
    assert train is not None
    student = fresh_model(spec, seed=facts.train.seed, dropout=facts.dropout, attention_dropout=0.0)
    school.start(student, spec)
    store = school.store(train, facts.train_examples, bundle.spec.max_positions)
    if settings.responses.use == "only":
        valid = None
    deque(drive(student, store, valid, facts.train, facts.work, label="distill",
                goal=school.goal(student, facts.train)), maxlen=0)
    step = {"distill": settings.model_dump(mode="json"), "teacher": school.name,
            "train": facts.train.model_dump(mode="json")}
    return write_bundle(out, model=student, spec=spec, tokenizer=bundle.tokenizer, template=bundle.template,
                        card_facts={"data": bundle.card.data, "recipe": {**bundle.card.recipe, **facts.recipe, **step}})


def _tokens(bundle: Bundle, path: Path, examples: Path | None) -> TokenStore | None:
    """Examples as the bundle's tokens, made once; what was made of other examples is replaced."""
    if examples is None:
        return None
    mine, note = fingerprint([bundle.card.tokenizer, sha256_file(examples)]), path.with_suffix(".json")
    if note.is_file() and read_json(note) == mine:
        return open_store(path)
    store = build_store(read_examples(examples), bundle.template, bundle.tokenizer, path, bundle.spec.max_positions)
    write_json(note, mine)
    return store
