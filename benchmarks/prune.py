"""What pruning brings and costs: greedy scores of a bundle and of its pruned child, and the speed of both in turn.

    python benchmarks/prune.py BUNDLE --run RUN --folder DIR --lowercase --threads 2 1
    python benchmarks/prune.py --shape S --folder DIR        (random weights, pruned alike and not trained: speed alone)

BUNDLE is one that `autoglm run` wrote in RUN. The child is made as docs/prune.md tells: 40 % of the channels and heads
by `gradient`, what stays compensated, then `--passes` over the tokens that the parent learnt last. Both bundles are
scored on the cleaned splits. Speed: for each number of threads both are loaded in one process and generate in turn, so
that what else the machine does hits both; a pair's ratio is that of two neighbouring runs, and medians over the pairs
are told. All of it goes on where it stopped: bundles and scores lie in `--folder`, pairs in DIR/prune.json.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peers.random_shapes import random_checkpoint

from openautoglm.compress.prune.settings import PruneSettings, RecoverSettings
from openautoglm.core.files import fingerprint, read_json, sha256_file, write_json
from openautoglm.core.progress import progress
from openautoglm.data.jsonl import read_examples
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.request import Decoding
from openautoglm.engine.settings import EngineSettings
from openautoglm.evaluate.run import group_cases
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.pipeline.evaluation import EvaluateTask
from openautoglm.pipeline.measure import measure_bundle
from openautoglm.pipeline.pruner import Pruner
from openautoglm.pipeline.pruning import prune_bundle
from openautoglm.pipeline.recovery import Recovery

METRICS = ("bleu", "rouge_l")
BATCHES = (1, 8)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PROMPT = 24


def pruned_of_run(options: argparse.Namespace) -> Path:
    """The pruned and recovered bundle."""
    settings = PruneSettings(sparsity=options.sparsity, score="gradient", compensate=True,
                             recover=RecoverSettings(passes=options.passes))
    return prune_bundle(options.bundle, options.folder / "pruned", settings, Recovery.of_run(options.run)).path


def pruned_of_shape(parent: Path, options: argparse.Namespace) -> Path:
    """The pruned checkpoint of random weights."""
    place = options.folder / f"pruned-{options.shape}-{options.sparsity:g}"
    if not place.is_dir():
        unfinished = place.with_name(f"unfinished-{place.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        Pruner(parent, options.sparsity, "l1").apply().model.save_pretrained(unfinished)
        unfinished.rename(place)
    return place


def scores(name: str, bundle: Bundle, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Greedy scores by split; kept beside the texts."""
    splits = {split: group_cases(read_examples(options.run / "data" / f"{split}.jsonl")) for split in ("valid", "test")}
    section = EvaluateTask(lowercase=options.lowercase, metrics=METRICS, decodings={"greedy": {}}, bootstrap=0)
    told = measure_bundle(bundle, splits, section, options.folder / f"scores-{name}")
    return {split: {key: one["value"] for key, one in by["greedy"]["scores"].items()}
            for split, by in told["splits"].items()}


def load(path: Path, threads: int, dtype: Any) -> Engine:
    """An engine that never stops by itself."""
    settings = ProgramSettings(threads=threads or None, dtype=dtype, max_wanted=max(BATCHES), cache_tokens=8192)
    return open_engine(path, settings, EngineSettings(prefix_cache=False), stop_ids=[])


def tokens_per_s(engine: Engine, batch: int, tokens: int, clock: Callable[[], float]) -> float:
    """Of one run: the prompt's step included, loading not."""
    vocabulary = engine.limits.vocab_size
    prompts = [[(7 * place + number) % vocabulary for place in range(PROMPT)] for number in range(batch)]
    began = clock()
    engine.generate(prompts, Decoding(max_new_tokens=tokens))
    return batch * tokens / (clock() - began)


def key_of(threads: int, batch: int, options: argparse.Namespace) -> str:
    """The name of pairs that were measured alike."""
    return f"{threads} threads, batch {batch}, {options.clock} clock"


