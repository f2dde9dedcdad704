"""Training speed, side by side with transformers' Trainer: real tokens per second on E2E NLG.

    python benchmarks/train_speed.py --shape S --steps 6 --out train_speed.json

Every optimiser step holds 64 rows for both. The steps alternate in one process; ratios are taken round by round,
their median is quoted. A real token is one of prompt, target or specials of a row, as a user counts them; computed
tokens are what the layers work on. Ours keeps freed memory, which helps Trainer in this process too.

Trainer has fused AdamW, sampling by length, and the best of its settings tried first (precision, batch, compile).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from train_clock import Stopwatch, Timing, choose_clock, gemm_limit

from openautoglm.core.values import Example, Origin
from openautoglm.data.pack import collate
from openautoglm.data.tokens import TokenStore, build_store
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer
from openautoglm.train import precision
from openautoglm.train.loop import Run
from openautoglm.train.settings import TrainSettings

ROWS = 64
QUIET_CORES = 0.1
"""A round counts as quiet when other processes used fewer cores than this during every contestant's step."""
SHAPES = {
    "S": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
          "intermediate_size": 1408, "vocab_size": 8000},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 640, "vocab_size": 2048},
}
OURS = {
    "bucket": {"layout": "bucket"},
    "packed": {"layout": "packed", "row_tokens": 128},
    "shared, 4 a source": {"layout": "shared", "references_per_source": 4},
    "shared, 8 a source": {"layout": "shared", "references_per_source": 8},
    "packed, compiled": {"layout": "packed", "row_tokens": 128, "compile": "on"},
    "shared, 8, compiled": {"layout": "shared", "references_per_source": 8, "compile": "on"},
}
TRAINERS = [{"rows": rows, "bf16": bf16, "compile": compiled} for rows, bf16, compiled in (
    (64, False, False), (16, False, False), (64, True, False), (64, False, True), (64, True, True))]


def model_of(shape: dict[str, int]) -> Any:
    """A fresh model of the shape, fp32."""
    config = transformers.GlmConfig(
        **shape, head_dim=64, attention_bias=False, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0})
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    return transformers.GlmForCausalLM(config)


