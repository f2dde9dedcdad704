"""``autoglm graph BUNDLE``: the graph of a model, as it is built and as the rules of a target leave it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openautoglm.core.files import atomic_write

if TYPE_CHECKING:
    from openautoglm.graph.recipe import Quantisation
    from openautoglm.graph.rewrite import Application
    from openautoglm.models.quantised_file import Form
    from openautoglm.models.spec import GlmSpec

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_TARGETS = ("native", "torch")


@app.command()
def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle (folder, .zip or .pkl), or the folder of a released "
                                                "checkpoint; of a folder no weights are read.", metavar="BUNDLE")],
    target: Annotated[str, typer.Option(help="Whose rules: native or torch.")] = "native",
    quantise: Annotated[str | None, typer.Option(help="Quantise linears: int8 or int4.")] = None,
    group: Annotated[int | None, typer.Option(help="Columns that share a scale: 32, 64, 128; 0: a row.")] = None,
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="With a zero point.")] = False,
    head: Annotated[str | None, typer.Option(help="Format of the head: fp32, bf16, int8 or int4.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Tensors that stay as they are; * is a wildcard.")] = None,
    rules: Annotated[bool, typer.Option("--rules/--no-rules", help="Rewrite the graph, or show it as built.")] = True,
    rule: Annotated[list[str] | None, typer.Option(help="One more rule: optional, or of a plug-in.")] = None,
    all_layers: Annotated[bool, typer.Option("--all-layers", help="Show layers that repeat each other, too.")] = False,
    log: Annotated[bool, typer.Option("--log", help="List every application of a rule.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write a picture.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with picture and text.")] = None,
) -> None:
    """Print the graph of a model: operators, types, weights, and how often each rule was applied."""
    if target.partition(":")[0] not in _TARGETS:
        raise typer.BadParameter(f"{target!r} is none of {', '.join(_TARGETS)}", param_hint="--target")
    recipe = _recipe(quantise, {"group": group, "symmetric": False if asymmetric else None, "head": head,
                                "keep": tuple(keep) if keep else None})
    if not rules and (recipe is not None or rule):
        raise typer.BadParameter("quantising and further rules need rules", param_hint="--no-rules")
    from openautoglm.graph import show
    from openautoglm.graph.build import build
    from openautoglm.graph.rewrite import rewrite
    from openautoglm.graph.rules.registry import rules_for

    spec, forms = _spec(bundle)
    graph = build(spec)
    notes = [f"as built: {show.summary(graph)}"]
    if rules:
        notes += _told(rewrite(graph, rules_for(target.partition(":")[0], recipe, rule or (), forms)), log)
    typer.echo("\n".join([*notes, "", show.text(graph, fold=not all_layers)]))
    title = f"{bundle.name or spec.family}, {target if rules else 'as built'}"
    _write(svg, html, graph, title, "\n".join(notes), fold=not all_layers)


def _told(done: Sequence[Application], log: bool) -> list[str]:
    from openautoglm.graph import show

    if not done:
        return ["no rule found anything to do"]
    each = [f"  {one.rule}  {one.at}" for one in done] if log else []
    return [f"{len(done)} applications of rules:", *each,
            *(f"  {line}" for line in show.counts(done).splitlines())]


def _recipe(quantise: str | None, options: dict[str, Any]) -> Quantisation | None:
    """The recipe that the options spell out; None for none."""
    given = {name: value for name, value in options.items() if value is not None}
    if quantise is None:
        if given:
            raise typer.BadParameter(f"{', '.join(given)} without a format", param_hint="--quantise")
        return None
    from pydantic import ValidationError

    from openautoglm.graph.recipe import Quantisation

    try:
        return Quantisation(format=quantise, **given)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise typer.BadParameter(f"{fault['input']!r}: {fault['msg']}", param_hint=(
            "--quantise" if name == "format" else f"--{name}")) from error


def _spec(path: Path) -> tuple[GlmSpec, dict[str, Form]]:
    """The architecture of a bundle in one file, or of a folder's config.json; how its quantised matrices are stored."""
    from openautoglm.models.quantised_file import forms_of

    if path.is_file():
        from openautoglm.models.bundle import open_bundle

        bundle = open_bundle(path)
        return bundle.spec, forms_of(bundle.path)
    from openautoglm.models.checkpoint import read_spec

    return read_spec(path), forms_of(path)


def _write(svg: Path | None, html: Path | None, graph: Any, title: str, notes: str, *, fold: bool) -> None:
    from openautoglm.graph import picture

    if svg is not None:
        with atomic_write(svg) as file:
            file.write(picture.svg(graph, title=title, fold=fold))
    if html is not None:
        with atomic_write(html) as file:
            file.write(picture.html(graph, title=title, notes=notes, fold=fold))
