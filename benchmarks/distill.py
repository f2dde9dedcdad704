"""What a small student gains by its teacher: alone, by logits, hidden states, texts, and all of them, on equal tokens.

    python benchmarks/distill.py --runs RUN... --out distill.jsonl        (one finished E2E run a seed)

Each run gives its cleaned data, its last model as the teacher, and the texts that it wrote for self-distillation; where
there are none, the teacher writes them first. Every cell (way and seed) is one call of `distil_bundle` with the same
student, seed, order and number of training tokens, and answers greedily with the engine. A finished cell is a line of
`--out`; a call that was stopped goes on, and several processes with the same options share the cells.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openautoglm.core.files import atomic_write, fingerprint, read_json, sha256_file
from openautoglm.data.jsonl import encode_example, read_examples
from openautoglm.engine.sampling import Sampling
from openautoglm.evaluate.run import group_cases, score
from openautoglm.evaluate.settings import EvaluateSettings
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.pipeline.distil import DistilFacts, distil_bundle
from openautoglm.pipeline.distilltask import DistilSettings, Responses, StudentShape
from openautoglm.pipeline.engines import author_of
from openautoglm.pipeline.self_distill import bound_of, read_targets
from openautoglm.train.settings import TrainSettings

STUDENT = {"hidden_size": 160, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 32, "ffn_size": 448, "tied": True}
WAYS = ("alone", "logits", "features", "response", "combined")
SPLITS = ("valid", "test")


@dataclass(frozen=True)
class Cell:
    """One student: how it learns, of which run."""

    way: str
    run: Path
    options: argparse.Namespace

    @property
    def seed(self) -> int:
        """The run's own, which is the student's too."""
        return int(read_json(self.run / "task.json")["task"]["seed"])

    @property
    def teacher(self) -> Path:
        """The run's last model."""
        last = self.run / "self_distill" / "model"
        return last if last.is_dir() else self.run / "train" / "model"

    @property
    def texts(self) -> Path | None:
        """What the teacher's run has written for its training sources."""
        path = self.run / "self_distill" / "targets.jsonl"
        return path if self.way in ("response", "combined") and path.is_file() else None

    @property
    def settings(self) -> DistilSettings:
        """What of the teacher enters."""
        o, logits = self.options, self.way in ("logits", "combined")
        written = self.way in ("response", "combined") and self.texts is None
        return DistilSettings(
            student=StudentShape(**o.student), initialise="fresh", temperature=o.temperature,
            alpha=o.alpha if logits else 0.0, features=o.features if self.way in ("features", "combined") else 0.0,
            responses=Responses(use="only" if written else "off"))

    @property
    def train(self) -> TrainSettings:
        """The loop, the same for all ways."""
        o = self.options
        return TrainSettings(passes=None, tokens=o.tokens, batch=o.batch, lr=o.lr, layout="shared", label_smoothing=0.1,
                             agreement=1.0, ema_decay=0.999, seed=self.seed, tensorboard=False,
                             checkpoint_every_minutes=1.0)

    @property
    def identity(self) -> str:
        """Changes with everything that changes the student's figures."""
        return fingerprint([self.way, self.settings.model_dump(mode="json"), self.train.numeric(), dict(
            open_bundle(self.teacher).card.files), sha256_file(self.texts or self.examples), self.options.cases])[:16]

    @property
    def examples(self) -> Path:
        """The run's training data."""
        return self.run / "data" / "train.jsonl"

    def data(self, folder: Path) -> Path:
        """The examples that it learns."""
        if self.texts is None:
            return self.examples
        path = folder / "texts.jsonl"
        if not path.is_file():
            with atomic_write(path) as file:
                file.writelines(encode_example(example) + "\n" for example in read_targets(self.texts))
        return path


