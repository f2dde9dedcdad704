"""Sequence-level self-distillation: the trained model writes its own targets, and learns the chosen ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import DataError, TaskError
from openautoglm.core.progress import progress
from openautoglm.core.values import Example, Origin
from openautoglm.data.jsonl import decode_example, encode_example, read_examples
from openautoglm.data.tokens import TokenStore, build_store, open_store
from openautoglm.engine.consensus import choose
from openautoglm.engine.coverage import best_covered
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.similarity import bleu_to
from openautoglm.evaluate.run import Case, group_cases
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.distilltask import Responses, SelfDistillTask
from openautoglm.pipeline.engines import author_of
from openautoglm.pipeline.generation import Answer, Author
from openautoglm.pipeline.plan import Plan
from openautoglm.pipeline.sampled import evenly
from openautoglm.pipeline.training import device, drive
from openautoglm.train.settings import TrainSettings

_log = log.get(__name__)
CHUNK = 512
"""Sources whose targets are written to disk together; what is there after a stop is not written again."""


def self_distill(run: Run, plan: Plan) -> dict[str, Any]:
    """Write targets for the training sources, learn them, and write ``self_distill/model``; a stopped call goes on.

    Returns:
        Facts for the state: sources, targets kept, loss.

    Raises:
        TaskError: the data has no sources, or no text of the model ended by itself.
        TrainError, CheckpointError: as the training room.
    """
    section, folder = run.task.self_distill, run.self_distill
    bundle = open_bundle(run.trained)
    cases = cases_of(run.split("train"), bundle, section.sources)
    if not cases:
        raise TaskError("plain text has no sources to write targets for", where="self_distill",
                        remedy="leave the section out")
    kept = write_targets(folder / "targets.jsonl", author_of(bundle), cases, section, bound_of(bundle, cases))
    store = _store(folder, bundle, plan)
    model = bundle.model().to(device())
    if plan.dropout:
        hf.Dropouts(model, plan.dropout)
    events = drive(model, store, None, settings_of(section, plan.train), folder, label="self-distill")
    last = deque(events, maxlen=1)
    write_bundle(run.model, model=model, spec=bundle.spec, tokenizer=bundle.tokenizer, template=bundle.template,
                 dtype=bundle.card.dtype, card_facts={"data": bundle.card.data, "recipe": bundle.card.recipe})
    facts = {"sources": len(cases), "targets": kept}
    return facts | ({"steps": last[0].step, "loss": last[0].loss} if last else {})


def settings_of(section: SelfDistillTask, train: TrainSettings) -> TrainSettings:
    """The training loop's settings for the new targets: short, gentle, everything else as in training."""
    return train.model_copy(update={
        "passes": section.passes, "tokens": None, "minutes": None, "batch": section.batch, "batch_unit": "rows",
        "layout": "bucket", "accumulation": 1, "lr": train.lr * section.lr_ratio, "ema_decay": section.ema_decay,
        "agreement": 0.0, "best_by": "valid_loss", "patience": None, "validate_every_passes": section.passes})


def write_targets(path: Path, author: Author, cases: Sequence[Case], section: SelfDistillTask | Responses, bound: int,
                  label: str = "self-distill") -> int:
    """Write one example per case to `path`, with an empty target where no candidate ended; return those with a target.

    Whole chunks that a former call left are kept.

    Raises:
        TaskError: not one candidate ended by itself.
    """
    sampling = section.decoding.model_copy(update={"choose": "first", "max_new_tokens": min(
        bound, section.decoding.max_new_tokens)})
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _whole_chunks(path, len(cases))
    with path.open("ab") as file, progress(len(cases), f"{label}: targets", "records", done=done) as bar:
        for start in range(done, len(cases), CHUNK):
            chunk = cases[start : start + CHUNK]
            answers = author.answer(chunk, sampling)
            lines = [encode_example(Example(case.source, chosen_target(case, answer, section.choose) or "",
                                            Origin(label.replace("-", "_"), start + place), case.fields, case.turns))
                     for place, (case, answer) in enumerate(zip(chunk, answers, strict=True), 1)]
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            bar.advance(len(chunk))
    kept = sum(1 for _ in read_targets(path))
    if kept < len(cases):
        _log.warning("%s: %d of %d sources have no text that ended within %d tokens; they are left out", label,
                     len(cases) - kept, len(cases), sampling.max_new_tokens)
    if not kept:
        raise TaskError(f"no text of the model ended within {sampling.max_new_tokens} tokens",
                        where=label.replace("-", "_"), remedy="train longer, or leave the section out")
    return kept


def chosen_target(case: Case, answer: Answer, by: str) -> str | None:
    """The candidate that becomes the target: best covered, then likest; None where none ended."""
    ended = [number for number, text in enumerate(answer.candidates) if answer.ended[number] and text.strip()]
    if not ended:
        return None
    texts = [answer.candidates[number] for number in ended]
    if by == "consensus":
        return texts[choose(texts, case.fields, Sampling(num_beams=2, choose="coverage+consensus"),
                            [answer.logprobs[number] for number in ended])]
    likeness = bleu_to(case.references, texts)
    return texts[max(best_covered(case.fields, texts), key=lambda number: float(likeness[number]))]


def read_targets(path: Path) -> Iterator[Example]:
    """The examples of `write_targets` that have a target."""
    return (example for example in read_examples(path) if example.target)


def _whole_chunks(path: Path, cases: int) -> int:
    """Cut `path` down to its whole chunks; return how many cases they hold."""
    if not path.is_file():
        return 0
    with path.open("r+b") as file:
        ends: list[int] = []
        for line in file:
            if not line.endswith(b"\n") or not _is_example(line):
                break
            ends.append((ends[-1] if ends else 0) + len(line))
        done = len(ends) if len(ends) == cases else len(ends) // CHUNK * CHUNK
        file.truncate(ends[done - 1] if done else 0)
    return done


def _is_example(line: bytes) -> bool:
    try:
        decode_example(line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def cases_of(path: Path, bundle: Bundle, most: int) -> list[Case]:
    """Sources of a split with their references, those left out that training left out: without room for an answer."""
    grouped = (case for case in group_cases(read_examples(path)) if case.source or case.turns)
    room = [case for case in grouped if len(bundle.template.prompt(case.source, case.turns, bundle.tokenizer))
            < bundle.spec.max_positions]
    return evenly(room, most)


def bound_of(bundle: Bundle, cases: Sequence[Case]) -> int:
    """Half more tokens than the longest of some references has."""
    sample = evenly(cases, 2000)
    return max(16, max(len(bundle.tokenizer.encode(text)) for case in sample for text in case.references) * 3 // 2)


def _store(folder: Path, bundle: Bundle, plan: Plan) -> TokenStore:
    """The new targets as tokens, made once."""
    path = folder / "tokens"
    try:
        return open_store(path)
    except DataError:
        return build_store(read_targets(folder / "targets.jsonl"), bundle.template, bundle.tokenizer, path,
                           bundle.spec.max_positions)
