"""``autoglm check TASK``: everything that can be known before a run; ``autoglm check BUNDLE``: that it is whole."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from openautoglm.cli.run import Output

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


Task = Annotated[Path, typer.Argument(help="The task file (YAML), or a bundle.", metavar="TASK|BUNDLE")]


@app.command()
def check(task: Task, output: Output = None,
          form: Annotated[str, typer.Option("--format", help="How to print: table or json.")] = "table") -> None:
    """Check a task file and its data, and estimate tokens, minutes, memory and disk; nothing is written.

    Of a bundle (folder, .zip or .pkl) all files are read and compared with its card, packed weights with their
    checksums too. Exit code 2 if the run could not work, or the bundle is damaged.
    """
    if form not in ("table", "json"):
        raise typer.BadParameter(f"{form!r} is neither table nor json", param_hint="--format")
    from openautoglm.pipeline.check import check as look
    from openautoglm.pipeline.check_bundle import check_bundle, is_bundle
    from openautoglm.pipeline.context import Run

    found = check_bundle(task) if is_bundle(task) else look(Run.of(task, output))
    if form == "json":
        typer.echo(json.dumps({"faulty": found.faulty, "lines": [asdict(line) for line in found.lines]},
                              indent=2, ensure_ascii=False))
        raise typer.Exit(2 if found.faulty else 0)
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("", Column("what", overflow="fold"), "found", "remedy", box=None, pad_edge=False)
    for line in found.lines:
        style = _STYLES[line.status]
        table.add_row(f"[{style}]{line.status}[/]", line.what, _plain(line.value), _plain(line.remedy))
    Console().print(table)
    if found.example is not None:
        typer.echo(f"\nfirst sampled row ({found.example.origin}):\n  source: {found.example.source[:300]}\n"
                   f"  target: {found.example.target[:300]}")
    raise typer.Exit(2 if found.faulty else 0)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
