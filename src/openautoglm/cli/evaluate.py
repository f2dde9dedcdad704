"""``autoglm evaluate``: a bundle on data, or predictions against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


Bundle = Annotated[Path | None, typer.Argument(help="A bundle: folder, .zip or .pkl.", metavar="[BUNDLE]")]
Data = Annotated[list[str] | None, typer.Option(help="Data files for the bundle (globs allowed; may be repeated).")]
References = Annotated[Path | None, typer.Option(help="A file of references: CSV, TSV, JSONL or plain text.")]
Source = Annotated[str | None, typer.Option(help="Column of the sources (default: as the bundle was trained; for "
                                                 "references: source, mr, prompt or input).")]
Metrics = Annotated[str | None, typer.Option(help="Metrics, by commas; left out, all that the data allows.")]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="Lower-case for BLEU, chrF and exact match.")]
Beams = Annotated[int | None, typer.Option(min=1, help="Beams, in place of the card's decoding.")]
Runs = Annotated[str, typer.Option(help="What runs the bundle: auto, native, torch:cpu or torch:cuda.")]
Quantise = Annotated[str | None, typer.Option(help="Round the bundle's weights when loading: int8 or int4.")]
Group = Annotated[int | None, typer.Option(help="Weights that share a scale: 32, 64, 128; 0: a row.")]
Cases = Annotated[int | None, typer.Option(min=1, help="At most so many records, evenly spaced.")]
Output = Annotated[Path, typer.Option(help="Folder (bundle) or JSON file (predictions) for the results.")]


@app.command()
def evaluate(
    bundle: Bundle = None,
    data: Data = None,
    predictions: Annotated[Path | None, typer.Option(help="A file of texts to be scored.")] = None,
    references: References = None,
    source: Source = None,
    target: Annotated[str | None, typer.Option(help="Column of the texts or references.")] = None,
    metrics: Metrics = None,
    lowercase: Lowercase = False,
    tokenize: Annotated[str, typer.Option(help="13a, intl, zh, char or none.")] = "13a",
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 12345,
    num_beams: Beams = None,
    engine: Runs = "auto",
    quantise: Quantise = None,
    group: Group = None,
    cases: Cases = None,
    output: Output = Path("evaluation"),
) -> None:
    """Print a table of scores with their intervals, and write them as JSON.

    Either a bundle with --data, or --predictions with --references. Rows with one source are one record with
    several references.
    """
    from openautoglm.pipeline.scoring import evaluate_settings, score_files

    options = evaluate_settings(metrics=metrics, lowercase=lowercase, tokenize=tokenize, bootstrap=bootstrap, seed=seed)
    if bundle is not None and data and predictions is None and references is None:
        from openautoglm.pipeline.engines import program_settings
        from openautoglm.pipeline.scoring_bundle import score_bundle

        program = program_settings({"target": engine, "quantise": quantise, "group": group})
        scores, where = score_bundle(bundle, data, options, source=source, target=target, num_beams=num_beams,
                                     most=cases, output=output, program=program)
    elif bundle is None and predictions is not None and references is not None and not data:
        scores, where = score_files(predictions, references, options, source=source, target=target, output=output)
    else:
        raise typer.BadParameter("give BUNDLE and --data, or --predictions and --references")
    from openautoglm.cli.tables import print_scores

    print_scores(scores)
    typer.echo(f"written: {where}")
