"""``autoglm train TASK``: the stages of a run up to this one."""

from __future__ import annotations

import typer

from openautoglm.cli.run import Fresh, Output, TaskFile

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(task: TaskFile, output: Output = None, fresh: Fresh = False) -> None:
    """Train the model of a task, with the settings that its search found.

    Earlier stages run first where they are not finished. `--fresh` begins this stage again, not the earlier ones.
    """
    from openautoglm.cli.tables import print_train
    from openautoglm.pipeline.context import Run
    from openautoglm.pipeline.stages.order import run_stages

    current = Run.of(task, output)
    run_stages(current, until="self_distill", from_="train" if fresh else None)
    print_train(current)
