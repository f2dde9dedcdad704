"""What the plan knows of the data and of the machine."""

from __future__ import annotations

import time
from pathlib import Path

from openautoglm.core.files import read_json, write_json
from openautoglm.core.hardware import Machine
from openautoglm.core.settings import Settings

REACHED = 0.4
"""Share of the rate of large products that training reaches."""
_LEAST_PRODUCTS = 5


class DataFacts(Settings):
    """The tokenised data, as counts.

    Attributes:
        train_rows, valid_rows: examples.
        train_tokens: tokens of one pass, prompts included.
        target_tokens: those that carry loss.
        longest: tokens of the longest example kept.
        overlong: examples left out because they are longer than the model's positions.
        vocab_size: entries of the tokenizer.
        paired: whether examples have a source (rather than plain text).
    """

    train_rows: int
    valid_rows: int
    train_tokens: int
    target_tokens: int
    longest: int
    overlong: int
    vocab_size: int
    paired: bool = True


class MachineFacts(Settings):
    """What training may use, and how fast it will be.

    Attributes:
        memory_bytes: memory that a training step may take.
        flops_per_s: operations per second that training reaches.
    """

    memory_bytes: int
    flops_per_s: float


def machine_facts(machine: Machine, memory: int | None, folder: Path) -> MachineFacts:
    """Measure the machine's speed once a run folder (half a second), and bound its memory by the budget.

    A machine with a GPU is taken at the GPU's memory. The measurement is kept, so that a run which is taken up again
    keeps its plan.
    """
    kept = folder / "machine.json"
    if kept.is_file():
        return MachineFacts.model_validate(read_json(kept))
    facts = MachineFacts(memory_bytes=memory_there(machine, memory), flops_per_s=machine_rate())
    write_json(kept, facts.model_dump())
    return facts


def memory_there(machine: Machine, memory: int | None) -> int:
    """Bytes that may be taken: most of what is free, or of the largest GPU, and no more than `memory`."""
    available = max((gpu.memory_bytes for gpu in machine.gpus), default=int(machine.available_bytes * 0.8))
    return min(memory, available) if memory else available


def machine_rate() -> float:
    """Operations per second that training reaches, measured now."""
    return REACHED * _matmul_flops_per_s()


def _matmul_flops_per_s(seconds: float = 0.3, size: int = 768) -> float:
    """The rate of square products, the best of many, on the device and in the number format that training will use."""
    import torch

    from openautoglm.train import precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if precision.choose("auto", device) == "bf16" else torch.float32
    left = torch.ones(size, size, dtype=dtype, device=device)
    (left @ left)[0, 0].item()  # the first product sets the library up
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(took) < _LEAST_PRODUCTS:
        started = time.perf_counter()
        (left @ left)[0, 0].item()
        took.append(time.perf_counter() - started)
    return 2 * size**3 / min(took)
