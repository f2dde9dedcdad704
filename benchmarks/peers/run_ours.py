"""Open-AutoGLM's engine on its native target. Settings: `quantise`, a recipe, or `dtype`; `target`, `load`, `cache`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.settings import EngineSettings
from openautoglm.graph.recipe import Quantisation
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.load import load_program
from peers import serving
from peers.runner import Job, Session, main, start
from peers.shapes import Shape

PAGE_SIZE, PAGES, MOST_ROWS, MOST_WANTED = 16, 640, 512, 64


class Ours:
    """A native program, and an engine on it that shares no prefixes."""

    def __init__(self, job: Job, shape: Shape) -> None:
        recipe = job.settings.get("quantise")
        self.program = load_program(
            job.model, job.settings.get("target", "native"), dtype=job.settings.get("dtype", "bf16"),
            quantise=Quantisation.model_validate(recipe) if recipe else None, cache=job.settings.get("cache", "bf16"),
            page_size=PAGE_SIZE, pages=PAGES, max_rows=MOST_ROWS, max_wanted=MOST_WANTED, threads=job.threads,
            load=job.settings.get("load", "copy"))
        self.engine = Engine(self.program, EngineSettings(prefix_cache=False, max_batch=32), stop_ids=())

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, top_p: float | None = None) -> None:
        decoding = (Decoding(max_new_tokens=new_tokens) if top_p is None
                    else Decoding(max_new_tokens=new_tokens, temperature=1.0, top_p=top_p))
        tickets = [self.engine.submit(Request(prompt, decoding)) for prompt in prompts]
        while not self.engine.idle:
            self.engine.turn()
        lengths = {len(ticket.result()[0].ids) for ticket in tickets}
        if lengths != {new_tokens}:
            raise RuntimeError(f"asked for {new_tokens} tokens, got {lengths}")

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        rows = np.asarray(ids, np.int32)
        layout = lay_out([Part(len(ids), 0, range(-(-len(ids) // PAGE_SIZE)))], page_size=PAGE_SIZE, pages=PAGES)
        wanted = np.arange(len(ids), dtype=np.int32)
        parts = [self.program.step(rows, layout.positions, layout, wanted[begin:begin + MOST_WANTED]).copy()
                 for begin in range(0, len(ids), MOST_WANTED)]
        return np.concatenate(parts)


def start_without_torch(session: Session) -> dict[str, float]:
    """As for all engines, and whether torch was imported."""
    found = start(session)
    return {**found, "torch": float("torch" in sys.modules)}


if __name__ == "__main__":
    main(Ours, {"start": start_without_torch, **serving.MEASURES})
