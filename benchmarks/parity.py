"""The engine against transformers: logits of every kind of architecture, and greedy texts of a trained bundle.

    python benchmarks/parity.py --bundle runs/e2e/bundle --prompts 500

Logits: random weights of small shapes, and the bundle; fp32 with an fp32 cache, and bf16 against transformers on the
same rounded weights, beside transformers' own distance when it computes in bf16. The figure is the relative distance
|ours - theirs| / |theirs| (Euclidean). Texts: the distinct records of E2E's test set, answered greedily by transformers
one prompt at a time and by the engine all together.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openautoglm.core.progress import progress
from openautoglm.engine.engine import Engine
from openautoglm.engine.sampling import Sampling
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.answering import Reader
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native import native_module

DATA = Path(os.environ.get("OPENAUTOGLM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
LENGTH = 200


def kinds() -> Iterator[tuple[str, GlmSpec]]:
    """The combinations of features that released checkpoints have, in a small shape."""
    for family, rotary, bias, tied in product(("glm", "glm4"), (0.5, 1.0), (True, False), (False, True)):
        name = f"{family}, rotary {rotary}, {'bias' if bias else 'no bias'}, {'tied' if tied else 'own head'}"
        yield name, GlmSpec(family=family, rotary_factor=rotary, qkv_bias=bias, tied=tied, vocab_size=1000,  # type: ignore[arg-type]
                            hidden_size=256, layers=4, heads=8, kv_heads=2, head_dim=32, ffn_size=704,
                            max_positions=512)


def logits_of(folder: Path, target: str, dtype: str, ids: Sequence[int]) -> Any:
    """Logits of all rows of one prompt, in a single step."""
    exact = dtype == "fp32"
    program = load_program(folder, target, dtype=dtype, cache="fp32" if exact else "bf16", pages=LENGTH // 16 + 1,
                           max_rows=LENGTH, max_wanted=LENGTH)
    layout = lay_out([Part(len(ids), 0, range(LENGTH // 16 + 1))], page_size=16, pages=LENGTH // 16 + 1)
    return program.step(np.asarray(ids, np.int32), layout.positions, layout, np.arange(len(ids), dtype=np.int32))


def distances(folder: Path, model: Any, vocabulary: int, targets: Sequence[str]) -> dict[str, float]:
    """How far each target and type is from transformers."""
    ids = np.random.default_rng(0).integers(0, vocabulary, LENGTH).tolist()
    found = {}
    for dtype in ("fp32", "bf16"):
        plain = model if dtype == "fp32" else model.to(torch.bfloat16).float()
        with torch.inference_mode():
            theirs = plain(torch.tensor([ids])).logits[0].numpy()
            if dtype == "bf16":
                half = model.to(torch.bfloat16)(torch.tensor([ids])).logits[0].float().numpy()
                found["transformers bf16"] = float(np.linalg.norm(half - theirs) / np.linalg.norm(theirs))
        for target in targets:
            ours = logits_of(folder, target, dtype, ids)
            found[f"{target} {dtype}"] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return found


def compare_logits(bundle: Bundle | None, targets: Sequence[str]) -> None:
    """Print a table of distances."""
    names = [*(f"{target} fp32" for target in targets), "transformers bf16", *(f"{target} bf16" for target in targets)]
    print(f"\n| architecture | {' | '.join(names)} |")
    print("|---" * (1 + len(names)) + "|")
    worst: dict[str, float] = {}
    rows = [(name, None, spec) for name, spec in kinds()] + ([("the bundle", bundle, bundle.spec)] if bundle else [])
    for title, given, spec in rows:
        with tempfile.TemporaryDirectory() as scratch:
            if given is None:
                model = hf.build(spec, seed=1, init_std=0.05).eval()
                with torch.no_grad():
                    for tensor in model.parameters():
                        if tensor.dim() == 1:  # norms and biases would be ones and zeros
                            tensor += 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))
                model.save_pretrained(scratch)
            else:
                model = given.model(torch.float32)
            found = distances(Path(scratch) if given is None else given.path, model, spec.vocab_size, targets)
        print(f"| {title} | {' | '.join(f'{found[name]:.1e}' for name in names)} |")
        worst = {key: max(value, worst.get(key, 0.0)) for key, value in found.items()}
    print(f"| worst | {' | '.join(f'{worst[name]:.1e}' for name in names)} |")


def records(count: int) -> list[str]:
    """Distinct meaning representations of E2E's test set, in their order."""
    with (DATA / "e2e-nlg" / "testset_w_refs.csv").open(encoding="utf-8", newline="") as file:
        return list(dict.fromkeys(row["mr"] for row in csv.DictReader(file)))[:count]


def transformers_texts(bundle: Bundle, prompts: Sequence[list[int]], limit: int) -> list[tuple[int, ...]]:
    """Greedy ids by transformers' own `generate`, prompt by prompt."""
    model = bundle.model(torch.float32)
    stops = list(bundle.template.stop_ids(bundle.tokenizer))
    found = []
    with torch.inference_mode(), progress(len(prompts), "transformers", "prompts") as bar:
        for prompt in prompts:
            ids = torch.tensor([prompt])
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit,
                                 eos_token_id=stops, pad_token_id=bundle.spec.pad_id)[0, len(prompt):].tolist()
            end = next((place for place, token in enumerate(out) if token in stops), len(out))
            found.append(tuple(out[:end]))
            bar.advance(1)
    return found


def compare_texts(bundle: Bundle, count: int, limit: int, targets: Sequence[str]) -> None:
    """Print how many greedy texts are the same."""
    reader = Reader(bundle)
    questions = [reader.question(record) for record in records(count)]
    prompts = [bundle.template.prompt(one.source, one.turns, bundle.tokenizer) for one in questions]
    theirs = transformers_texts(bundle, prompts, limit)
    for target in targets:
        for rows in (512, 48):  # whole prompts, and prompts in pieces beside what others decode
            program = load_program(bundle.path, target, dtype="fp32", cache="fp32", pages=2048, max_rows=rows,
                                   max_wanted=32)
            engine = Engine(program, stop_ids=bundle.template.stop_ids(bundle.tokenizer))
            for again in ("", ", prefixes known"):
                ours = [found[0].ids for found in engine.generate(prompts, Sampling(max_new_tokens=limit))]
                same = sum(one == other for one, other in zip(ours, theirs, strict=True))
                print(f"{target} fp32, steps of at most {rows} rows{again}: {same} of {len(prompts)} texts identical")


def main() -> None:
    """Compare logits, then texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a trained bundle; left out, only random weights are compared")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--max-new-tokens", type=int, default=100)
    options = parser.parse_args()
    targets = (["native"] if native_module() is not None else []) + ["torch:cpu"]
    bundle = open_bundle(options.bundle) if options.bundle else None
    compare_logits(bundle, targets)
    if bundle is not None:
        compare_texts(bundle, options.prompts, options.max_new_tokens, targets)


if __name__ == "__main__":
    main()
