"""``autoglm clean TASK``: the stages of a run up to this one."""

from __future__ import annotations

import typer

from openautoglm.cli.run import Fresh, Output, TaskFile

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def clean(task: TaskFile, output: Output = None, fresh: Fresh = False) -> None:
    """Clean and split the data of a task, and write its quality report.

    Earlier stages run first where they are not finished. `--fresh` begins this stage again, not the earlier ones.
    """
    from openautoglm.cli.tables import print_clean
    from openautoglm.pipeline.context import Run
    from openautoglm.pipeline.stages.order import run_stages

    current = Run.of(task, output)
    run_stages(current, until="clean", from_="clean" if fresh else None)
    print_clean(current)
