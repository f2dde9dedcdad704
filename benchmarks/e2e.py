"""E2E NLG from scratch, several seeds: every decoding's scores as mean and spread, beside the published figures.

    python benchmarks/e2e.py --seeds 0 1 2 --json e2e.json

Runs ``examples/e2e/task.yaml`` once a seed (a run that was stopped goes on; a finished one is only read). The minutes
of each stage are those the run recorded, so a seed's cost is what a user would wait for.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import yaml

from openautoglm.core.files import read_json, write_json
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.stages.order import run_stages
from openautoglm.pipeline.task import load_task

ROOT = Path(__file__).resolve().parents[1]
TASK = ROOT / "examples" / "e2e" / "task.yaml"
METRICS = ("bleu", "rouge_l", "rouge_l_multi", "e2e_rouge_l", "slot_coverage", "length_ratio")
PUBLISHED = {"TGen (published run)": 65.93, "TGen, mean over its seeds": 66.4, "TGen without reranker, mean": 63.37,
             "Slug, challenge winner": 66.19, "one human against the others": 60.46}


def run_seed(task_file: Path, seed: int, folder: Path) -> dict[str, Any]:
    """Run one seed to the end of its evaluation; return its scores and the minutes of its stages."""
    task = load_task(task_file)
    task = task.model_copy(update={"seed": seed, "train": task.train.model_copy(update={"seed": seed})})
    run = Run(task, task_file.parent, folder / f"seed{seed}")
    run_stages(run, until="evaluate")
    scores = read_json(run.scores_file)
    return {"seed": seed, "minutes": minutes(run), "chosen": scores["chosen"], "splits": scores["splits"]}


def minutes(run: Run) -> dict[str, float]:
    """Minutes that each stage took, as its state says."""
    stages = read_json(run.folder / "state.json")["stages"]
    return {name: round(stage["seconds"] / 60, 2) for name, stage in stages.items() if "seconds" in stage}


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per split, decoding and metric: the seeds' values, their mean and standard deviation."""
    rows = []
    for split in results[0]["splits"]:
        for decoding in [*results[0]["splits"][split], "chosen"]:
            found = [one["splits"][split][one["chosen"] if decoding == "chosen" else decoding] for one in results]
            for key in found[0]["scores"]:
                values = [one["scores"][key]["value"] for one in found]
                rows.append({"split": split, "decoding": decoding, "metric": key, "values": values,
                             "name": found[0]["scores"][key].get("name", key), "mean": statistics.fmean(values),
                             "spread": statistics.stdev(values) if len(values) > 1 else 0.0,
                             "intervals": [[one["scores"][key].get("low"), one["scores"][key].get("high")]
                                           for one in found]})
    return rows


def show(rows: list[dict[str, Any]], results: list[dict[str, Any]]) -> str:
    """Return the summary as a Markdown table."""
    lines = ["| split | decoding | metric | mean | s.d. | seeds |", "|---|---|---|---|---|---|"]
    for row in rows:
        scale = 100 if row["metric"] in ("slot_coverage",) else 1
        seeds = " ".join(f"{scale * value:.2f}" for value in row["values"])
        lines.append(f"| {row['split']} | {row['decoding']} | {row['name']} | {scale * row['mean']:.2f} | "
                     f"{scale * row['spread']:.2f} | {seeds} |")
    lines.append("")
    lines += [f"seed {one['seed']}: chosen {one['chosen']}; minutes {one['minutes']}" for one in results]
    lines += [f"published BLEU, {name}: {value}" for name, value in PUBLISHED.items()]
    return "\n".join(lines)


def main() -> None:
    """Run the seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--task", type=Path, default=TASK)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "e2e-seeds")
    parser.add_argument("--json", type=Path, help="write results here too")
    options = parser.parse_args()
    results = [run_seed(options.task, seed, options.folder) for seed in options.seeds]
    rows = summary(results)
    print(show(rows, results))
    if options.json:
        task = yaml.safe_load(options.task.read_text(encoding="utf-8"))
        write_json(options.json, {"task": task, "results": results, "summary": rows})


if __name__ == "__main__":
    main()
