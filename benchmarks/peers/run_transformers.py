"""transformers: `generate` on a static batch, scaled-dot-product attention. Setting: `dtype`, fp32 or bf16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import transformers

from peers.runner import Job, main
from peers.shapes import Shape

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Transformers:
    """A model; requests of equal length share a batch, which suits it best."""

    def __init__(self, job: Job, shape: Shape) -> None:
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        dtype = DTYPES[job.settings["dtype"]]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).eval()
        self.model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, top_p: float | None = None) -> None:
        ids = torch.tensor(prompts)
        choice = {"do_sample": False} if top_p is None else {"do_sample": True, "top_p": top_p, "top_k": 0}
        answer = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                                     min_new_tokens=new_tokens, pad_token_id=0, eos_token_id=None, **choice)
        if answer.shape[1] != ids.shape[1] + new_tokens:
            raise RuntimeError(f"asked for {new_tokens} tokens, got {answer.shape[1] - ids.shape[1]}")

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        answer: np.ndarray = self.model(torch.tensor([ids])).logits[0].float().numpy()
        return answer


if __name__ == "__main__":
    main(Transformers)
