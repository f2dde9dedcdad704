"""What a compressed bundle is worth beside its parent, measured on the engine that will serve it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import CompressError
from openautoglm.core.extras import require
from openautoglm.core.progress import progress
from openautoglm.core.settings import Settings
from openautoglm.core.values import Example, Origin
from openautoglm.engine.compare import compare
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.sampling import Sampling
from openautoglm.evaluate.registry import METRICS
from openautoglm.evaluate.run import score
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.models.bundle import Bundle, is_packed
from openautoglm.models.card import CARD_NAME
from openautoglm.pipeline.answering import recommended
from openautoglm.pipeline.compressing.material import LONGEST, Material
from openautoglm.pipeline.engines import author_of
from openautoglm.runtime.memory import free_bytes

CHILD = (sys.executable, "-m", "openautoglm.pipeline.compressing.child")
_log = log.get(__name__)
_TOKENS, _REPEATS, _TOGETHER = 64, 3, 32
_BESIDE, _OVERHEAD_BYTES, _SHARE_OF_FREE = 1.6, 512 << 20, 0.8
"""A parent with a child of half its bits and some room; what libraries and caches take; share of what is free."""


class Measured(Settings):
    """The figures of a bundle.

    Attributes:
        size_bytes: of all its files; weights packed for the engine are not counted, as they are made of the others.
        peak_bytes: of a process that serves it: Python and its libraries included, 8 sequences at once.
        weight_bytes, cache_bytes: that weights and cache take in it.
        load_s: until the model can answer.
        tokens_per_s: generated, with 1 and with 8 sequences at once.
        scores: metrics of the task: of greedy answers, or bits per byte of plain text.
        perplexity: per token of the texts.
        kl: mean divergence from the parent in nats a token; agreement: share of equal likeliest tokens. Both in
            decoding, token by token; None of the parent itself.
        peak_bytes, tokens_per_s, scores: 0 and empty of a parent that does not fit into memory (see `measure_apart`).
        tokens: on which these three were measured.
        target: what ran it.
    """

    size_bytes: int
    peak_bytes: int
    weight_bytes: int
    cache_bytes: int
    load_s: float
    tokens_per_s: dict[str, float]
    scores: dict[str, float]
    perplexity: float
    kl: float | None = None
    agreement: float | None = None
    tokens: int = 0
    target: str = ""


def size_of(bundle: Bundle) -> int:
    """Bytes of a bundle's files without those that are made of the others."""
    files = [bundle.path / name for name in (*bundle.card.files, CARD_NAME) if not is_packed(name)]
    return sum(file.stat().st_size for file in files if file.is_file())


def measure(bundle: Bundle, parent: Bundle, material: Material, texts: int, evaluate: EvaluateSettings,
            program: ProgramSettings | None = None) -> Measured:
    """Measure a bundle; beside its parent where that is another one.

    Args:
        texts: on how many texts divergence and perplexity are measured.
        evaluate: which metrics of answers and how; plain text has bits per byte in their place.
        program: how both are loaded.

    Raises:
        CompressError: it cannot be loaded or run, or there is no text to measure on.
    """
    program = program or ProgramSettings()
    given = _texts(bundle, material, texts)
    weighed = weigh(bundle.path, program, [ids[:first] for ids, first in given])
    settings = program.model_copy(update={"cache_tokens": _TOGETHER * LONGEST, "max_wanted": _TOGETHER})
    scores = (_scores(bundle, material, evaluate, settings) if material.paired
              else _bits_per_byte(bundle, material, settings))
    same = bundle.path == parent.path
    other = open_engine(bundle.path, settings, vocab_size=bundle.tokenizer.vocab_size)
    one = other if same else open_engine(parent.path, settings, vocab_size=parent.tokenizer.vocab_size)
    with progress(len(given), "compare", "texts") as bar:
        found = compare(one, other, given, bar.advance)
    return Measured(
        size_bytes=size_of(bundle), scores=scores, perplexity=found.perplexity[1], kl=None if same else found.kl,
        agreement=None if same else found.agreement, tokens=found.tokens, **_weights_and_rates(weighed))


def fits_together(parent: Bundle, limit: int | None) -> bool:
    """Whether a parent and what is made of it can be in memory at once, to be compared while they decode."""
    needed = int(size_of(parent) * _BESIDE)
    return needed + _OVERHEAD_BYTES <= free_bytes() * _SHARE_OF_FREE and (limit is None or needed <= limit)


def measure_apart(bundle: Bundle, parent: Bundle, material: Material, texts: int, folder: Path) -> Measured:
    """Measure a bundle whose parent does not fit into memory: both are compared layer by layer, on prompts.

    Of the parent itself only size and perplexity are known then.

    Args:
        folder: for files of some size.

    Raises:
        CompressError: the bundle cannot be loaded or run, or there is no text to measure on.
    """
    require("torch", "train")
    from openautoglm.compress.compare import compare_layers

    given, program = _texts(bundle, material, texts), ProgramSettings()
    found = compare_layers(parent.path, bundle.path, given, folder, vocab_size=bundle.tokenizer.vocab_size)
    known: dict[str, Any] = {"size_bytes": size_of(bundle), "perplexity": found.perplexity[1], "tokens": found.tokens}
    if bundle.path == parent.path:
        return Measured(**known, peak_bytes=0, weight_bytes=0, cache_bytes=0, load_s=0.0, tokens_per_s={}, scores={},
                        target="layer by layer")
    weighed = weigh(bundle.path, program, [ids[:first] for ids, first in given])
    return Measured(**known, **_weights_and_rates(weighed), scores={}, kl=found.kl, agreement=found.agreement)


