"""``autoglm search TASK``: the stages of a run up to this one."""

from __future__ import annotations

import typer

from openautoglm.cli.run import Fresh, Output, TaskFile

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def search(task: TaskFile, output: Output = None, fresh: Fresh = False) -> None:
    """Search model shape and training settings within the task's budget.

    Earlier stages run first where they are not finished. `--fresh` begins this stage again, not the earlier ones.
    """
    from openautoglm.cli.tables import print_search
    from openautoglm.pipeline.context import Run
    from openautoglm.pipeline.stages.order import run_stages

    current = Run.of(task, output)
    run_stages(current, until="search", from_="search" if fresh else None)
    print_search(current)
