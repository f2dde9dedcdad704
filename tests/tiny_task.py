"""A tiny task: a few hundred generated records, a model of some ten thousand parameters."""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

NAMES = ("Alfa", "Bravo", "Cedar", "Delta", "Echo", "Fox")
FOODS = ("French", "Thai", "Greek", "Irish", "Polish")
AREAS = ("centre", "harbour", "hill", "park")
PRICES = ("cheap", "dear")

TASK = """\
name: tiny
data:
  train: train.csv
  valid: valid.csv
  test: test.csv
  template: "{name} | {food} | {area} | {price}"
  target: text
clean: {dedup: {near: keep}, workers: 1}
tokenizer: {vocab_size: 300}
model: {size: micro, hidden_size: 16, layers: 1, heads: 2, kv_heads: 1}
train: {passes: %(passes)s, batch: 16, tensorboard: false, compile: "off", checkpoint_every_steps: %(checkpoint)s}
budget: {minutes: 5}
evaluate: {bootstrap: 50, decodings: {greedy: {max_new_tokens: 24}, beams: {num_beams: 2, max_new_tokens: 24}}}
export: {to: out.zip}
%(more)s
"""


def write_task(folder: Path, *, passes: float = 1, checkpoint: int = 5, more: str = "") -> Path:
    """Write data and task into `folder`; return the task file."""
    chance = random.Random(0)
    rows = list(itertools.product(NAMES, FOODS, AREAS, PRICES))
    chance.shuffle(rows)
    texts = [(*row, chance.choice(("{0} serves {1} food in the {2} and is {3}.",
                                   "In the {2}, {0} is a {3} place for {1} food.")).format(*row)) for row in rows]
    for name, part in (("train", texts[:200]), ("valid", texts[200:215]), ("test", texts[215:230])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("name", "food", "area", "price", "text"))
            writer.writerows(part)
    path = folder / "task.yaml"
    path.write_text(TASK % {"passes": passes, "checkpoint": checkpoint, "more": more}, encoding="utf-8")
    return path
