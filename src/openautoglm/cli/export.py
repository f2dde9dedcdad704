"""``autoglm export BUNDLE OUT``: a model for other programs, or a copy of the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)
Model = Annotated[Path, typer.Argument(help="A bundle (folder, .zip or .pkl); for .gguf and OpenVINO also the folder "
                                            "of a released checkpoint.", metavar="BUNDLE")]
Out = Annotated[Path, typer.Argument(help="What to write: NAME.gguf for llama.cpp; NAME.zip, NAME.pkl or a folder "
                                          "for a copy of the bundle.", metavar="OUT")]
Type = Annotated[str | None, typer.Option("--type", help="Of .gguf, the type of matrices: f32, f16, bf16, q8_0, q5_0, "
                                          "q5_1, q4_0, q4_1; left out, as they are stored. openvino: OUT is a folder "
                                          "of OpenVINO IR.")]


@app.command()
def command(model: Model, out: Out, kind: Type = None) -> None:
    """Write a model in another form; the file is whole or absent, an older one is replaced."""
    from openautoglm.export.export import EXPORT_TYPES, export_model

    chosen = next((each for each in EXPORT_TYPES if each == kind), None)
    if kind is not None and chosen is None:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(EXPORT_TYPES)}", param_hint="--type")
    written = export_model(model, out, chosen)
    for note in written.notes:
        typer.echo(f"note: {note}", err=True)
    types = ", ".join(f"{count} {name}" for name, count in sorted(written.types.items()))
    typer.echo(f"written: {written.path}" + (f" (tensors: {types})" if types else ""))
