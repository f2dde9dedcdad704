"""Time, memory and quality of training: everything learns, or the lower half is frozen, without and with its cache.

    python benchmarks/freeze.py --preset base --rounds 5 --out freeze.jsonl
    python benchmarks/freeze.py --threads 1 --clock cpu      (seconds of the process, for a busy machine)
    python benchmarks/freeze.py --run RUN                    (quality too: greedy BLEU of a finished run's model)

A cell is one process: some steps of one way, of which it tells the seconds of each after the first, and its peak
resident size. Rounds go through all ways in turn; a ratio is that of two cells of one round, and medians over the
rounds are shown. Texts are random ids with lengths like those of E2E: 30 tokens of prompt and 28 of target. Quality:
the run's trained model learns the texts that the run wrote for self-distillation, in each way, as the run did, and
answers the held-out records. A finished cell is a line of `--out`; a call that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distill import bleu, finished, keep

from openautoglm.core.errors import DataError
from openautoglm.core.files import fingerprint, read_json
from openautoglm.data.tokens import TokenStore, build_store, open_store, store_from_ids
from openautoglm.models import hf
from openautoglm.models.bundle import open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.presets import preset
from openautoglm.pipeline.context import Run as TaskRun
from openautoglm.pipeline.self_distill import read_targets, settings_of
from openautoglm.pipeline.training import drive
from openautoglm.train.loop import Run
from openautoglm.train.settings import TrainSettings

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}
WAYS = ("full", "frozen", "frozen, cached", "full, 8bit")


def random_store(vocabulary: int, examples: int) -> TokenStore:
    """Prompts of 20 to 40 tokens, targets of 18 to 38."""
    chance = np.random.default_rng(0)
    rows = []
    for _ in range(examples):
        prompt, target = int(chance.integers(20, 41)), int(chance.integers(18, 39))
        rows.append((chance.integers(0, vocabulary, prompt + target), prompt))
    return store_from_ids(rows)


def changes(way: str, layers: int) -> dict[str, Any]:
    """The settings that make a way; `layers` is the model's count."""
    freeze = {"layers": layers // 2, "cache": way == "frozen, cached"} if way.startswith("frozen") else None
    return {"freeze": freeze, "optimiser_state": "8bit" if "8bit" in way else "fp32"}


def steps(way: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train some steps of a way; return the seconds of each after the first, and of what came before."""
    spec, clock = preset(options.preset), CLOCKS[options.clock]
    store = random_store(spec.vocab_size, options.examples)
    settings = TrainSettings(batch=options.rows, passes=None, tokens=10**12, precision="fp32", tensorboard=False,
                             checkpoint_every_minutes=None, **changes(way, spec.layers))
    run = Run(hf.build(spec, seed=0), store, None, settings, folder, None)
    seconds, events = [], run.steps()
    for _ in range(options.steps + 1):
        started = clock()
        next(events)
        seconds.append(clock() - started)
    return {"first_s": seconds[0], "seconds": seconds[1:], "store_tokens": store.tokens}


def learnt(way: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """BLEU of the run's model after it learnt the run's texts in a way; `before`: as it was. A stopped call goes on."""
    known = read_json(options.run / "task.json")
    run = TaskRun.of(known["task"], options.run)
    bundle = open_bundle(run.trained)
    if way == "before":
        return {"bleu": bleu(bundle, run.folder, options.cases)}
    train = settings_of(run.task.self_distill, run.plan().train)
    train = TrainSettings.model_validate(train.model_dump() | changes(way, bundle.spec.layers)
                                         | {"tensorboard": False, "checkpoint_every_minutes": 1.0})
    try:
        store = open_store(folder / "tokens")
    except DataError:
        store = build_store(read_targets(run.self_distill / "targets.jsonl"), bundle.template, bundle.tokenizer,
                            folder / "tokens", bundle.spec.max_positions)
    model = bundle.model()
    deque(drive(model, store, None, train, folder / "train", label=way), maxlen=0)
    learner = write_bundle(folder / "model", model=model, spec=bundle.spec, tokenizer=bundle.tokenizer,
                           template=bundle.template, card_facts={"data": bundle.card.data, "recipe": {"way": way}})
    return {"bleu": bleu(learner, run.folder, options.cases)}


def child(way: str, options: argparse.Namespace) -> None:
    """Print what a cell found; ``imports`` trains nothing."""
    found: dict[str, Any] = {}
    if way != "imports":
        with tempfile.TemporaryDirectory() as folder:
            found = steps(way, options, Path(folder))
    status = Path("/proc/self/status").read_text()  # ru_maxrss would start from the parent's size
    found["peak_bytes"] = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps(found))


def process(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own says of a way."""
    given = {"preset": options.preset, "rows": options.rows, "examples": options.examples, "steps": options.steps,
             "threads": options.threads, "clock": options.clock, "child": way}
    done = subprocess.run([sys.executable, __file__, *(f"--{name}={value}" for name, value in given.items())],
                          stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cells(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells, by what tells them apart."""
    cost = {name: getattr(options, name) for name in ("preset", "rows", "examples", "steps", "threads", "clock")}
    found = [{"part": "cost", "way": way, "round": number, **cost}
             for number in range(options.rounds) for way in ("imports", *WAYS)]
    if options.run is not None:
        found += [{"part": "quality", "way": way, "run": str(options.run), "cases": options.cases}
                  for way in ("before", *WAYS)]
    return found


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Do the cells that are not in `--out`; return the rows of all."""
    wanted = {fingerprint(cell): cell for cell in cells(options)}
    done = finished(options.out)
    for number, (identity, cell) in enumerate(wanted.items(), start=1):
        if identity in done:
            continue
        print(f"cell {number} of {len(wanted)}: {cell['part']}, {cell['way']}", flush=True)
        if cell["part"] == "cost":
            found = process(cell["way"], options)
        else:
            found = learnt(cell["way"], options, options.folder / identity[:16])
        done[identity] = {"identity": identity, **cell, **found, "torch": torch.__version__,
                          "load_average": os.getloadavg()}
        keep(done[identity], options.out)
    return [done[identity] for identity in wanted]


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over the rounds, ratios within them, and BLEU."""
    cost = {(row["way"], row["round"]): row for row in rows if row["part"] == "cost"}
    quality = {row["way"]: row["bleu"] for row in rows if row["part"] == "quality"}
    rounds = sorted({number for _, number in cost})
    lines = ["| way | s a step | of full | before the steps, s | peak MiB | of full | BLEU, valid | test |",
             "|---" * 8 + "|"]
    for way in WAYS:
        mine, full = ([cost[name, number] for number in rounds] for name in (way, "full"))
        seconds, base = ([statistics.median(one["seconds"]) for one in ways] for ways in (mine, full))
        figures = [f"{statistics.median(seconds):.3f}", ratio(seconds, base),
                   f"{statistics.median(one['first_s'] for one in mine) - statistics.median(seconds):.1f}",
                   f"{statistics.median(one['peak_bytes'] for one in mine) / 2**20:.0f}",
                   ratio([one["peak_bytes"] for one in mine], [one["peak_bytes"] for one in full])]
        figures += [f"{quality[way][split]:.2f}" if way in quality else "" for split in ("valid", "test")]
        lines.append(f"| {way} | {' | '.join(figures)} |")
    imports = statistics.median(cost["imports", number]["peak_bytes"] for number in rounds) / 2**20
    lines.append(f"\nimports: {imports:.0f} MiB" + (f"; BLEU before: {quality['before']}" if quality else ""))
    return "\n".join(lines)


def ratio(mine: Sequence[float], full: Sequence[float]) -> str:
    """The median of the rounds' ratios."""
    return f"{statistics.median(a / b for a, b in zip(mine, full, strict=True)):.2f}"


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed, of a way in a round")
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--rows", type=int, default=64, help="examples of a step")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--run", type=Path, help="a finished run with self-distillation, for the quality")
    parser.add_argument("--cases", type=int, help="records that are answered; all when left out")
    parser.add_argument("--folder", type=Path, default=Path("runs/freeze"), help="models, and what a stop left")
    parser.add_argument("--out", type=Path, default=Path("freeze.jsonl"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu needs --threads 1: threads that wait for each other burn time too")
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child, options)
        return
    print(table(measure(options)))


if __name__ == "__main__":
    main()
