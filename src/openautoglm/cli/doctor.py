"""``autoglm doctor``: machine and installation against what each verb needs, and against what a model takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from openautoglm.cli.doctor_model import Wishes, apply, check_up
from openautoglm.core.checks import blocking, examine
from openautoglm.core.hardware import probe
from openautoglm.core.needs import NEEDS, RUN_MODELS, Finding, Status

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_PROFILE = Path("autoglm-profile.yaml")
_STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "failure": "bold red", "unknown": "dim"}


@app.command()
def command(
    start: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND", help="With --apply: what to start "
                                                      "then, e.g. -- autoglm serve MODEL.")] = None,
    verb: Annotated[str | None, typer.Option(
        "--for", metavar="VERB", help="The verb to be sure about; exit code 1 if it cannot run.")] = None,
    form: Annotated[str, typer.Option("--format", help="How to print: table or json.")] = "table",
    folder: Annotated[Path, typer.Option(help="Where runs are to be written.")] = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that serving will use.")] = 8080,
    model: Annotated[str | None, typer.Option(help="A bundle, a checkpoint's folder, or models:/NAME: look at "
                                              "memory, limits, processors ... for this model.")] = None,
    target: Annotated[str, typer.Option(help="What will run it: auto, native, torch:cpu or torch:cuda.")] = "auto",
    quantise: Annotated[str | None, typer.Option(help="Its weights rounded when loading: int8 or int4.")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale: 32, 64, 128; 0: a row.")] = None,
    cache: Annotated[str | None, typer.Option(help="Form of its keys and values: fp32, bf16 or int8.")] = None,
    cache_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that its cache shall hold.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that shall compute.")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Most memory for the process, e.g. 2GiB.")] = None,
    load: Annotated[str | None, typer.Option(help="Its weights: copy, map or stream; left out, by the memory.")] = None,
    nice: Annotated[int | None, typer.Option(min=-20, max=19, help="Priority, -20 (first; root) to 19.")] = None,
    mend: Annotated[bool, typer.Option("--apply", help="Do what needs no root: write the launch profile, and start "
                                       "COMMAND so.")] = False,
    profile: Annotated[Path, typer.Option(help="The launch profile that --apply writes.")] = _PROFILE,
) -> None:
    """Check machine and installation; each failure is shown with its remedy, and with the commands that mend it."""
    if form not in ("table", "json"):
        raise typer.BadParameter(f"{form!r} is neither table nor json", param_hint="--format")
    if mend and model is None:
        raise typer.BadParameter("what is applied depends on the model: give --model", param_hint="--apply")
    if start and not mend:
        raise typer.BadParameter(f"{' '.join(start)!r}: a command is started with --apply alone", param_hint="COMMAND")
    verb = _checked(verb, model)
    machine = probe()
    findings = [*examine(machine, folder=folder, port=port, verb=verb), _native()]
    checked = None
    if model is not None:
        checked = check_up(model, machine, Wishes(verb or "serve", nice, {
            "target": target, "quantise": quantise, "group": group, "cache": cache, "cache_tokens": cache_tokens,
            "threads": threads, "memory_limit": memory_limit, "load": load}))
    ready = {name: not blocking([*findings, *(checked.findings if checked else ())], name) for name in NEEDS}
    if form == "json":
        facts = {"findings": [asdict(finding) for finding in findings], "ready": ready,
                 **({"model": checked.facts} if checked else {})}
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print_tables(findings, checked, ready)
    if verb is not None and not ready[verb]:
        raise typer.Exit(1)
    if mend and checked is not None:
        apply(checked, profile, start or ())


def _checked(verb: str | None, model: str | None) -> str | None:
    """The verb that was asked about; `serve` where only a model was named."""
    if verb is not None and verb not in NEEDS:
        raise typer.BadParameter(f"no verb {verb!r}; there are {', '.join(NEEDS)}", param_hint="--for")
    if model is None:
        return verb
    if verb is not None and verb not in RUN_MODELS:
        more = {"edge": "`autoglm edge` tells it itself"}.get(verb, "`autoglm check TASK.yaml` estimates a task")
        raise typer.BadParameter(f"what a model needs is known for {', '.join(RUN_MODELS)}, not for {verb}: {more}; or "
                                 "leave --model out", param_hint="--model")
    return verb or "serve"


def _native() -> Finding:
    from openautoglm.runtime.native import REMEDY, native_module, why_not

    module = native_module()
    if module is None:
        return Finding("native runtime", "warning", why_not(), REMEDY)
    return Finding("native runtime", "ok", f"instruction paths {', '.join(module.supported_isas())}")


def _print_tables(findings: Sequence[Finding], checked: Any, ready: dict[str, bool]) -> None:
    from rich.console import Console

    console = Console()
    _print_table(console, "autoglm doctor", findings)
    if checked is not None:
        _print_table(console, f"{checked.demand.model} on this machine ({checked.demand.target})", checked.findings)
        _print_commands(console, checked)
    console.print("ready: ", ", ".join(verb for verb, yes in ready.items() if yes), sep="")
    stuck = [verb for verb, yes in ready.items() if not yes]
    if stuck:
        console.print("not ready: ", ", ".join(stuck), style="red", sep="")


def _print_table(console: Any, title: str, findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "status", "found", "remedy", title=Text(title), title_justify="left")
    for finding in findings:
        status = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(Text(finding.name), status, Text(finding.found), Text(finding.remedy))
    console.print(table)


def _print_commands(console: Any, checked: Any) -> None:
    """The commands of what is not well, whole lines that can be copied; and what --apply does."""
    for finding in checked.findings:
        if finding.commands and finding.status in ("warning", "failure"):
            console.print(f"{finding.name}:", highlight=False, markup=False)
            for line in finding.commands:
                console.print(f"    {line}", soft_wrap=True, highlight=False, markup=False)
    made = ", ".join(f"{name} {value}" for part in checked.profile.values() for name, value in part.items())
    console.print(f"--apply sets, without root: {made}", soft_wrap=True, highlight=False, markup=False)
