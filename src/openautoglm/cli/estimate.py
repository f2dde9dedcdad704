"""``autoglm estimate``: memory and time of training, compressing and serving, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_TRAIN, _COMPRESS, _SERVE = "Training", "Compressing", "Serving"

What = Annotated[str, typer.Argument(help="A task file, a bundle's folder, the folder of a released GLM checkpoint "
                                          "(config.json is enough), a preset's name, or a spec in YAML.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Training: examples of an optimiser step.")]
Rows = Annotated[int | None, typer.Option(min=1, help="Training: tokens of a packed row; examples are packed then.")]
Parts = Annotated[int | None, typer.Option(min=1, help="Training: batches whose gradients are added up.")]
Precision = Annotated[str | None, typer.Option(help="Training: auto, fp32 or bf16.")]
Recompute = Annotated[bool | None, typer.Option("--checkpointing/--no-checkpointing",
                                                help="Training: recompute layers in the backward pass.")]
State = Annotated[str | None, typer.Option(help="Training: what AdamW remembers, fp32 or 8bit.")]
Offload = Annotated[bool | None, typer.Option("--offload/--no-offload", help="Training: AdamW's moments in files.")]
Freeze = Annotated[int | None, typer.Option(min=0, help="Training: so many layers from the lowest do not learn.")]
Lora = Annotated[int | None, typer.Option(min=1, help="Training: rank of low-rank adapters, which alone learn.")]
Length = Annotated[int, typer.Option(min=2, help="Tokens of an example or text, where a task does not tell.")]
Tokens = Annotated[str | None, typer.Option(help="Training: tokens in all, e.g. 30M, where a task does not tell.")]
RecipeFile = Annotated[str, typer.Option(help="Compressing: a recipe file (YAML), auto, or methods by commas.")]
Bits = Annotated[int | None, typer.Option(help="Compressing: bits of weights, for methods given by name.")]
Group = Annotated[int | None, typer.Option(help="Weights that share a scale: of --quantise, and of --recipe's method.")]
Limit = Annotated[str | None, typer.Option(help="Compressing: memory of the compression itself, e.g. 3GB.")]
Shown = Annotated[int | None, typer.Option(min=2, help="Compressing: calibration tokens.")]
Target = Annotated[str, typer.Option(help="Serving: auto, native, torch:cpu or torch:cuda.")]
Dtype = Annotated[str | None, typer.Option(help="Serving: weights that are not quantised, fp32 or bf16.")]
Quantise = Annotated[str | None, typer.Option(help="Serving: round weights when loading, int8 or int4.")]
Kv = Annotated[str | None, typer.Option(help="Serving: keys and values, fp32, bf16 or int8.")]
CacheTokens = Annotated[int | None, typer.Option(min=1, help="Serving: tokens that the cache holds.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="Serving: sequences that run together.")]
BatchTokens = Annotated[int | None, typer.Option(min=1, help="Serving: token rows of a step.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Serving: threads.")]
Memory = Annotated[str | None, typer.Option(help="Bytes that must suffice, e.g. 4GB; exit status 3 where they do not.")]


@app.command()
def estimate(
    what: What,
    wanted: Annotated[str, typer.Option("--for", help="train, compress, serve or all.")] = "all",
    batch: Batch = None, row_tokens: Rows = None, accumulation: Parts = None, precision: Precision = None,
    checkpointing: Recompute = None, optimiser_state: State = None, offload: Offload = None, freeze: Freeze = None,
    lora: Lora = None, length: Length = 128, tokens: Tokens = None,
    recipe: RecipeFile = "rtn", bits: Bits = None, group: Group = None, memory_limit: Limit = None,
    calibration_tokens: Shown = None,
    target: Target = "auto", dtype: Dtype = None, quantise: Quantise = None, kv: Kv = None,
    cache_tokens: CacheTokens = None, max_batch: MaxBatch = None, max_batch_tokens: BatchTokens = None,
    threads: Threads = None, memory: Memory = None,
    form: Annotated[str, typer.Option("--format", help="How to print: table or json.")] = "table",
) -> None:
    """Tell the memory and the time that training, compressing and serving will take. No weight is loaded.

    Of a task the plan and the data say how it is trained; options stand in place of what it says.
    """
    if form not in ("table", "json"):
        raise typer.BadParameter(f"{form!r} is neither table nor json", param_hint="--format")
    if wanted not in ("train", "compress", "serve", "all"):
        raise typer.BadParameter(f"{wanted!r} is none of train, compress, serve and all", param_hint="--for")
    from openautoglm.pipeline.compressing.options import recipe_of
    from openautoglm.pipeline.engines import program_settings
    from openautoglm.pipeline.estimating.ask import ALL, Asked, costs
    from openautoglm.pipeline.estimating.subject import subject_of
    from openautoglm.pipeline.units import parse_bytes, parse_count

    train = {"batch": batch, "row_tokens": row_tokens, "accumulation": accumulation, "precision": precision,
             "gradient_checkpointing": checkpointing, "optimiser_state": optimiser_state, "offload": offload,
             "freeze": freeze, "layout": None if row_tokens is None else "packed"}
    forms = None if recipe == "auto" or Path(recipe).suffix else (None if quantise else group)
    asked = Asked(
        wanted=tuple(one for one in ALL if wanted in (one, "all")), train=train, lora=lora, length=length,
        tokens=_amount(parse_count, tokens, "--tokens"), calibration_tokens=calibration_tokens,
        memory=_amount(parse_bytes, memory, "--memory"),
        recipe=recipe_of(recipe, bits=bits, group=forms, given={"memory_limit": memory_limit})[0],
        program=program_settings({
            "target": target, "dtype": dtype, "quantise": quantise, "group": group if quantise else None, "cache": kv,
            "cache_tokens": cache_tokens, "max_wanted": max_batch, "max_rows": max_batch_tokens, "threads": threads}))
    found = costs(subject_of(what), asked)
    if form == "json":
        typer.echo(json.dumps({"subject": what, "estimates": [one.document() for one in found]}, indent=2,
                              ensure_ascii=False))
    else:
        from openautoglm.cli.estimate_table import print_costs

        print_costs(found)
    raise typer.Exit(3 if asked.memory is not None and not all(one.fits for one in found) else 0)


def _amount(read: Callable[[Any], Any], text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        found = int(read(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    if found < 1:
        raise typer.BadParameter("must be above zero", param_hint=option)
    return found
