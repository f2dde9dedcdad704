"""``autoglm report RUN``: the HTML page of a run, made again from what lies in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
           output: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None) -> None:
    """Write the HTML report of a run again, finished or not."""
    from openautoglm.pipeline.report.write import write_report

    typer.echo(write_report(run, output))
