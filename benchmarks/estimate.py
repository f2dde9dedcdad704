"""Estimates beside what is measured: trainings, compressions and serving, each in a process of its own.

    python benchmarks/estimate.py --json estimates.json

The estimate is made first, by the code of `autoglm estimate`; the peak is the kernel's `VmHWM` of the process that then
does the work. Models have random weights, data are random ids, so that no download is needed. `--only serve` runs one
kind; `--cases NAME ...` some cases. The rate of work is read from the same processes: on a busy machine it says little.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE_S = {"vocab_size": 8000, "hidden_size": 512, "layers": 8, "heads": 8, "kv_heads": 2, "head_dim": 64,
           "ffn_size": 1408, "rotary_factor": 1.0, "qkv_bias": False, "tied": False, "max_positions": 2048}
MODELS: dict[str, dict[str, Any]] = {
    "11 M": {**SHAPE_S, "vocab_size": 4096, "hidden_size": 384, "layers": 6, "heads": 6, "ffn_size": 1024,
             "tied": True},
    "S": SHAPE_S,
    "100 M": {**SHAPE_S, "vocab_size": 16000, "hidden_size": 768, "layers": 14, "heads": 12, "kv_heads": 4,
              "ffn_size": 2048, "tied": True}}
PLAIN = {"precision": "fp32", "tensorboard": False, "passes": 1.0}
LENGTH, STEPS = 60, 2

TRAIN: dict[str, dict[str, Any]] = {
    "S, 16 rows": {"model": "S", "train": {"batch": 16}},
    "S, 16 rows, a checkpoint each step": {"model": "S", "train": {"batch": 16, "checkpoint_every_steps": 1}},
    "S, 64 rows": {"model": "S", "train": {"batch": 64}},
    "S, 64 rows, averaged weights": {"model": "S", "train": {"batch": 64, "ema_decay": 0.99}},
    "S, 64 rows, checkpointing": {"model": "S", "train": {"batch": 64, "gradient_checkpointing": True}},
    "S, 16 rows, 8bit states": {"model": "S", "train": {"batch": 16, "optimiser_state": "8bit"}},
    "S, 16 rows, LoRA of rank 8": {"model": "S", "lora": 8, "train": {"batch": 16}},
    "S, 16 rows, lower half frozen": {"model": "S", "train": {"batch": 16, "freeze": {"layers": 4}}},
    "S, 64 rows in 4 parts": {"model": "S", "train": {"batch": 64, "accumulation": 4}},
    "S, 16 rows, states in files": {"model": "S", "train": {"batch": 16, "offload": True}},
    "11 M, 64 rows": {"model": "11 M", "train": {"batch": 64}},
    "E2E-like task, 3 M, autoglm train": {"task": True}}
COMPRESS: dict[str, dict[str, Any]] = {
    "11 M, rtn, autoglm compress": {"model": "11 M", "recipe": "rtn", "verb": True},
    "S, rtn, autoglm compress": {"model": "S", "recipe": "rtn", "verb": True},
    "S, gptq, quantising alone": {"model": "S", "recipe": "gptq"},
    "S, awq, quantising alone": {"model": "S", "recipe": "awq"},
    "100 M, rtn, quantising alone": {"model": "100 M", "recipe": "rtn"}}
SERVE: dict[str, dict[str, Any]] = {
    "S, fp32, 1,024 tokens": {"model": "S", "program": {"cache_tokens": 1024}},
    "S, fp32, 16,384 tokens": {"model": "S", "program": {"cache_tokens": 16384}},
    "S, bf16, 4,096 tokens": {"model": "S", "program": {"dtype": "bf16", "cache_tokens": 4096}},
    "S, int8, 4,096 tokens": {"model": "S", "program": {"quantise": {"format": "int8"}, "cache_tokens": 4096}},
    "S, int8, int8 cache, 16,384 tokens": {
        "model": "S", "program": {"quantise": {"format": "int8"}, "cache": "int8", "cache_tokens": 16384}},
    "S, int4, 4,096 tokens": {"model": "S", "program": {"quantise": {"format": "int4"}, "cache_tokens": 4096}},
    "100 M, fp32, 4,096 tokens": {"model": "100 M", "program": {"cache_tokens": 4096}},
    "100 M, bf16, 4,096 tokens": {"model": "100 M", "program": {"dtype": "bf16", "cache_tokens": 4096}},
    "100 M, int8, 8,192 tokens": {"model": "100 M", "program": {"quantise": {"format": "int8"}, "cache_tokens": 8192}},
    "100 M, int4, 2,048 tokens": {"model": "100 M", "program": {"quantise": {"format": "int4"}, "cache_tokens": 2048}}}
KINDS = {"train": TRAIN, "compress": COMPRESS, "serve": SERVE}
TASK = """\
name: like-e2e
data: {train: train.csv, valid: valid.csv, template: "name[{name}], food[{food}], area[{area}]", target: text}
clean: {dedup: {near: keep}, workers: 1}
tokenizer: {vocab_size: 512}
model: {size: tiny}
train: {passes: 1, batch: 64, tensorboard: false}
budget: {minutes: 5}
"""


def spec_of(name: str) -> Any:
    """The shape of a model of the cases."""
    from openautoglm.models.spec import GlmSpec

    return GlmSpec(**MODELS[name])


def bundle_of(name: str, folder: Path) -> Path:
    """A bundle of random weights, written once."""
    from openautoglm.models import hf
    from openautoglm.models.bundle_writer import write_bundle
    from openautoglm.text.template import Template
    from openautoglm.text.tokenizer import Tokenizer

    out = folder / f"bundle {name}"
    if not out.is_dir():
        texts = [f"place number {number} serves food {number * 7}" for number in range(400)]
        spec = spec_of(name)
        write_bundle(out, model=hf.build(spec, seed=0), spec=spec, tokenizer=Tokenizer.train(texts, 400),
                     template=Template(kind="pair"), card_facts={})
    return out


def write_task(folder: Path) -> Path:
    """Some thousand records like those of a restaurant's data, and a task."""
    dice = random.Random(0)
    kinds = [[f"{word}{number}" for number in range(40)] for word in ("Alfa", "bread", "hill")]
    for name, count in (("train", 4000), ("valid", 300)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("name", "food", "area", "text"))
            for _ in range(count):
                one = [dice.choice(kind) for kind in kinds]
                rows.writerow((*one, dice.choice(("{0} serves {1} in the {2}, and people like it.",
                                                  "In the {2} there is {0}, known for {1}.")).format(*one)))
    path = folder / "task.yaml"
    path.write_text(TASK, encoding="utf-8")
    return path


