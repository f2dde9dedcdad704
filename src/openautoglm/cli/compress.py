"""``autoglm compress``: a bundle made smaller and faster, and what that cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Bundle = Annotated[Path, typer.Argument(help="A bundle: folder, .zip or .pkl; or the folder of a released checkpoint.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the new bundle.")]
RecipeFile = Annotated[str, typer.Option(help="A recipe file (YAML), `auto`, or methods by commas: rtn, gptq, awq, "
                                              "mixed, prune, distill, kv.")]
Data = Annotated[list[str] | None, typer.Option(help="Data files to measure on (globs allowed; may be repeated); for a "
                                                      "checkpoint without a card, text files.")]
Calibration = Annotated[list[str] | None, typer.Option(help="Data files for methods that look at data; left out, half "
                                                            "of --data.")]
Run = Annotated[Path | None, typer.Option(help="Folder of the `autoglm run` that made the bundle: its cleaned data "
                                               "serve. Left out, the folder that the bundle lies in, where it is one.")]
Source = Annotated[str | None, typer.Option(help="Column of the sources (default: as the bundle was trained).")]
Quality = Annotated[float | None, typer.Option(help="Share of the metric that must be kept [0.98].")]
Metric = Annotated[str | None, typer.Option(help="Metric that counts [bleu, or perplexity for plain text].")]
Bits = Annotated[int | None, typer.Option(help="Bits of weights, for methods given by name: 8 or 4.")]
Group = Annotated[int | None, typer.Option(help="Weights that share a scale: 32, 64, 128; 0: a row.")]
Size = Annotated[str | None, typer.Option(help="Bytes of the bundle at most, e.g. 20MB.")]


@app.command()
def compress(
    bundle: Bundle,
    output: Output,
    recipe: RecipeFile = "auto",
    data: Data = None,
    calibration: Calibration = None,
    run: Run = None,
    source: Source = None,
    target: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    quality: Quality = None,
    metric: Metric = None,
    bits: Bits = None,
    group: Group = None,
    bundle_size: Size = None,
    memory: Annotated[str | None, typer.Option(help="Peak memory of serving at most, e.g. 500MB.")] = None,
    tokens_per_s: Annotated[float | None, typer.Option(help="Tokens a second at batch 1, at least.")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Memory of the compression itself, e.g. 3GB.")] = None,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Lower-case for BLEU, chrF and exact match.")] = False,
    cases: Annotated[int | None, typer.Option(min=1, help="Records that are answered, at most [300].")] = None,
) -> None:
    """Compress a bundle by a recipe, measure what it cost on the engine, and write it with its figures.

    A stopped call goes on when it is made again. Exit status 3: the bundle was written, but misses a target.
    """
    from openautoglm.cli.compress_table import print_outcome
    from openautoglm.pipeline.compressing.options import material_of, recipe_of
    from openautoglm.pipeline.compressing.plain import open_parent
    from openautoglm.pipeline.compressing.run import compress_bundle

    asked, here = recipe_of(recipe, bits=bits, group=group, given={
        "quality": quality, "metric": metric, "bundle_size": bundle_size, "memory": memory, "cases": cases,
        "tokens_per_s": tokens_per_s, "memory_limit": memory_limit,
        "evaluate": {"lowercase": True} if lowercase else None})
    opened = open_parent(bundle)
    material = material_of(opened, bundle, run=run, data=data or [], calibration=calibration or [], most=asked.cases,
                           source=source, target=target)
    outcome = compress_bundle(opened, output, asked, material, here=here)
    print_outcome(outcome)
    typer.echo(f"written: {output}")
    if outcome.missed:
        raise typer.Exit(3)
