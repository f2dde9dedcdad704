"""Loads a checkpoint with and without the plug-in's rule and says how far their logits are apart, as JSON.

    python custom_operator_probe.py CHECKPOINT TARGET DTYPE
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from openautoglm.graph.build import build
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.models.checkpoint import read_spec
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.load import load_program


def logits(checkpoint: str, target: str, dtype: Any, extra: tuple[str, ...]) -> Any:
    """Logits of a prompt of several rows, and of two tokens behind it."""
    rules = rules_for(target.partition(":")[0], extra=extra)
    program = load_program(checkpoint, target, dtype=dtype, cache="fp32", page_size=16, pages=8, rules=rules)
    ids, found, start = np.arange(3, 24, dtype=np.int32), [], 0
    for count in (14, 5, 1, 1):
        layout = lay_out([Part(count, start, [5, 1])], page_size=16, pages=8)
        found.append(program.step(ids[start:start + count], layout.positions, layout,
                                  np.arange(count, dtype=np.int32)))
        start += count
    return np.concatenate(found)


def operators(checkpoint: Any, extra: tuple[str, ...]) -> list[str]:
    """The operators that rules leave."""
    graph = build(read_spec(checkpoint))
    rewrite(graph, rules_for("torch", extra=extra))
    return [node.operator for node in graph.nodes]


def main(checkpoint: str, target: str, dtype: str) -> None:
    """Compare, and say what was found."""
    from pathlib import Path

    plain, fused = (logits(checkpoint, target, dtype, extra) for extra in ((), ("fuse_sandwich_norm",)))
    distance = float(np.linalg.norm(fused - plain) / np.linalg.norm(plain))
    folder = Path(checkpoint)
    print(json.dumps({"apart": distance, "torch": "torch" in sys.modules, "plain": operators(folder, ()),
                      "fused": operators(folder, ("fuse_sandwich_norm",))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