def e2e_store(data: Path, vocabulary: int, folder: Path) -> TokenStore:
    """E2E's training rows, tokenised by a BPE trained on them."""
    import csv

    with (data / "e2e-nlg" / "trainset.csv").open(encoding="utf-8", newline="") as file:
        examples = [Example(row["mr"], row["ref"], Origin("trainset.csv", line))
                    for line, row in enumerate(csv.DictReader(file), start=2)]
    tokenizer = Tokenizer.train([text for e in examples for text in (e.source, e.target)], vocabulary)
    return build_store(examples, Template(), tokenizer, folder, 512)


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """The store as Trainer wants it: loss on the target only."""

    def __init__(self, store: TokenStore, count: int) -> None:
        self.store, self.count = store, min(count, len(store))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        ids = self.store[index].tolist()
        prompt = int(self.store.prompts[index])
        return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad a batch to its longest row."""
    def padded(name: str, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True,
                                               padding_value=value)
    ids = padded("input_ids", 0)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {"input_ids": ids, "labels": padded("labels", -100),
            "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def run_trainer(store: TokenStore, shape: dict[str, int], how: dict[str, Any], steps: int,
                between: Callable[[int], None], warm: int = 2) -> Timing:
    """Train `warm` + `steps` steps; `between(i)` runs after every timed step and is not timed."""
    timing = Timing()
    pending: dict[str, Any] = {"real": 0, "computed": 0, "watch": None}

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *_args: Any, **_kw: Any) -> None:
            pending["watch"] = Stopwatch()

        def on_step_end(self, args: Any, state: Any, control: Any, **_kw: Any) -> None:
            took, others = pending["watch"].read()
            if state.global_step > warm:
                timing.seconds.append(took)
                timing.others.append(others)
                timing.real.append(int(pending["real"]))
                timing.computed.append(int(pending["computed"]))
                timing.flops.append(matrix_flops(shape, int(pending["computed"])))
                print(f"Trainer {timing.rates[-1]:.0f} real tokens/s", flush=True)
                between(state.global_step - warm - 1)
            pending.update(real=0, computed=0, watch=Stopwatch())

    class Counting(transformers.Trainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **kw: Any) -> torch.Tensor:
            pending["real"] += int(inputs["attention_mask"].sum())
            pending["computed"] += inputs["input_ids"].numel()
            return super().training_step(model, inputs, *rest, **kw)

    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=how["rows"], bf16=how["bf16"],
            gradient_accumulation_steps=ROWS // how["rows"], max_steps=warm + steps, learning_rate=1e-3,
            weight_decay=0.1, max_grad_norm=1.0, optim="adamw_torch_fused", use_cpu=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, torch_compile=how["compile"],
            train_sampling_strategy="group_by_length", dataloader_pin_memory=False, seed=0)
        Counting(model_of(shape), args, train_dataset=Rows(store, 64 * 200), data_collator=pad,
                 callbacks=[Clock()]).train()
    return timing


def our_stepper(store: TokenStore, shape: dict[str, int], changes: dict[str, Any], number_format: str,
                timing: Timing) -> Callable[[int], None]:
    """One optimiser step of the real loop per call."""
    settings = TrainSettings(batch=ROWS, precision=number_format, **changes)  # type: ignore[arg-type]
    run = Run(model_of(shape), store, None, settings, None, None)
    plan = run._plan()

    def step(number: int) -> None:
        watch = Stopwatch()
        run._step(plan[number], len(plan))
        seconds, others = watch.read()
        timing.seconds.append(seconds)
        timing.others.append(others)
        batches = collate(store, plan[number], settings.layout, row_tokens=settings.row_tokens)
        timing.real.append(sum(batch.real_tokens for batch in batches))
        timing.computed.append(sum(batch.computed_tokens for batch in batches))
        timing.flops.append(sum(matrix_flops(shape, batch.computed_tokens, len(set(batch.rows.tolist())),
                                             len(batch.labels)) for batch in batches))

    return step


def matrix_flops(shape: dict[str, int], rows: int, needed: int | None = None, heads: int | None = None) -> float:
    """FLOPs of the matrix products that a step really does, six per weight and row; attention is left out.

    Args:
        rows: token rows that go through the layers.
        needed: rows of the last layer's output projection and feed-forward; None for all.
        heads: rows of the output layer; None for all.
    """
    h, f = shape["hidden_size"], shape["intermediate_size"]
    queries, keys = 64 * shape["num_attention_heads"], 64 * shape["num_key_value_heads"]
    before, after = h * (queries + 2 * keys), queries * h + 3 * h * f
    layers = shape["num_hidden_layers"]
    weights = layers * before * rows + (layers - 1) * after * rows + after * (rows if needed is None else needed)
    return 6.0 * (weights + h * shape["vocab_size"] * (rows if heads is None else heads))


def best_trainer(store: TokenStore, shape: dict[str, int], tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of Trainer's settings by its median step; a setting that takes over 5 times the best is cut short."""
    best: tuple[float, dict[str, Any]] = (0.0, TRAINERS[0])
    fast = precision.multiplies_bf16(torch.device("cpu"))
    for how in TRAINERS:
        if how["bf16"] and not fast:
            tried.append(how | {"tokens_per_s": None, "note": "no bf16 products on this CPU: not tried"})
            continue
        timing = run_trainer(store, shape, how, steps=3, between=lambda _: None, warm=3 if how["compile"] else 1)
        rate = statistics.median(timing.rates)
        tried.append(how | {"tokens_per_s": round(rate)})
        print(f"Trainer {how}: {rate:.0f} real tokens/s", flush=True)
        best = max(best, (rate, how), key=lambda pair: pair[0])
        gc.collect()
    return best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="S")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: seconds of this process, for one thread on a busy machine")
    parser.add_argument("--trainer", type=json.loads, help="settings as JSON instead of trying them all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.clock == "cpu":
        if options.threads != 1:
            parser.error("--clock cpu needs --threads 1: threads that wait for each other burn time too")
        choose_clock("cpu")
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    shape = SHAPES[options.shape]
    number_format = precision.choose("auto", torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        store = e2e_store(options.data, shape["vocab_size"], Path(folder) / "store")
        result = measure(store, shape, number_format, options)
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(store: TokenStore, shape: dict[str, int], number_format: str,
            options: argparse.Namespace) -> dict[str, Any]:
    """Choose Trainer's settings, then alternate."""
    tried: list[dict[str, Any]] = []
    how = options.trainer or best_trainer(store, shape, tried)
    timings = {name: Timing() for name in OURS}
    steppers = {name: our_stepper(store, shape, changes, number_format, timings[name])
                for name, changes in OURS.items()}

    def between(number: int) -> None:
        for step in steppers.values():
            step(number)
        print(f"step {number}: " + ", ".join(f"{name} {timing.rates[-1]:.0f}" for name, timing in timings.items()),
              flush=True)

    for name, step in steppers.items():  # warm up, then forget it
        step(len(store) // ROWS - 1)
        vars(timings[name]).update(vars(Timing()))
    dtype = torch.bfloat16 if number_format == "bf16" else torch.float32
    before = gemm_limit(dtype)
    theirs = run_trainer(store, shape, how, options.steps, between, warm=3 if how["compile"] else 1)
    contestants = {"transformers Trainer": theirs, **timings}
    quiet = [number for number in range(options.steps)
             if all(timing.others[number] < QUIET_CORES for timing in contestants.values())]
    limit = max(before, gemm_limit(dtype))
    return {
        "shape": options.shape, "threads": options.threads, "precision": number_format, "trainer": how,
        "clock": options.clock, "load_average": os.getloadavg(), "trainer_tried": tried,
        "limit_gflops": round(limit / 1e9), "torch": torch.__version__,
        "transformers": transformers.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "rounds": options.steps, "quiet_rounds": quiet,
        "rows": [{"name": name, "all_rounds": figures(timing, theirs, range(options.steps), limit),
                  "quiet_rounds": figures(timing, theirs, quiet, limit), "raw": vars(timing)}
                 for name, timing in contestants.items()],
    }


def figures(timing: Timing, theirs: Timing, rounds: Sequence[int], limit: float) -> dict[str, Any] | None:
    """Medians over some rounds; None for no round. A share of the limit above 1 means that the limit was disturbed."""
    if not rounds:
        return None
    rates = [timing.rates[number] for number in rounds]
    ratios = [timing.rates[number] / theirs.rates[number] for number in rounds]
    return {
        "real_tokens_per_s": round(statistics.median(rates)),
        "computed_per_real": round(sum(timing.computed) / sum(timing.real), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "share_of_limit": round(statistics.median(
            timing.flops[number] / timing.seconds[number] for number in rounds) / limit, 2),
    }


def show(result: dict[str, Any]) -> None:
    """Print a table over all rounds and one over those in which the machine was ours."""
    print(f"shape {result['shape']}, {result['threads']} threads, {result['clock']} clock, {result['precision']}, "
          f"limit {result['limit_gflops']} GFLOP/s, Trainer {result['trainer']}")
    for kind, count in (("all_rounds", result["rounds"]), ("quiet_rounds", len(result["quiet_rounds"]))):
        print(f"{kind.replace('_', ' ')}: {count}")
        for row in result["rows"] if count else ():
            f = row[kind]
            low, high = f["ratio_range"]
            print(f"  {row['name']:22}{f['real_tokens_per_s']:>8,} real tok/s, ratio {f['ratio']:.2f} "
                  f"({low:.2f} to {high:.2f}), computed/real {f['computed_per_real']:.2f}, "
                  f"{f['share_of_limit']:.0%} of limit")


if __name__ == "__main__":
    main()