def pairs(parent: Path, child: Path, threads: int, options: argparse.Namespace, told: dict[str, Any]) -> None:
    """Time the pairs that are missing; each is kept as soon as it is there."""
    keys = {batch: key_of(threads, batch, options) for batch in BATCHES}
    lacking = [batch for batch in BATCHES if len(told["pairs"].get(keys[batch], ())) < options.pairs]
    if not lacking:
        return
    engines, clock = [load(path, threads, options.dtype) for path in (parent, child)], CLOCKS[options.clock]
    for engine in engines:
        for batch in BATCHES:
            tokens_per_s(engine, batch, 32, clock)
    with progress(options.pairs * len(lacking), f"pairs, {threads or 'all'} threads", "pairs") as bar:
        for number in range(options.pairs):
            for batch in lacking:
                found = told["pairs"].setdefault(keys[batch], [])
                if len(found) <= number:
                    order = (0, 1) if number % 2 == 0 else (1, 0)  # who is first changes
                    rates = {place: tokens_per_s(engines[place], batch, options.tokens, clock) for place in order}
                    found.append([rates[0], rates[1]])
                    write_json(options.folder / "prune.json", told)
                bar.advance(1)


def report(told: dict[str, Any], options: argparse.Namespace) -> None:
    """Print scores and speeds as tables."""
    for split in ("valid", "test"):
        if told["scores"]:
            before, after = (told["scores"][name][split] for name in ("parent", "pruned"))
            print(f"{split}: " + ", ".join(f"{key} {before[key]:.2f} to {after[key]:.2f} "
                                           f"({after[key] / before[key]:.1%})" for key in METRICS))
    print("| threads | batch | pairs | parent, tokens/s | pruned | times as fast, median | least and greatest |")
    print("|---|---|---|---|---|---|---|")
    for count in options.threads:
        for batch in BATCHES:
            found = told["pairs"][key_of(count, batch, options)]
            ratios = [after / before for before, after in found]
            middle = [statistics.median(column) for column in zip(*found, strict=True)]
            print(f"| {count or 'all'} | {batch} | {len(found)} | {middle[0]:,.0f} | {middle[1]:,.0f} | "
                  f"{statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")


def main(given: Sequence[str] | None = None) -> None:
    """Make, score, time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--run", type=Path, help="the run folder: data and tokens")
    parser.add_argument("--shape", help="instead of a bundle: S, E, or a preset, with random weights")
    parser.add_argument("--folder", type=Path, default=Path("prune-work"), help="bundles, scores and pairs")
    parser.add_argument("--work", type=Path, help="where checkpoints of shapes lie; --folder when left out")
    parser.add_argument("--sparsity", type=float, default=0.4)
    parser.add_argument("--passes", type=float, default=6.0, help="of recovery")
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="0: as the engine chooses")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=400, help="that a sequence generates in a run")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall",
                        help="cpu: the time of the process, for a busy machine")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="both are computed in")
    options = parser.parse_args(given)
    if options.clock == "cpu" and options.threads != [1]:
        parser.error("--clock cpu needs --threads 1: threads that wait for each other burn time too")
    if (options.bundle is None) == (options.shape is None) or (options.bundle is not None and options.run is None):
        parser.error("give a bundle with its --run, or a --shape")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.shape:
        parent = random_checkpoint(options.shape, options.work or options.folder)
        child = pruned_of_shape(parent, options)
    else:
        parent, child = options.bundle, pruned_of_run(options)
    weights = [sha256_file(file) for path in (parent, child) for file in sorted(path.glob("model*.safetensors"))]
    made_of = fingerprint([weights, options.tokens, options.dtype])
    file = options.folder / "prune.json"
    told = read_json(file) if file.is_file() else {}
    if told.get("made_of") != made_of:
        told = {"made_of": made_of, "scores": {}, "pairs": {}}
    if options.run and not told["scores"]:
        told["scores"] = {name: scores(name, open_bundle(path), options)
                          for name, path in (("parent", parent), ("pruned", child))}
        write_json(file, told)
    for threads in options.threads:
        pairs(parent, child, threads, options, told)
    report(told, options)


if __name__ == "__main__":
    main()
