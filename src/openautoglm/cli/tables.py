"""What verbs print when they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from openautoglm.core.files import read_json

if TYPE_CHECKING:
    from openautoglm.pipeline.context import Run

_SAMPLES = 3


def print_clean(run: Run) -> None:
    """Rows in and out, and where the report lies."""
    quality = read_json(run.data / "quality.json")
    for split, read in quality["rows_read"].items():
        typer.echo(f"{split:<6} {read:>9,} rows read, {quality['rows_out'].get(split, 0):>9,} kept")
    made = [split for split in quality["rows_out"] if split not in quality["rows_read"]]
    for split in made:
        typer.echo(f"{split:<6} {quality['rows_out'][split]:>9,} rows split off")
    typer.echo(f"rejected {quality['rejects']['rows']:,}; dropped "
               + (", ".join(f"{count:,} by {rule}" for rule, count in quality["dropped"].items()) or "none"))
    typer.echo(f"quality report: {run.data / 'quality.html'}")


def print_search(run: Run) -> None:
    """The chosen point."""
    if not run.search_file.is_file():
        typer.echo("no search: set budget.trials, or search.enabled")
        return
    chosen = read_json(run.search_file)
    typer.echo(f"trial {chosen['trial']} was chosen:")
    for name, value in chosen["point"].items():
        typer.echo(f"  {name:<16} {value:.4g}" if isinstance(value, float) else f"  {name:<16} {value}")


def print_train(run: Run) -> None:
    """Where the model lies."""
    typer.echo(f"trained model: {run.model}")


def print_run(run: Run) -> None:
    """Scores, some samples, and where bundle and report lie."""
    scores = read_json(run.scores_file)
    chosen = scores["chosen"]
    for split, by in scores["splits"].items():
        typer.echo(f"\n{split}, {chosen}:")
        print_scores(by[chosen])
    print_samples(run)
    if run.task.compress is not None:
        from openautoglm.cli.compress_table import print_facts

        typer.echo("\ncompression:")
        print_facts(compression_of(run))
        if run.result != run.bundle:
            typer.echo(f"\ncompressed: {run.compressed}")
    typer.echo(f"\nbundle: {run.bundle}\nreport: {run.report}")


def compression_of(run: Run) -> dict[str, Any]:
    """What the stage `compress` of a finished run noted."""
    facts: dict[str, Any] = read_json(run.folder / "state.json")["stages"]["compress"]["facts"]
    return facts


def print_scores(scores: dict[str, Any]) -> None:
    """Figures with their intervals, as a table."""
    width = max(len(one["name"]) for one in scores["scores"].values())
    for one in scores["scores"].values():
        span = "" if one["low"] is None else f"  [{one['low']:.2f}, {one['high']:.2f}]"
        typer.echo(f"  {one['name']:<{width}}  {one['value']:>8.2f}{span}")
    typer.echo(f"  {scores['cases']:,} records, {scores['references']:,} references"
               + (f"; {scores['bootstrap']}" if scores["bootstrap"] else ""))
    for note in scores["notes"]:
        typer.echo(f"  note: {note}")


def print_samples(run: Run) -> None:
    """A few generated texts."""
    import json

    with (run.evaluate / "predictions.jsonl").open(encoding="utf-8") as file:
        lines = list(file)
    for line in lines[-1 :: -max(1, len(lines) // _SAMPLES)][:_SAMPLES]:
        row = json.loads(line)
        typer.echo(f"\n  record:    {row['source']}\n  generated: {row['prediction']}\n"
                   f"  reference: {row['references'][0]}")
