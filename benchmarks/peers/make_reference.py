"""fp32 logits of a fixed prompt: `python -m peers.make_reference SHAPE CHECKPOINT FILE` (environment transformers)."""

from __future__ import annotations

import random
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from peers.shapes import SHAPES


@torch.inference_mode()
def main(name: str, checkpoint: str, file: str) -> None:
    """Write ids and logits [tokens, vocab]."""
    shape = SHAPES[name]
    ids = random.Random(1).choices(range(2, shape.vocab), k=shape.prefix_tokens)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with open(file, "wb") as target:  # a name would get a suffix
        np.savez(target, ids=np.array(ids), logits=model(torch.tensor([ids])).logits[0].numpy())


if __name__ == "__main__":
    main(*sys.argv[1:4])
