"""What quantisation costs a trained model: divergence (KL) from the parent on held-out examples, method by method.

    python benchmarks/quantise.py RUN/model --train RUN/data/train.jsonl --held-out RUN/data/valid.jsonl

Calibration takes training examples, the divergence is measured on the held-out ones, on the tokens of the answers, with
the quantised weights computed in fp32 (what the kernels add by rounding activations is not part of it). `--seeds` draws
other calibration examples; the figures are the mean and the range over them.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openautoglm.compress.quantise import Method, quantise_checkpoint
from openautoglm.compress.settings import AwqSettings, CalibrationSettings, GptqSettings, MixedSettings, RtnSettings
from openautoglm.core import log
from openautoglm.data.jsonl import read_examples
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.quantised_file import open_quantised
from openautoglm.text.template import Encoded


def methods(group: Any, calibration: CalibrationSettings) -> dict[str, Method]:
    """What is compared: int4 in groups of `group`, embedding and head in int8."""
    shown = {"group": group, "calibration": calibration}
    gptq, awq = GptqSettings(**shown), AwqSettings(**shown)
    return {"rtn": RtnSettings(group=group), "rtn, search": RtnSettings(group=group, search=True), "gptq": gptq,
            "awq": awq, "awq, then gptq": AwqSettings(**shown, then="gptq"),
            "mixed gptq, 5.5 bits": MixedSettings(base=gptq, average_bits=5.5),
            "rtn, 8 bits": RtnSettings(group=group, bits=8)}


def encoded(bundle: Bundle, file: Path, most: int, seed: int) -> list[Encoded]:
    """Some examples of a file, drawn by `seed`."""
    examples = list(read_examples(file))
    drawn = random.Random(seed).sample(examples, min(most, len(examples)))
    return bundle.template.encode_many(drawn, bundle.tokenizer)


def load(parent: Any, file: Path) -> Any:
    """The parent with the weights of a quantised file."""
    found, model = open_quantised(file), copy.deepcopy(parent)
    state = model.state_dict()
    with torch.no_grad():
        for name in found.names:
            value = found.read(name)
            plain = value if isinstance(value, np.ndarray) else value.dequantise()
            state[name].copy_(torch.from_numpy(np.array(plain)))
    return model


@torch.no_grad()
def answers(model: Any, rows: Sequence[Encoded]) -> list[torch.Tensor]:
    """Log-probabilities before each token of the answers."""
    return [model(torch.tensor([row.ids])).logits[0, row.prompt_tokens - 1:-1].log_softmax(-1) for row in rows]


def divergence(own: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """KL of all tokens' mean, in nats."""
    pairs = zip(own, others, strict=True)
    total = sum(float((one.exp() * (one - other)).sum(dtype=torch.float64)) for one, other in pairs)
    return total / sum(len(one) for one in own)


def main() -> None:
    """Measure, print a table, write the figures where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=300, help="held-out examples")
    parser.add_argument("--samples", type=int, default=256, help="calibration examples")
    parser.add_argument("--groups", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    log.get().setLevel(logging.WARNING)
    bundle = open_bundle(options.bundle)
    parent = bundle.model(torch.float32)
    held_out = encoded(bundle, options.held_out, options.examples, 0)
    own = answers(parent, held_out)
    found: list[dict[str, Any]] = []
    print("| method | group | bits a weight of the layers | KL, nats a token | range |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for group in options.groups:
            for name, method in methods(group, CalibrationSettings(samples=options.samples)).items():
                values = []
                for seed in range(options.seeds if not isinstance(method, RtnSettings) else 1):
                    shown = [row.ids for row in encoded(bundle, options.train, options.samples, 1 + seed)]
                    file = Path(folder) / "quantised.safetensors"
                    facts = quantise_checkpoint(bundle.path, file, method, shown)
                    values.append(divergence(own, answers(load(parent, file), held_out)))
                found.append({"method": name, "group": group, "bits": facts.layer_bits, "kl": values})
                print(f"| {name} | {group} | {facts.layer_bits:.2f} | {sum(values) / len(values):.5f} | "
                      f"{min(values):.5f} to {max(values):.5f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
