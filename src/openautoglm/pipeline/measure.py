"""Measures a trained model: every decoding on every split, one chosen by the validation records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import EvaluationError
from openautoglm.core.files import atomic_write, fingerprint, write_json
from openautoglm.data.jsonl import read_examples
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.sampling import Sampling
from openautoglm.evaluate.base import Likelihood
from openautoglm.evaluate.registry import METRICS
from openautoglm.evaluate.run import Case, group_cases, score
from openautoglm.evaluate.scores import Scores
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.engines import author_of
from openautoglm.pipeline.evaluation import EvaluateTask
from openautoglm.pipeline.generation import Author
from openautoglm.pipeline.material import has_rows
from openautoglm.pipeline.sampled import evenly

_log = log.get(__name__)
LIKELIHOOD_METRICS = ("perplexity", "bits_per_byte")


def measure(run: Run) -> dict[str, Any]:
    """Evaluate ``train/model`` on the cleaned validation and test splits; write scores and predictions.

    Texts of a split and a decoding are kept as soon as they are there, so that a stopped evaluation goes on.
    """
    splits = {split: evenly(group_cases(read_examples(run.split(split))), most)
              for split, most in (("valid", run.task.evaluate.valid_cases), ("test", run.task.evaluate.test_cases))
              if has_rows(run.split(split))}
    measured = measure_bundle(open_bundle(run.model), splits, run.task.evaluate, run.evaluate)
    return {"chosen": measured["chosen"],
            "scores": {split: {key: one["value"] for key, one in by[measured["chosen"]]["scores"].items()}
                       for split, by in measured["splits"].items()}}


def measure_bundle(bundle: Bundle, splits: Mapping[str, Sequence[Case]], section: EvaluateTask,
                   folder: Path, program: ProgramSettings | None = None) -> dict[str, Any]:
    """Evaluate a bundle on the cases of some splits; ``scores.json`` and ``predictions.jsonl`` are written to `folder`.

    `program` says how the bundle is loaded.

    Returns:
        The content of ``scores.json``.

    Raises:
        EvaluationError: there is nothing to evaluate, or an asked metric lacks its data.
    """
    if not any(splits.values()):
        raise EvaluationError("there are no records to evaluate on", remedy="give data.valid or data.test, or let "
                              "clean.split take a share of the training rows")
    author = author_of(bundle, program)
    key = fingerprint([bundle.card.files, program.model_dump() if program else None])
    longest = max(len(bundle.tokenizer.encode(text)) for cases in splits.values() for case in cases
                  for text in case.references)
    decodings = section.all_decodings(longest)
    results: dict[str, dict[str, Any]] = {}
    texts: dict[tuple[str, str], list[str]] = {}
    for split, cases in splits.items():
        likelihoods = author.likelihoods(cases, [case.references[0] for case in cases])
        paired = any(case.source or case.turns for case in cases)
        for name, sampling in decodings.items() if paired else [("none", Sampling())]:
            texts[split, name] = _texts(author, cases, sampling, folder / "texts" / f"{split}.{name}.jsonl", key,
                                        f"{split} {name}") if paired else [case.references[0] for case in cases]
            scores = _scored(texts[split, name], cases, section, likelihoods, paired=paired)
            results.setdefault(split, {})[name] = scores.to_dict()
            _log.info("%s, %s: %s", split, name, _short(scores, section.choose_by))
    chosen = choose(results, section.choose_by)
    value: dict[str, Any] = {"chosen": chosen, "choose_by": section.choose_by, "splits": results,
             "decodings": {name: sampling.model_dump(mode="json") for name, sampling in decodings.items()}}
    value["decodings"].setdefault("none", Sampling().model_dump(mode="json"))
    _write_predictions(folder / "predictions.jsonl", splits, texts, chosen)
    write_json(folder / "scores.json", value)
    return value


def _short(scores: Scores, key: str) -> str:
    """The figure that chooses, or the first one, in a line."""
    one = scores[key] if key in scores else scores.all[0]
    return f"{one.name} {one.value:.2f}" + (f" [{one.low:.2f}, {one.high:.2f}]" if one.low is not None else "")


def choose(results: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """The decoding with the best figure of `key` on the validation records (or the only split there is)."""
    by = results.get("valid") or next(iter(results.values()))
    sign = -1.0 if METRICS[key].better == "lower" else 1.0
    return max(by, key=lambda name: sign * by[name]["scores"].get(key, {"value": -sign * float("inf")})["value"])


def _scored(texts: Sequence[str], cases: Sequence[Case], section: EvaluateTask, likelihoods: Sequence[Likelihood], *,
            paired: bool) -> Scores:
    own = {name: getattr(section, name) for name in EvaluateSettings.model_fields}
    settings = EvaluateSettings(**(own if paired else own | {"metrics": LIKELIHOOD_METRICS}))
    fields = [case.fields for case in cases] if any(case.fields for case in cases) else None
    return score(texts, [case.references for case in cases], fields=fields, settings=settings, likelihoods=likelihoods)


def _texts(author: Author, cases: Sequence[Case], sampling: Sampling, path: Path, key: str,
           label: str) -> list[str]:
    """The texts of a decoding, from disk where they are finished: same model, settings and records."""
    head = fingerprint([key, sampling.model_dump(mode="json"), [(case.source, case.turns) for case in cases]])
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            first, *kept = [json.loads(line) for line in file] or [None]
        if first == {"made_from": head} and len(kept) == len(cases):
            return [str(text) for text in kept]
    answers = author.answer(cases, sampling, label=label)
    cut = sum(not answer.finished for answer in answers)
    if cut:
        _log.warning("%s: %d of %d texts were cut at %d tokens", label, cut, len(answers), sampling.max_new_tokens)
    with atomic_write(path) as file:
        file.write(json.dumps({"made_from": head}) + "\n")
        file.writelines(json.dumps(answer.text, ensure_ascii=False) + "\n" for answer in answers)
    return [answer.text for answer in answers]


def _write_predictions(path: Path, splits: Mapping[str, Sequence[Case]], texts: Mapping[tuple[str, str], list[str]],
                       chosen: str) -> None:
    with atomic_write(path) as file:
        for split, cases in splits.items():
            for case, text in zip(cases, texts.get((split, chosen), ()), strict=False):
                row: dict[str, Any] = {
                    "split": split,
                    "source": case.source,
                    "prediction": text,
                    "references": case.references,
                }
                if case.turns:
                    row["turns"] = case.turns
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
