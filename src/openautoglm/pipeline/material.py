"""What training eats: a tokenizer with the token stores that it makes of the cleaned splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from openautoglm.core.errors import DataError, TaskError
from openautoglm.core.values import Example
from openautoglm.data.jsonl import read_examples
from openautoglm.data.tokens import TokenStore, build_store, open_store
from openautoglm.models.card import CARD_NAME, read_card
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.facts import DataFacts
from openautoglm.pipeline.plan import auto_vocabulary
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

MAX_POSITIONS = 2048


@dataclass(frozen=True)
class Material:
    """A folder with a tokenizer and the stores ``tokens-train`` and ``tokens-valid``."""

    folder: Path

    @property
    def parts(self) -> tuple[Path, ...]:
        """What must exist."""
        return (self.folder / "tokenizer.json", *(self.folder / f"tokens-{split}" / "store.json"
                                                  for split in ("train", "valid")))

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer."""
        return Tokenizer.load(self.folder)

    def store(self, split: str) -> TokenStore:
        """Map the token ids of a split."""
        return open_store(self.folder / f"tokens-{split}")

    def facts(self, run: Run) -> DataFacts:
        """Count what is there."""
        train, valid = self.store("train"), self.store("valid")
        paired = any(example.source for example in islice(read_examples(run.split("train")), 100))
        return DataFacts(train_rows=len(train), valid_rows=len(valid), train_tokens=train.tokens,
                         target_tokens=train.target_tokens, longest=int(train.lengths.max()),
                         overlong=train.overlong, vocab_size=self.tokenizer().vocab_size, paired=paired)


def prepare(run: Run, folder: Path, vocab_size: int | None) -> Material:
    """Make the material in `folder`, or take what is already finished there.

    Args:
        vocab_size: size of the tokenizer to be trained; None: as the task says.

    Raises:
        DataError: no examples are left, or too many are longer than the model's positions.
        TokenizerError: the tokenizer given is damaged, or the size too small.
    """
    material = Material(folder)
    if not material.parts[0].is_file():
        _tokenizer(run, vocab_size).save(folder)
    tokenizer, template, longest = material.tokenizer(), template_of(run), max_positions(run)
    for split, part in zip(("train", "valid"), material.parts[1:], strict=True):
        if not part.is_file():
            if not has_rows(run.split(split)):
                raise DataError(f"the {split} split has no rows after cleaning", where=str(run.split(split)),
                                remedy="see data/quality.html for what was dropped; give data."
                                f"{split}, or raise clean.split.valid")
            build_store(read_examples(run.split(split)), template, tokenizer, part.parent, longest)
    return material


def has_rows(path: Path) -> bool:
    """Whether a split has any example."""
    return path.is_file() and path.stat().st_size > 0


def _tokenizer(run: Run, vocab_size: int | None) -> Tokenizer:
    given = source_of_tokenizer(run)
    if given is not None:
        return Tokenizer.load(given)
    if vocab_size is None:
        asked = run.task.tokenizer.vocab_size
        size = run.split("train").stat().st_size if run.split("train").is_file() else 0
        vocab_size = auto_vocabulary(size) if asked == "auto" else int(asked)
    return Tokenizer.train(_texts(read_examples(run.split("train"))), vocab_size)


def _texts(examples: Iterator[Example]) -> Iterator[str]:
    for example in examples:
        yield example.source
        yield example.target
        for turn in example.turns:
            yield turn.text


def source_of_tokenizer(run: Run) -> Path | None:
    """The folder whose tokenizer is used as it is: the task's, the teacher's, or the checkpoint's; None: one is
    trained."""
    if run.task.tokenizer.path is not None:
        return run.base / run.task.tokenizer.path
    return teacher_folder(run) or checkpoint_folder(run)


def teacher_folder(run: Run) -> Path | None:
    """The folder of the teacher's bundle; None: there is no teacher.

    Raises:
        TaskError: there is no bundle.
    """
    if run.task.distill.teacher is None:
        return None
    folder = run.base / run.task.distill.teacher
    if not (folder / CARD_NAME).is_file():
        raise TaskError(f"{folder} is no bundle", where="distill.teacher",
                        remedy="give the folder of a bundle, for example runs/NAME/bundle")
    return folder


def checkpoint_folder(run: Run) -> Path | None:
    """The folder of the checkpoint that training starts from (fetched, if it is a hub name); None: from scratch."""
    name = run.task.model.checkpoint
    if name is None:
        return None
    from openautoglm.models import hf

    local = run.base / name
    return hf.checkpoint_folder(local if local.exists() else name)


def checkpoint_spec(run: Run) -> GlmSpec | None:
    """The architecture of the checkpoint; None: from scratch."""
    from openautoglm.core.files import read_json

    folder = checkpoint_folder(run)
    return GlmSpec.from_config(read_json(folder / "config.json"), where=str(folder)) if folder else None


def template_of(run: Run) -> Template:
    """The prompt form: the task's, that of the teacher or of a bundle to start from, glm4 for another checkpoint, else
    pair."""
    asked = run.task.model
    if asked.template != "auto":
        return Template(kind=asked.template, system=asked.system)
    folder = teacher_folder(run) or checkpoint_folder(run)
    if folder is None:
        return Template(kind="pair", system=asked.system)
    if not (folder / CARD_NAME).is_file():
        return Template(kind="glm4", system=asked.system)
    own = read_card(folder).template
    return own if asked.system is None else Template(kind=own.kind, system=asked.system)


def max_positions(run: Run) -> int:
    """The longest example in tokens: the task's, the checkpoint's, or `MAX_POSITIONS`."""
    spec, teacher = checkpoint_spec(run), teacher_folder(run)
    longest = run.task.model.max_positions or (min(spec.max_positions, 8192) if spec else MAX_POSITIONS)
    return min(longest, read_card(teacher).spec.max_positions) if teacher else longest