def training_of(case: dict[str, Any]) -> Any:
    """The training of a case, as the estimate knows it."""
    from openautoglm.pipeline.estimating.ask import train_settings
    from openautoglm.pipeline.estimating.training import plain_training
    from openautoglm.train.footprint import lora_parameters

    spec, settings = spec_of(case["model"]), train_settings({**PLAIN, **case["train"]})
    adapters = lora_parameters(spec, case["lora"], "all") if "lora" in case else 0
    return plain_training(spec, settings, LENGTH, bf16=settings.precision == "bf16", adapters=adapters)


def estimated(kind: str, case: dict[str, Any], folder: Path) -> Any:
    """The estimate of a case, and the job of its process."""
    from openautoglm.core.hardware import probe
    from openautoglm.engine.open import ProgramSettings
    from openautoglm.pipeline.compressing.recipe import make_recipe
    from openautoglm.pipeline.estimating import speed
    from openautoglm.pipeline.estimating.ask import Asked, costs
    from openautoglm.pipeline.estimating.compressing import compression_cost
    from openautoglm.pipeline.estimating.serving import serving_cost
    from openautoglm.pipeline.estimating.subject import subject_of
    from openautoglm.pipeline.estimating.training import training_cost
    from openautoglm.pipeline.facts import MachineFacts, machine_rate

    speed.bytes_per_s.cache_clear()
    speed.products_per_s.cache_clear()
    if case.get("task"):
        path = write_task(folder)
        return costs(subject_of(str(path)), Asked(wanted=("train",)))[0], {"task": str(path)}
    spec = spec_of(case["model"])
    if kind == "train":
        training = training_of(case)
        facts = MachineFacts(memory_bytes=1 << 40, flops_per_s=machine_rate())
        return training_cost(training, training.step.tokens * STEPS * training.settings.accumulation, probe(), facts,
                             context=LENGTH // 2), case
    bundle = bundle_of(case["model"], folder)
    if kind == "serve":
        return serving_cost(spec, ProgramSettings(**case["program"]), 1 << 40, bundle), {**case, "bundle": str(bundle)}
    job = {**case, "bundle": str(bundle)}
    return compression_cost(spec, make_recipe({"recipe": [case["recipe"]]}), 1 << 40, bundle,
                            calibration_tokens=64 * 64, length=64), job


def train(job: dict[str, Any], folder: Path) -> float | None:
    """Train for two steps with checkpoint and validation, or a whole task; return seconds a step."""
    if "task" in job:
        verb("train", job["task"])
        return None
    import numpy as np

    from openautoglm.data.tokens import store_from_ids
    from openautoglm.models import hf
    from openautoglm.pipeline.learn import drive
    from openautoglm.train.lora import LoraSettings, add_lora

    training = training_of(job)
    model, dice = hf.build(training.spec, seed=0, dropout=training.dropout), np.random.default_rng(0)
    if training.adapters:
        model = add_lora(model, LoraSettings(rank=job["lora"]))
    train_store, valid = (store_from_ids([(dice.integers(0, training.spec.vocab_size, LENGTH).tolist(), LENGTH // 2)
                                          for _ in range(count)]) for count in (training.settings.batch * STEPS, 64))
    took = [training.settings.batch * LENGTH / event.tokens_per_s for event in drive(
        model, train_store, valid, training.settings, folder / "train", label="train")]
    return took[-1]


def compress(job: dict[str, Any], folder: Path) -> float | None:
    """Run the verb on generated texts, or quantise alone."""
    if job.get("verb"):
        texts = folder / "texts.csv"
        with texts.open("w", encoding="utf-8") as file:
            file.write("source,text\n" + "".join(f"place {number},food {number * 3} in {number}\n"
                                                 for number in range(64)))
        verb("compress", job["bundle"], "-o", str(folder / "out"), "--recipe", job["recipe"], "--data", str(texts),
             "--source", "source", "--target", "text", "--metric", "perplexity", "--cases", "8")
        return None
    import numpy as np

    import openautoglm.cli.main
    import openautoglm.pipeline.compressing.run  # noqa: F401
    from openautoglm.compress.quantise import quantise_checkpoint
    from openautoglm.pipeline.compressing.recipe import make_recipe, steps_of

    dice = np.random.default_rng(0)
    ids = [dice.integers(0, 400, 64).tolist() for _ in range(64)]
    facts = quantise_checkpoint(Path(job["bundle"]), folder / "q.safetensors",
                                steps_of(make_recipe({"recipe": [job["recipe"]]}))[0], ids)
    return facts.seconds


def serve(job: dict[str, Any], folder: Path) -> float | None:
    """Load, fill the cache with answers under way, and return seconds a token of one answer."""
    import numpy as np

    from openautoglm.engine.open import ProgramSettings, open_engine
    from openautoglm.engine.request import Decoding
    from openautoglm.engine.settings import EngineSettings

    program = ProgramSettings(**job["program"])
    engine = open_engine(job["bundle"], program, EngineSettings(prefix_cache=False, max_batch=64))
    dice, tokens = np.random.default_rng(0), program.cache_tokens or 0
    longest = 256
    prompts = [dice.integers(0, 400, longest - 16).tolist() for _ in range(tokens // longest)]
    engine.generate(prompts, Decoding(max_new_tokens=15, ignore_stop=True))
    before = engine.stats.step_seconds
    engine.generate([prompts[0][:8]], Decoding(max_new_tokens=32, ignore_stop=True))
    return (engine.stats.step_seconds - before) / 32


def verb(*words: str) -> None:
    """A verb of the command line, in this process."""
    from openautoglm.cli.main import main as command

    try:
        command(words)
    except SystemExit as end:
        if end.code not in (0, 3):
            raise


def child(kind: str, job: dict[str, Any], folder: Path) -> None:
    """Do the work of a case, and tell peak and rate."""
    from openautoglm.pipeline.compressing.child import peak_bytes

    work: dict[str, Callable[[dict[str, Any], Path], float | None]] = {
        "train": train, "compress": compress, "serve": serve}
    seconds = work[kind](job, folder)
    print("\n" + json.dumps({"peak_bytes": peak_bytes(), "seconds": seconds}), flush=True)


def expected_seconds(kind: str, cost: Any, case: dict[str, Any]) -> float | None:
    """What the seconds that the process tells were estimated at."""
    if case.get("task") or case.get("verb"):
        return None
    if kind == "train":
        return float(cost.seconds) / STEPS
    return float(cost.seconds) if kind == "compress" else 1 / float(cost.rates["tokens/s of one answer"])


def peak_of(kind: str, cost: Any, case: dict[str, Any]) -> int:
    """The estimated peak: of a quantisation alone that of its own moments."""
    own = [sum(parts.values()) for moment, parts in cost.moments.items() if moment != "measuring"]
    return max(own) if kind == "compress" and not case.get("verb") else int(cost.peak_bytes)


def run(kind: str, name: str, case: dict[str, Any], bundles: Path) -> dict[str, Any]:
    """One case."""
    with tempfile.TemporaryDirectory() as scratch:
        cost, job = estimated(kind, case, Path(scratch) if case.get("task") else bundles)
        started = time.monotonic()
        done = subprocess.run([sys.executable, __file__, "--child", kind, json.dumps(job), scratch],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        wall = time.monotonic() - started
    expected, peak = expected_seconds(kind, cost, case), peak_of(kind, cost, case)
    return {"kind": kind, "case": name, "estimate_bytes": peak, "measured_bytes": found["peak_bytes"],
            "ratio": peak / found["peak_bytes"], "estimate_s": expected, "measured_s": found["seconds"],
            "moments": {moment: dict(parts) for moment, parts in cost.moments.items()}, "wall_s": wall,
            "time_ratio": expected / found["seconds"] if expected and found["seconds"] else None}


def main() -> None:
    """Run the cases, print a table, write the figures where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=sorted(KINDS))
    parser.add_argument("--cases", nargs="+")
    parser.add_argument("--work", type=Path, help="where bundles of random weights are kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], json.loads(options.child[1]), Path(options.child[2]))
        return
    rows = []
    print("| | estimate, MB | measured, MB | ratio | estimate, s | measured, s | ratio |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as kept:
        bundles = options.work or Path(kept)
        bundles.mkdir(parents=True, exist_ok=True)
        for kind, cases in KINDS.items():
            for name, case in cases.items():
                if options.only not in (None, kind) or (options.cases and name not in options.cases):
                    continue
                rows.append(row := run(kind, name, case, bundles))
                timed = ("", "", "") if row["time_ratio"] is None else (
                    f"{row['estimate_s']:.3g}", f"{row['measured_s']:.3g}", f"{row['time_ratio']:.2f}")
                print(f"| {name} | {row['estimate_bytes'] / 1e6:,.0f} | {row['measured_bytes'] / 1e6:,.0f} | "
                      f"{row['ratio']:.2f} | {' | '.join(timed)} |", flush=True)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
