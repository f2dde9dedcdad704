"""``autoglm run TASK``: all stages, each skipped where it is finished for the same inputs and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

TaskFile = Annotated[Path, typer.Argument(help="The task file (YAML).", metavar="TASK")]
Output = Annotated[Path | None, typer.Option(help="Run folder, in place of the task's own.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what is finished and begin again.")]


@app.command()
def run(task: TaskFile, output: Output = None, fresh: Fresh = False,
        from_: Annotated[str | None, typer.Option("--from", help="Run this stage and all later ones again.")] = None,
        until: Annotated[str | None, typer.Option(help="End after this stage.")] = None) -> None:
    """Run a task file: clean, tokenizer, search, train, evaluate, compress, export, report.

    A finished stage is skipped as long as its inputs and settings are the same. A run that was stopped, or
    killed at any moment, goes on where it was when the same command is given again. Exit status 3: the run is
    finished, but compression missed a target of the section `compress`.
    """
    from openautoglm.pipeline.context import Run
    from openautoglm.pipeline.stages.order import run_stages

    current = Run.of(task, output)
    run_stages(current, until=until, from_=from_, fresh=fresh)
    if until is None:
        from openautoglm.cli.tables import compression_of, print_run

        print_run(current)
        if current.task.compress is not None and compression_of(current)["missed"]:
            raise typer.Exit(3)
