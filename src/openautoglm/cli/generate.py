"""``autoglm generate BUNDLE``: records in, texts out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from openautoglm.core.errors import GenerationError
from openautoglm.core.files import atomic_write

app = typer.Typer(add_completion=False, rich_markup_mode=None)

BundlePath = Annotated[Path, typer.Argument(help="A bundle: folder, .zip or .pkl.", metavar="BUNDLE")]


@app.command()
def generate(
    bundle: BundlePath,
    text: Annotated[list[str] | None, typer.Argument(help="Sources; left out, lines of --file or standard input.",
                                                     metavar="[TEXT]...")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of lines: plain text, or JSON objects.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; left out, standard output.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Bound on generated tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample within this probability.")] = None,
    num_beams: Annotated[int | None, typer.Option(help="Beams of a beam search.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Candidates a record.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Lines answered together.")] = 64,
    target: Annotated[str, typer.Option(help="What runs the model: auto, native, torch:cpu or torch:cuda.")] = "auto",
    quantise: Annotated[str | None, typer.Option(help="Round the weights when loading: int8 or int4.")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale: 32, 64, 128; 0: a row.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; left out, the cores of use.")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Most memory for the process, e.g. 2GiB.")] = None,
) -> None:
    """Generate a text for each source; JSON lines out.

    A line in is plain text, or a JSON object with `source` (or `prompt`, `messages`, or the columns that the bundle
    was trained on). A line that cannot be answered gives an object with `error`; the others are answered all the
    same, and the exit code is then 1. Options left out are those which the bundle's card recommends.
    """
    from openautoglm.pipeline.answering import answer_lines, recommended

    if text and file:
        raise typer.BadParameter("give texts or --file, not both", param_hint="--file")
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "num_beams": num_beams,
             "n": n, "seed": seed}
    from openautoglm.models.bundle import open_bundle
    from openautoglm.pipeline.engines import program_settings

    program = program_settings({"target": target, "quantise": quantise, "group": group, "threads": threads,
                                "memory_limit": memory_limit})
    opened = open_bundle(bundle)
    sampling = recommended(opened, {key: value for key, value in given.items() if value is not None})
    lines = iter([item.encode("utf-8", "surrogateescape") for item in text]) if text else _lines(file)
    failed = 0
    with _sink(output) as sink:
        for record in answer_lines(opened, lines, sampling, batch=batch, program=program):
            failed += "error" in record
            sink.write(record)
    raise typer.Exit(1 if failed else 0)


def _lines(file: Path | None) -> Iterator[bytes]:
    if file is None:
        yield from sys.stdin.buffer
        return
    try:
        with file.open("rb") as handle:
            yield from handle
    except OSError as error:
        raise GenerationError(f"cannot be read: {error.strerror}", where=str(file), remedy="check the path") from error


class _Sink:
    """Writes records as JSON lines, each as soon as it is there."""

    def __init__(self, handle: IO[str]) -> None:
        self._handle = handle

    def write(self, record: dict[str, Any]) -> None:
        """Write one record."""
        self._handle.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._handle.flush()


@contextmanager
def _sink(output: Path | None) -> Iterator[_Sink]:
    if output is None:
        yield _Sink(sys.stdout)
        return
    with atomic_write(output) as handle:
        yield _Sink(handle)
