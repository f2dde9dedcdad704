"""``autoglm doctor``: machine and installation against what each verb needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from openautoglm.core.checks import blocking, examine
from openautoglm.core.hardware import probe
from openautoglm.core.needs import NEEDS, Finding, Status

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "failure": "bold red", "unknown": "dim"}


@app.command()
def command(
    verb: Annotated[str | None, typer.Option(
        "--for", metavar="VERB", help="The verb to be sure about; exit code 1 if it cannot run.")] = None,
    form: Annotated[str, typer.Option("--format", help="How to print: table or json.")] = "table",
    folder: Annotated[Path, typer.Option(help="Where runs are to be written.")] = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that serving will use.")] = 8080,
) -> None:
    """Check machine and installation; each failure is shown with its remedy."""
    if verb is not None and verb not in NEEDS:
        raise typer.BadParameter(f"no verb {verb!r}; there are {', '.join(NEEDS)}", param_hint="--for")
    if form not in ("table", "json"):
        raise typer.BadParameter(f"{form!r} is neither table nor json", param_hint="--format")
    findings = [*examine(probe(), folder=folder, port=port, verb=verb), _native()]
    ready = {name: not blocking(findings, name) for name in NEEDS}
    if form == "json":
        facts = {"findings": [asdict(finding) for finding in findings], "ready": ready}
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print_table(findings, ready)
    if verb is not None and not ready[verb]:
        raise typer.Exit(1)


def _native() -> Finding:
    from openautoglm.runtime.native import REMEDY, native_module, why_not

    module = native_module()
    if module is None:
        return Finding("native runtime", "warning", why_not(), REMEDY)
    return Finding("native runtime", "ok", f"instruction paths {', '.join(module.supported_isas())}")


def _print_table(findings: list[Finding], ready: dict[str, bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "status", "found", "remedy", title="autoglm doctor", title_justify="left")
    for finding in findings:
        status = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(Text(finding.name), status, Text(finding.found), Text(finding.remedy))
    console = Console()
    console.print(table)
    console.print("ready: ", ", ".join(verb for verb, yes in ready.items() if yes), sep="")
    stuck = [verb for verb, yes in ready.items() if not yes]
    if stuck:
        console.print("not ready: ", ", ".join(stuck), style="red", sep="")