def learn(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train the student of a cell, in `folder`, and return its figures."""
    started = time.monotonic()
    facts = DistilFacts(work=folder / "work", train_examples=cell.data(folder), valid_examples=None, train=cell.train,
                        dropout=0.0)
    student = distil_bundle(cell.teacher, folder / "student", cell.settings, facts)
    last = json.loads((folder / "work" / "metrics.jsonl").read_text().splitlines()[-1])
    found = {"parameters": student.spec.parameters, "tokens": last["tokens"], "target_tokens": last["target_tokens"],
             "steps": last["step"], "passes": round(last["passes"], 3), "loss": last["loss"],
             "seconds": round(time.monotonic() - started, 1)}
    return found | {"bleu": bleu(student, cell.run, cell.options.cases)}


def bleu(bundle: Bundle, run: Path, most: int | None, splits: Sequence[str] = SPLITS) -> dict[str, float]:
    """Greedy BLEU on at most so many records of a run's splits: lower-cased, 13a, all references."""
    author, found = author_of(bundle), {}
    for split in splits:
        cases = group_cases(read_examples(run / "data" / f"{split}.jsonl"))[:most]
        answers = author.answer(cases, Sampling(max_new_tokens=bound_of(bundle, cases)), label=split)
        scores = score([one.text for one in answers], [case.references for case in cases],
                       settings=EvaluateSettings(lowercase=True, metrics=("bleu",), bootstrap=0))
        found[split] = scores["bleu"].value
    return found


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a cell's folder, or say that another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def finished(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of `out` by their identities; a line that a stop cut short counts for nothing."""
    rows = {}
    for line in out.read_text(encoding="utf-8").splitlines() if out.is_file() else ():
        try:
            row = json.loads(line)
            rows[row["identity"]] = row
        except (ValueError, KeyError):
            continue
    return rows


def keep(row: dict[str, Any], out: Path) -> None:
    """Append a row in one write."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as file:
        cut = file.tell() and out.read_bytes()[-1:] != b"\n"
        file.write((b"\n" if cut else b"") + json.dumps(row).encode() + b"\n")


def fill(cells: Sequence[Cell], out: Path, folder: Path) -> None:
    """Do every cell that is not in `out` and that no other process is at."""
    for number, cell in enumerate(cells, start=1):
        identity, place = cell.identity, folder / f"{cell.way}-seed{cell.seed}-{cell.identity}"
        with held(place) as mine:
            if not mine or identity in finished(out):
                continue
            print(f"cell {number} of {len(cells)}: {cell.way}, seed {cell.seed}", flush=True)
            row = {"identity": identity, "way": cell.way, "seed": cell.seed} | learn(cell, place)
            keep(row, out)
            shutil.rmtree(place / "work", ignore_errors=True)
            print(f"  {row['bleu']} in {row['seconds']} s", flush=True)


def table(cells: Sequence[Cell], out: Path) -> str:
    """Mean and spread over the seeds, and what a way gains over `alone`, seed by seed."""
    rows = finished(out)
    found: dict[str, dict[int, dict[str, Any]]] = {way: {} for way in WAYS}
    for cell in cells:
        if cell.identity in rows:
            found[cell.way][cell.seed] = rows[cell.identity]
    heads = [f"{split}{more}" for split in SPLITS for more in ("", ", s.d.", ", gain over alone")]
    lines = [f"| way | seeds | passes | tokens | {' | '.join(heads)} |", "|---" * (4 + len(heads)) + "|"]
    for way, seeds in found.items():
        if not seeds:
            continue
        parts = []
        for split in SPLITS:
            values = [row["bleu"][split] for row in seeds.values()]
            gains = [row["bleu"][split] - found["alone"][seed]["bleu"][split]
                     for seed, row in seeds.items() if seed in found["alone"]]
            gained = f"{statistics.fmean(gains):+.2f} ({', '.join(f'{gain:+.2f}' for gain in gains)})" if gains else ""
            spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
            parts += [f"{statistics.fmean(values):.2f}", spread, gained]
        one = next(iter(seeds.values()))
        lines.append(f"| {way} | {len(seeds)} | {one['passes']} | {one['tokens']:,} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Fill the cells and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="finished runs, one a seed")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tokens", type=int, default=500_000, help="training tokens of every student")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--alpha", type=float, default=0.9, help="share of the teacher's distribution")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--features", type=float, default=8.0, help="weight of the hidden states")
    parser.add_argument("--student", type=json.loads, default=STUDENT, help="its shape, as JSON")
    parser.add_argument("--cases", type=int, help="records that are answered; all when left out")
    parser.add_argument("--folder", type=Path, default=Path("runs/distill"), help="students, and what a stop left")
    parser.add_argument("--out", type=Path, default=Path("distill.jsonl"))
    options = parser.parse_args(given)
    cells = [Cell(way, run, options) for run in options.runs for way in options.ways]
    fill(cells, options.out, options.folder)
    print(table(cells, options.out))


if __name__ == "__main__":
    main()
