"""``autoglm edge BUNDLE``: a bundle as a small program that runs without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def edge(
    bundle: Annotated[Path, typer.Argument(help="A bundle: folder, .zip or .pkl.", metavar="BUNDLE")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write; new, or empty.")],
    quantise: Annotated[str | None, typer.Option(help="Round the weights: int8 or int4.")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale: 32, 64, 128; 0: a row.")] = None,
    head: Annotated[str | None, typer.Option(help="Format of the head: fp32, bf16, int8 or int4; with --quantise "
                                                  "int8 by default.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of what is not rounded: fp32 or bf16; as stored by "
                                                   "default.")] = None,
    cache: Annotated[str | None, typer.Option(help="Keys and values: fp32, bf16 or int8.")] = None,
    rows: Annotated[int, typer.Option(min=1, max=512, help="Tokens of a prompt that are worked at together.")] = 64,
    without: Annotated[str, typer.Option(help="Features to leave out of the program: http, log, or both with a "
                                              "comma.")] = "",
    compiler: Annotated[str | None, typer.Option(help="The C++ compiler's command.")] = None,
    program: Annotated[Path | None, typer.Option(help="A compiled autoglm-edge to copy in place of compiling "
                                                      "one.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in answers; the bundle's by default.")] = None,
) -> None:
    """Make a folder with a static program, packed weights, the tokenizer's tables and a manifest.

    The program answers lines of standard input, or HTTP requests with --http; see its --help.
    """
    from openautoglm.core.errors import GenerationError
    from openautoglm.edge.export import PROGRAM, Wanted, check_program, export_edge
    from openautoglm.models.bundle import open_bundle
    from openautoglm.pipeline.edge import record_of
    from openautoglm.pipeline.engines import program_settings

    if head is not None and quantise is None:
        raise GenerationError("a head is given, but nothing is quantised", where="head",
                              remedy="give --quantise int8 or int4 with it")
    settings = program_settings({"quantise": quantise, "group": group, "dtype": dtype, "cache": cache})
    recipe = settings.quantise
    if recipe is not None and head is not None:
        recipe = type(recipe).model_validate({**recipe.model_dump(), "head": head})
    opened = open_bundle(bundle)
    wanted = Wanted(recipe, settings.dtype, settings.cache, rows,
                    tuple(word for word in without.replace(" ", "").split(",") if word), compiler, program)
    made = export_edge(opened, output, wanted, name=name or bundle.resolve().stem, record=record_of(opened))
    for file in sorted(made.iterdir()):
        typer.echo(f"{file.stat().st_size:>12,}  {file}")
    if not check_program(made):
        typer.echo("the program does not run on this machine; it was made for another", err=True)
        return
    typer.echo(f"run it: echo 'some text' | {made / PROGRAM}")