def _weights_and_rates(weighed: Mapping[str, Any]) -> dict[str, Any]:
    rates = {"1": weighed["tokens_per_s_1"], "8": weighed["tokens_per_s_8"]}
    return {"tokens_per_s": rates, **{name: weighed[name] for name in (
        "peak_bytes", "weight_bytes", "cache_bytes", "load_s", "target")}}


def _texts(bundle: Bundle, material: Material, texts: int) -> list[tuple[list[int], int]]:
    given = material.texts(bundle, texts)
    if not given:
        raise CompressError("there is no text to measure on", where="data", remedy="give records with targets")
    return given


def weigh(folder: Path, program: ProgramSettings, prompts: Sequence[Sequence[int]], *,
          command: Sequence[str] = CHILD) -> dict[str, Any]:
    """What serving a bundle takes, in a process of its own; see `child`.

    Raises:
        CompressError: it cannot be loaded, or its process has ended.
    """
    prompts = [list(prompt) for prompt in prompts[:8]]
    cache = 8 * (max(map(len, prompts)) + _TOKENS + 16)
    fixed = program.model_copy(update={"cache_tokens": program.cache_tokens or cache})
    job = {"folder": str(folder), "program": fixed.model_dump(mode="json"), "prompts": prompts, "tokens": _TOKENS,
           "repeats": _REPEATS}
    done = subprocess.run(  # nosec B603  # our own command, no shell
        command, input=json.dumps(job), capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CompressError(f"the process that served it ended with {done.returncode}: {last}", where=str(folder),
                            remedy="see whether memory is short; `autoglm generate` shows the same") from None
    if "error" in found:
        raise CompressError(f"cannot be served: {found['error']}", where=str(folder), remedy=found["remedy"])
    return found


def _scores(bundle: Bundle, material: Material, evaluate: EvaluateSettings, program: ProgramSettings
            ) -> dict[str, float]:
    """Metrics of greedy answers to the records, or of the card's recommended decoding where that has no beams."""
    author = author_of(bundle, program)
    longest = max(len(bundle.tokenizer.encode(text)) for case in material.cases for text in case.references)
    sampling = recommended(bundle, {})
    if sampling.num_beams > 1 or sampling.temperature > 0:
        sampling = Sampling()
    bound = min(max(16, longest * 3 // 2), bundle.spec.max_positions // 2)
    answers = author.answer(material.cases, sampling.model_copy(update={"max_new_tokens": bound}), label="answer")
    wanted = tuple(name for name in evaluate.metrics or () if METRICS[name].needs != "likelihoods")
    fields = [case.fields for case in material.cases] if any(case.fields for case in material.cases) else None
    settings = evaluate.model_copy(update={"metrics": wanted or None, "bootstrap": 0})
    found = score([answer.text for answer in answers], [case.references for case in material.cases], fields=fields,
                  settings=settings)
    return {one.key: one.value for one in found}


def _bits_per_byte(bundle: Bundle, material: Material, program: ProgramSettings) -> dict[str, float]:
    """Of whole texts, read as prompts are; texts that are too long for the model or the cache are left out."""
    texts = [case.references[0] for case in material.cases]
    encoded = bundle.template.encode_many([Example("", text, Origin("", 0)) for text in texts], bundle.tokenizer)
    longest = min(bundle.spec.max_positions, _TOGETHER * LONGEST)
    fitting = [number for number, item in enumerate(encoded) if len(item.ids) <= longest]
    if len(fitting) < len(texts):
        _log.warning("%d texts are longer than %d tokens: bits per byte are measured without them",
                     len(texts) - len(fitting), longest)
    if not fitting:
        return {}
    texts = [texts[number] for number in fitting]
    likelihoods = author_of(bundle, program).likelihoods([material.cases[number] for number in fitting], texts)
    found = score(texts, [[text] for text in texts], likelihoods=likelihoods,
                  settings=EvaluateSettings(metrics=("bits_per_byte",), bootstrap=0))
    return {one.key: one.value for one in found}


def kept(metric: str, parent: Measured, child: Measured) -> float:
    """Which share of the parent's figure a bundle has kept; 1 is all, more is better than the parent."""
    if metric == "perplexity":
        return parent.perplexity / child.perplexity
    before, after = (_figure(metric, one.scores) for one in (parent, child))
    if METRICS[metric].better == "lower":
        before, after = after, before
    return after / before if before else 1.0 if after >= before else 0.0


def _figure(metric: str, scores: Mapping[str, float]) -> float:
    try:
        return scores[metric]
    except KeyError:
        raise CompressError(f"there is no {metric} of this data", where="metric",
                            remedy=f"choose from {', '.join([*scores, 'perplexity'])}") from None
