"""``autoglm sweep BUNDLE``: engine settings tried under load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from openautoglm.cli.bench import Column, Data, Goodput, InputLen, OutputLen, Ratio, Seed, Shared, TracePath

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_O = typer.Option
BundlePath = Annotated[Path, typer.Argument(help="A bundle, or the folder of a checkpoint.", metavar="BUNDLE")]
Batches = Annotated[str, _O(help="Sequences that run together, by commas.")]
Rows = Annotated[str, _O(help="Token rows of a step, by commas.")]
Threads = Annotated[str, _O(help="Threads, by commas; all: the cores there are.")]
Formats = Annotated[str, _O(help="Weights, by commas: stored, fp32, bf16, int8, int4, groups as in int4:64.")]
Waits = Annotated[str, _O(help="Seconds that a request waits for a full batch, by commas.")]
Clients = Annotated[str | None, _O(help="Loads: numbers of clients, by commas; left out without --rates: "
                                        "1,2,4,8,16,32,64.")]
Rates = Annotated[str | None, _O(help="Loads: requests per second, by commas, in place of clients.")]
Duration = Annotated[float, _O(help="Seconds of each load.")]
Warmup = Annotated[float, _O(help="Its first seconds, which are not counted.")]
Count = Annotated[int, _O(min=1, help="At most so many requests a load.")]
Timeout = Annotated[float, _O(help="An answer that takes longer is an error, in seconds.")]
Output = Annotated[Path, _O(help="Folder for runs, table and page.")]
Fresh = Annotated[bool, _O("--fresh", help="Begin anew; runs that are there are forgotten.")]


@app.command()
def sweep(
    ctx: typer.Context, bundle: BundlePath, max_batch: Batches = "1,8,32", max_batch_tokens: Rows = "512",
    threads: Threads = "all", formats: Formats = "stored", max_wait: Waits = "0", clients: Clients = None,
    rates: Rates = None, duration_s: Duration = 15.0, warmup_s: Warmup = 2.0, num_prompts: Count = 4000,
    dataset_path: Data = None, column: Column = None, trace: TracePath = None, input_len: InputLen = None,
    output_len: OutputLen = None, range_ratio: Ratio = None, shared_prefix: Shared = None, goodput: Goodput = None,
    timeout_s: Timeout = 120.0, seed: Seed = 0, target: Annotated[str, _O(
        help="What runs the bundle: auto, native, torch:cpu or torch:cuda.")] = "auto",
    output: Output = Path("sweep"), fresh: Fresh = False,
) -> None:
    """Try every combination of engine settings under every load, and recommend one.

    Each combination runs in a process of its own. Finished runs are kept in the output folder: the same command goes on
    where it was stopped. With --goodput the fastest setting whose 99th percentiles keep the bounds is recommended.
    """
    from openautoglm.bench.sweep.choose import curves, recommend
    from openautoglm.bench.sweep.page import write_sweep
    from openautoglm.bench.sweep.run import failures, run_sweep

    settings = _settings(ctx.params)
    runs = run_sweep(bundle, settings, output, fresh=fresh)
    failed = failures(output)
    _print(runs, settings)
    for one in failed:
        typer.echo(f"failed: {one['point']} at {one['amount']:g}: {one['error']}")
    typer.echo(recommend(curves(runs), settings.load.judge.goodput, settings.axes, settings.loads.unit))
    for path in write_sweep(output, runs, failed, settings, bundle.resolve().name):
        typer.echo(f"written: {path}")
    raise typer.Exit(0 if runs else 1)


def _settings(given: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from openautoglm.bench.options import faulty, load_settings, numbers
    from openautoglm.bench.sweep.points import SweepSettings

    load = load_settings({name: value for name, value in given.items() if name not in ("clients", "rates")})
    whole = {name: [int(one) for one in numbers(given[name], f"--{name.replace('_', '-')}")]
             for name in ("max_batch", "max_batch_tokens")}
    threads = [None if one == "all" else int(numbers(one, "--threads")[0]) for one in given["threads"].split(",")]
    clients = given["clients"] or (None if given["rates"] else "1,2,4,8,16,32,64")
    loads = ({"rates": numbers(given["rates"], "--rates")} if clients is None
             else {"clients": [int(one) for one in numbers(clients, "--clients")]})
    if given["rates"] and given["clients"]:
        raise typer.BadParameter("give --clients or --rates, one of them", param_hint="--clients")
    axes = {**whole, "threads": threads, "format": given["formats"].split(","),
            "max_wait": numbers(given["max_wait"], "--max-wait")}
    try:
        settings = SweepSettings.model_validate({"axes": axes, "loads": loads, "load": load,
                                                 "target": given["target"]})
        settings.axes.points()
        for amount in settings.loads.amounts():
            settings.loads.apply(load, amount)
    except ValidationError as error:
        raise faulty(error) from error
    return settings


def _print(runs: Sequence[Any], settings: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from openautoglm.bench.sweep.choose import curves
    from openautoglm.bench.sweep.page import HEAD, rows
    from openautoglm.core.page import show

    shown = Table(*HEAD, title="autoglm sweep", title_justify="left")
    for line in rows(curves(runs), settings):
        shown.add_row(*(Text(show(value)) for value in line))
    Console().print(shown)
