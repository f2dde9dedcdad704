"""What guessing ahead gains: tokens a second with prompt-lookup speculation and without, on prose and on copied text.

    python benchmarks/speculation.py --quantise int8

A program of random weights would write noise, so the text is dictated: every step is computed as ever, then the logits
of each row are raised at the token that stands next in the text. What is measured is therefore what the guesses gain
where a model would write this text. Prose: plays go on. Copied: a passage is repeated with one word in twenty changed,
as in editing, summarising or answering from a document. Runs alternate; the figures are medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding
from openautoglm.engine.settings import EngineSettings, Speculation
from openautoglm.graph.recipe import Quantisation
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.layout import Int32, Layout
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native import native_module
from openautoglm.runtime.program import Float32, Program
from openautoglm.text.tokenizer import Tokenizer

DATA = Path(os.environ.get("OPENAUTOGLM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SHAPE = GlmSpec(vocab_size=8000, hidden_size=512, layers=8, heads=8, kv_heads=2, head_dim=64, ffn_size=1408,
                max_positions=4096)
PROMPT, ANSWER = 256, 256


class Dictated:
    """A program whose logits name the next token of a given text at every position."""

    def __init__(self, program: Program) -> None:
        self._program, self.plan, self.facts = program, program.plan, program.facts
        self.text: Sequence[int] = ()

    def step(self, ids: Int32, positions: Int32, layout: Layout, wanted: Int32) -> Float32:
        """As the program's, then dictated."""
        logits = self._program.step(ids, positions, layout, wanted)
        for row, number in enumerate(wanted.tolist()):
            following = int(layout.positions[number]) + 1
            if following < len(self.text):
                logits[row, self.text[following]] = 1e9
        return logits

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """As the program's."""
        self._program.copy_pages(sources, targets)


def texts() -> dict[str, list[list[int]]]:
    """For each kind, some texts: the prompt's ids, then the answer's."""
    plays = (DATA / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    tokenizer = Tokenizer.train(plays[:400_000].split("\n\n"), SHAPE.vocab_size)
    random = np.random.default_rng(0)
    prose, copied = [], []
    for start in (500_000, 650_000, 800_000):
        ids = tokenizer.encode(plays[start:start + 4000])
        prose.append(ids[:PROMPT + ANSWER])
        words = plays[start:start + 4000].split(" ")
        for place in random.choice(len(words), len(words) // 20, replace=False):
            words[place] = "another"
        copied.append([*ids[:PROMPT], *tokenizer.encode(" ".join(words))[:ANSWER]])
    return {"prose": prose, "copied": copied}


def rate(program: Dictated, text: Sequence[int], speculation: Speculation | None) -> tuple[float, float, float]:
    """Tokens a second of one answer, tokens a step, and the share of guesses that came true."""
    engine = Engine(program, EngineSettings(speculation=speculation, prefix_cache=False), stop_ids=())
    program.text = text
    decoding = Decoding(max_new_tokens=len(text) - PROMPT)
    begun = time.perf_counter()
    (found,), = engine.generate([list(text[:PROMPT])], decoding)
    seconds = time.perf_counter() - begun
    if list(found.ids) != list(text[PROMPT:]):
        raise SystemExit("the answer is not the dictated text: speculation is not lossless")
    stats = engine.stats
    return (stats.generated_tokens / seconds, stats.generated_tokens / stats.steps,
            stats.accepted / stats.drafted if stats.drafted else 0.0)


def checkpoint(folder: Path) -> Path:
    """Random weights of the shape."""
    from openautoglm.models import hf

    hf.build(SHAPE, seed=0).save_pretrained(folder)
    return folder


def main() -> None:
    """Alternate runs with and without speculation and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint folder with at least 8,000 ids; left out, random "
                        "weights of 30.7 M parameters")
    parser.add_argument("--target", default="native" if native_module() is not None else "torch:cpu")
    parser.add_argument("--quantise", choices=("int8", "int4"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or checkpoint(Path(scratch))
        quantise = Quantisation(format=options.quantise) if options.quantise else None
        program = Dictated(load_program(folder, options.target, quantise=quantise, pages=(PROMPT + ANSWER) // 16 + 2))
        print("| text | tokens/s without | with | ratio | tokens a step | guesses that came true |")
        print("|---|---|---|---|---|---|")
        for kind, several in texts().items():
            found: dict[bool, list[tuple[Any, ...]]] = {False: [], True: []}
            for _ in range(options.repeats):
                for text in several:
                    for guess in (False, True):
                        found[guess].append(rate(program, text, Speculation() if guess else None))
            without, with_ = (statistics.median(one[0] for one in found[guess]) for guess in (False, True))
            ratio = statistics.median(b[0] / a[0] for a, b in zip(found[False], found[True], strict=True))
            print(f"| {kind} | {without:.0f} | {with_:.0f} | {ratio:.2f} | "
                  f"{statistics.median(one[1] for one in found[True]):.2f} | "
                  f"{statistics.median(one[2] for one in found[True]):.0%} |")


if __name__ == "__main__":
    main()
