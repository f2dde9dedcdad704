"""OpenVINO GenAI. Settings: `group`, the DYNAMIC_QUANTIZATION_GROUP_SIZE, and `pipeline`: paged or stateful."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

from peers.runner import Job, main
from peers.shapes import Shape

CACHE_GB = {"S": 1, "E": 2}


class OpenVino:
    """A pipeline with continuous batching over a paged cache, the prefix cache off."""

    def __init__(self, job: Job, shape: Shape) -> None:
        self.folder = Path(job.model)
        self.properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY"}
        if "group" in job.settings:
            self.properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(job.settings["group"])
        self.paged = job.settings.get("pipeline", "paged") == "paged"
        if self.paged:
            scheduler = openvino_genai.SchedulerConfig()
            scheduler.cache_size, scheduler.max_num_seqs = CACHE_GB[shape.name], 32
            scheduler.max_num_batched_tokens = job.settings.get("rows", 512)
            scheduler.enable_prefix_caching = False
            self.pipeline = openvino_genai.ContinuousBatchingPipeline(job.model, scheduler, "CPU", self.properties)
        else:
            self.pipeline = openvino_genai.LLMPipeline(job.model, "CPU", ATTENTION_BACKEND="SDPA", **self.properties)

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, top_p: float | None = None) -> None:
        inputs = [openvino.Tensor(np.array([prompt], np.int64)) for prompt in prompts]
        if not self.paged:
            if len(inputs) > 1:
                raise ValueError("the stateful pipeline is timed with one request only")
            prompt = openvino_genai.TokenizedInputs(inputs[0], _ones(inputs[0]))
            self.pipeline.generate(prompt, _config(new_tokens, top_p))
            return
        answers = self.pipeline.generate(inputs, [_config(new_tokens, top_p)] * len(inputs))
        lengths = {len(answer.m_generation_ids[0]) for answer in answers}
        if lengths != {new_tokens}:
            raise RuntimeError(f"asked for {new_tokens} tokens, got {lengths}")

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """From the same file, compiled with the same properties, without the pipeline around it."""
        core = openvino.Core()
        model = core.compile_model(self.folder / "openvino_model.xml", "CPU", self.properties)
        length = len(ids)
        inputs = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, length), np.int64),
                  "position_ids": np.arange(length, dtype=np.int64)[None], "beam_idx": np.zeros(1, np.int32)}
        return np.asarray(model.create_infer_request().infer(inputs)["logits"])[0]


def _ones(tensor: openvino.Tensor) -> openvino.Tensor:
    return openvino.Tensor(np.ones(tuple(tensor.shape), np.int64))


def _config(new_tokens: int, top_p: float | None) -> openvino_genai.GenerationConfig:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = new_tokens
    config.ignore_eos, config.eos_token_id = True, 1
    config.do_sample = top_p is not None
    if top_p is not None:
        config.top_p = top_p
    return config


if __name__ == "__main__":
    main(OpenVino)
