"""The embedding and the output head: tables as tall as the vocabulary, quantised span by span."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openautoglm.compress.apply import Base
from openautoglm.compress.facts import MatrixFacts
from openautoglm.compress.gptq import Gptq
from openautoglm.compress.grid import Coded, Form, Grid
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import AwqSettings, GptqSettings
from openautoglm.compress.source import EMBEDDING, HEAD, NORM, Source
from openautoglm.compress.statistics import Statistics, output_error, weight_error
from openautoglm.models.quantised_file import QuantisedWriter

Round = Callable[[Tensor, Form], Coded]


def embedding_bits(source: Source, base: Base) -> int:
    """Bits of the embedding; where it is the head too, the greater of both."""
    return max(base.embedding_bits, base.head_bits) if source.spec.tied else base.embedding_bits


def form_of(bits: int, base: Base) -> Form | None:
    """The form of a table; None where it is not quantised."""
    if bits not in (4, 8):
        return None
    return Form(4 if bits == 4 else 8, base.group, base.symmetric)


def embedding_rows(source: Source, base: Base) -> Callable[[int, int], Tensor]:
    """How the walk reads rows of the embedding: as they will be read from the file, where it asks for that."""
    form = form_of(embedding_bits(source, base), base)

    def read(start: int, stop: int) -> Tensor:
        rows = source.tensor(EMBEDDING, start, stop)
        if form is None or getattr(base, "inputs", "original") == "original":
            return rows
        return round_to_nearest(rows, form, search=base.search).effective()

    return read


def write_tables(writer: QuantisedWriter, source: Source, base: Base, seen: Callable[[], Statistics] | None
                 ) -> list[MatrixFacts]:
    """Write embedding, head and the last norm; return what was done.

    Args:
        seen: what the calibration shows of the head's inputs, made when it is needed; None where nothing is shown.
    """
    writer.add(NORM, source.tensor(NORM).numpy())
    facts = [_write(writer, source, EMBEDDING, embedding_bits(source, base), base, None)]
    if not source.spec.tied:
        statistics = seen() if seen is not None and base.head_bits in (4, 8) else None
        facts.append(_write(writer, source, HEAD, base.head_bits, base, statistics))
    return facts


def _write(writer: QuantisedWriter, source: Source, name: str, bits: int, base: Base, seen: Statistics | None
           ) -> MatrixFacts:
    rows, columns = source.checkpoint.entry(name).shape
    fact = MatrixFacts(name=name.removesuffix(".weight"), bits=bits, group=base.group, weights=rows * columns,
                       stored_bits=bits, weight_error=0.0)
    form = form_of(bits, base)
    if form is None:
        if bits == 16:
            writer.add(name, source.bf16(name))
        else:
            writer.add(name, source.tensor(name).numpy())
        return fact.model_copy(update={"group": 0})
    rounding, parts, errors = _rounding(base, seen, name), list[Coded](), list[tuple[float, float]]()
    for number, (start, stop) in enumerate(source.rows(name)):
        weight = source.tensor(name, start, stop)
        coded = rounding(weight, form)
        effective = coded.effective()
        shown = output_error(weight[:1024], effective[:1024], seen.hessian) if seen is not None and not number else 0.0
        errors.append((weight_error(weight, effective), shown))
        parts.append(coded)
    writer.add(name, joined(parts).matrix())
    return fact.model_copy(update={
        "stored_bits": form.stored_bits(columns), "weight_error": sum(error for error, _ in errors) / len(errors),
        "output_error": errors[0][1] if seen is not None else None})


def _rounding(base: Base, seen: Statistics | None, name: str) -> Round:
    """How a table is rounded. The columns of a head are not scaled (AWQ): the norm before it may feed more than it."""
    if seen is not None:
        settings = base if isinstance(base, GptqSettings) else None
        if isinstance(base, AwqSettings) and base.then == "gptq":
            settings = base.gptq()
        if settings is not None:
            return Gptq(seen.hessian, settings, name).quantise
        importance = seen.hessian.diagonal()
        return lambda weight, form: round_to_nearest(weight, form, search=base.search, importance=importance)
    return lambda weight, form: round_to_nearest(weight, form, search=base.search)


def joined(parts: list[Coded]) -> Coded:
    """Matrices under each other, as one."""
    first = parts[0].grid
    zeros = [part.grid.zeros for part in parts if part.grid.zeros is not None]
    grid = Grid(first.form, torch.cat([part.grid.shares for part in parts]),
                torch.cat([part.grid.rows for part in parts]), torch.cat(zeros) if zeros else None)
    return Coded(grid, torch.cat([part.codes for part in parts]))
