"""What each rule gains: the time of a step with all rules, and with each of them left out in turn.

    python benchmarks/graph_rules.py                          torch on the CPU, fp32
    python benchmarks/graph_rules.py --target native --quantise int8

A random model of shape S (30.7 M parameters) is stepped in three ways: a prompt, one sequence decoding, and several.
Programs of all variants are loaded together and take turns in random order, so whatever else runs on the machine slows
all of them. A gain is how much longer a step takes without the rule: the median, over the rounds, of its time next to
that with all rules in the same round. Where a rule is left out another may take its place (`silu_mul_of_two` that of
`silu_mul`), and `fold_sources` only matters at loading: neither shows as a gain. All rules stand in the table twice, so
one sees how far two programs that are the same differ. On a busy machine use one thread and `--clock cpu`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from openautoglm.graph.build import build
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Rule, rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.layout import Layout, Part, lay_out
from openautoglm.runtime.load import load_program
from openautoglm.runtime.program import Program

SPEC = GlmSpec(vocab_size=8000, hidden_size=512, layers=8, heads=8, kv_heads=2, head_dim=64, ffn_size=1408,
               rotary_factor=1.0, qkv_bias=False, max_positions=2048)
PAGE, CONTEXT = 16, 128
ALL, AGAIN, NONE = "nothing", "nothing, again", "all of them"
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Step:
    """One kind of step: how many rows each sequence brings, how many tokens it has before them, and how often it is
    run in a row; the first of these runs warms the caches and does not count."""

    name: str
    sequences: int
    rows: int
    start: int
    runs: int

    def layout(self, pages: int) -> Layout:
        """Where its rows lie."""
        each = -(-(self.start + self.rows) // PAGE)
        parts = [Part(self.rows, self.start, range(number * each, (number + 1) * each))
                 for number in range(self.sequences)]
        return lay_out(parts, page_size=PAGE, pages=pages)


@dataclass
class Variant:
    """A program with some of the rules, and the seconds of its steps by their kind."""

    name: str
    program: Program
    operators: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def time(self, step: Step, clock: Clock) -> None:
        """Run a step, and note how long it took: the median of its runs but the first."""
        layout = step.layout(self.program.plan.cache.pages)
        ids = (np.arange(layout.rows, dtype=np.int32) * 37) % SPEC.vocab_size
        taken: list[float] = []
        for _ in range(step.runs):
            begun = clock()
            self.program.step(ids, layout.positions, layout, layout.last_rows)
            taken.append(clock() - begun)
        self.seconds.setdefault(step.name, []).append(statistics.median(taken[1:]))

    def median(self, step: Step) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds[step.name])

    def slower(self, other: Variant, step: Step) -> float:
        """How much longer a step takes than another variant's, in per cent: the median of rounds."""
        pairs = zip(self.seconds[step.name], other.seconds[step.name], strict=True)
        return 100 * (statistics.median(mine / its for mine, its in pairs) - 1)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="torch:cpu")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--quantise", choices=("int8", "int4"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="what is counted: wall or CPU seconds")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--prompt", type=int, default=256, help="rows of the prompt")
    parser.add_argument("--batch", type=int, default=16, help="sequences that decode together")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    recipe = Quantisation(format=given.quantise) if given.quantise else None
    steps = [Step(f"prompt of {given.prompt}", 1, given.prompt, 0, 2), Step("decode 1", 1, 1, CONTEXT, 6),
             Step(f"decode {given.batch}", given.batch, 1, CONTEXT, 4)]
    rules = rules_for(given.target.partition(":")[0], recipe)
    applied = Counter(one.rule for one in rewrite(build(SPEC), rules))
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        variants = [load(name, some, folder, given, steps) for name, some in choices(rules, applied)]
        order = random.Random(0)
        for _ in range(given.rounds):
            for step in steps:
                for variant in order.sample(variants, len(variants)):
                    variant.time(step, CLOCKS[given.clock])
    print(f"{given.target}, {given.dtype}{f', {recipe}' if recipe else ''}, {given.threads} threads, {given.clock} "
          f"ms, medians of {given.rounds} interleaved rounds")
    print_table(variants, steps, applied)
    print(f"never applied here: {', '.join(rule.name for rule in rules if not applied[rule.name]) or 'none'}")


def choices(rules: Sequence[Rule], applied: Counter[str]) -> list[tuple[str, list[Rule]]]:
    """All rules, twice; each that finds something, the quantising of linears excepted, left out; and none but that."""
    kept = [rule for rule in rules if rule.name == "quantise_linear"]
    tried = [rule for rule in rules if applied[rule.name] and rule not in kept]
    left = [(rule.name, [other for other in rules if other is not rule]) for rule in tried]
    return [(ALL, list(rules)), (AGAIN, list(rules)), *left, (NONE, kept)]


def load(name: str, rules: list[Rule], folder: str, given: argparse.Namespace, steps: list[Step]) -> Variant:
    """The program of a variant."""
    if given.target.startswith("torch"):
        import torch

        torch.set_num_threads(given.threads)
    graph = build(SPEC)
    rewrite(graph, rules)
    pages = max(step.sequences * -(-(step.start + step.rows) // PAGE) for step in steps)
    program = load_program(folder, given.target, dtype=given.dtype, pages=pages, page_size=PAGE, rules=rules,
                           **({} if given.target.startswith("torch") else {"threads": given.threads}))
    return Variant(name, program, len(graph.nodes))


def write_model(folder: Path) -> None:
    """A checkpoint of random weights."""
    from transformers.utils.logging import disable_progress_bar

    from openautoglm.models import hf

    disable_progress_bar()
    hf.build(SPEC, seed=0).save_pretrained(folder)


def print_table(variants: list[Variant], steps: list[Step], applied: Counter[str]) -> None:
    """A line for each variant: operators, times, and what the rule that is left out gains."""
    whole = variants[0]
    print(f"{'left out':<20}{'applied':>8}{'operators':>11}" + "".join(f"{step.name:>16}{'gain':>9}" for step in steps))
    for one in variants:
        cells = [f"{one.median(step) * 1e3:>16.3f}" + (
            f"{'':>9}" if one is whole else f"{one.slower(whole, step):>+8.1f}%")
            for step in steps]
        count = "" if one.name in (ALL, AGAIN, NONE) else applied[one.name]
        print(f"{one.name:<20}{count:>8}{one.operators:>11}" + "".join(cells))


if __name__ == "__main__":
    main()
