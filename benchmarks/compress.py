"""What each way to quantise a bundle costs and brings: size, memory, speed, the task's metric, divergence.

    python benchmarks/compress.py BUNDLE --run RUN [--lowercase] [--cases 300] [--folder DIR] [--out FILE]
    python benchmarks/compress.py BUNDLE --data FILES --calibration FILES

Every way is a recipe of `autoglm compress`. The metric is BLEU of greedy answers, or bits per byte of held-out plain
text (the lower the better); perplexity, divergence from the parent and equal likeliest tokens are those of decoding.
Rates are medians, measured in turn within one run: all bundles are made first, then `--rounds` times each is served by
a process of its own. BUNDLE is one that `autoglm run` wrote. Results go to `--out` as JSON and are printed as a table.
What is made and measured before the rounds is kept in `--folder`: a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openautoglm.engine.open import ProgramSettings
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.pipeline.compressing.material import Material
from openautoglm.pipeline.compressing.measure import Measured, kept, weigh
from openautoglm.pipeline.compressing.options import material_of
from openautoglm.pipeline.compressing.recipe import make_recipe, steps_of
from openautoglm.pipeline.compressing.run import Job
from openautoglm.pipeline.state import locked

WAYS: dict[str, list[dict[str, Any]]] = {
    "int8": [{"method": "rtn", "bits": 8}],
    "int8, kv int8": [{"method": "rtn", "bits": 8}, {"method": "kv"}],
    "int4 rtn": [{"method": "rtn", "bits": 4}],
    "int4 gptq": [{"method": "gptq", "bits": 4}],
    "int4 awq": [{"method": "awq", "bits": 4}],
    "int4 gptq, tables int4": [{"method": "gptq", "bits": 4, "head_bits": 4, "embedding_bits": 4}],
    "mixed 5.5 bits": [{"method": "mixed", "average_bits": 5.5}],
}


def made(bundle: Bundle, folder: Path, material: Material, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Make and measure every bundle."""
    found: dict[str, dict[str, Any]] = {}
    for name in options.ways:
        recipe = make_recipe({"recipe": WAYS[name], "cases": options.cases, "texts": options.texts,
                              "evaluate": {"lowercase": options.lowercase}})
        job = Job(bundle, recipe, material, folder, Path.cwd())
        with locked(folder):
            child = job.made(steps_of(recipe))
            before, after = job.measured(bundle), job.measured(child)
        found.setdefault("fp32", {"measured": before, "path": bundle.path, "program": ProgramSettings()})
        found[name] = {"measured": after, "path": child.path, "program": ProgramSettings()}
        print(f"{name}: {kept(options.metric, before, after):.4f} of {options.metric} is kept", flush=True)
    found["bf16"] = {**found["fp32"], "program": ProgramSettings(dtype="bf16")}
    return found


def rates(found: dict[str, dict[str, Any]], prompts: list[list[int]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Serve each in turn, some times; figures of every round."""
    told: dict[str, dict[str, list[float]]] = {name: {} for name in found}
    for _ in range(rounds):
        for name, one in found.items():
            weighed = weigh(one["path"], one["program"], prompts)
            for key in ("tokens_per_s_1", "tokens_per_s_8", "peak_bytes", "load_s"):
                told[name].setdefault(key, []).append(weighed[key])
    return told


def table(found: dict[str, dict[str, Any]], served: dict[str, dict[str, list[float]]], metric: str
          ) -> list[dict[str, Any]]:
    """A row for each way, ratios beside the fp32 bundle."""
    parent: Measured = found["fp32"]["measured"]
    rows = []
    for name, one in found.items():
        measured: Measured = one["measured"]
        middle = {key: statistics.median(values) for key, values in served[name].items()}
        rows.append({"way": name, "size": measured.size_bytes, "size_ratio": measured.size_bytes / parent.size_bytes,
                     "peak_mb": middle["peak_bytes"] / 1e6, "tokens_per_s_1": middle["tokens_per_s_1"],
                     "tokens_per_s_8": middle["tokens_per_s_8"],
                     "metric": _figure(metric, measured), "kept": kept(metric, parent, measured),
                     "perplexity": measured.perplexity, "kl": measured.kl, "agreement": measured.agreement})
    return rows


def _figure(metric: str, measured: Measured) -> float:
    return measured.perplexity if metric == "perplexity" else measured.scores[metric]


def main(given: Sequence[str] | None = None) -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--calibration", nargs="*", default=[])
    parser.add_argument("--metric", help="left out: bleu, or bits_per_byte of plain text")
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="where bundles are kept; a temporary folder when left out")
    parser.add_argument("--out", type=Path, default=Path("compress.json"))
    options = parser.parse_args(given)
    bundle = open_bundle(options.bundle)
    material = material_of(bundle, options.bundle, run=options.run, data=options.data, calibration=options.calibration,
                           most=options.cases, source=None, target=None)
    options.metric = options.metric or ("bleu" if material.paired else "bits_per_byte")
    with tempfile.TemporaryDirectory() as place:
        found = made(bundle, options.folder or Path(place), material, options)
        prompts = [ids[:first] for ids, first in material.texts(bundle, 8)]
        served = rates(found, prompts, options.rounds)
    rows = table(found, served, options.metric)
    told = {"rows": rows, "rounds": served, "metric": options.metric, "cases": len(material.cases)}
    options.out.write_text(json.dumps(told, indent=1))
    print(" | ".join(options.metric if name == "metric" else name for name in rows[0]))
    for row in rows:
        print(" | ".join(f"{value:.5g}" if isinstance(value, float) else str(value) for value in row.values()))


if __name__ == "__main__":
    main()
