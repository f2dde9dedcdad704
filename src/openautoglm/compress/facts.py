"""What a quantisation did: bits and errors of each matrix, time, memory."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from openautoglm.core.settings import Settings


class MatrixFacts(Settings):
    """One quantised matrix (q, k and v of a layer as one).

    Attributes:
        name: of the tensor without ``.weight``; ``...self_attn.qkv_proj`` for q, k and v.
        layer: its number; None for embedding and head.
        bits: of a weight; 16 and 32 are not quantised.
        group: columns that share a scale; 0 is the whole row.
        weights: how many it has.
        stored_bits: that a weight takes in the file, scales and zero points included.
        weight_error: squared error of the weights, as a share of their own square.
        output_error: mean squared error of the outputs on the calibration, as a share of the outputs' own mean square,
            measured on 1024 rows at most; None where nothing was shown.
    """

    name: str
    layer: int | None = None
    bits: int
    group: int
    weights: int
    stored_bits: float
    weight_error: float
    output_error: float | None = None


class QuantisationFacts(Settings):
    """What `quantise_checkpoint` did.

    Attributes:
        method: its settings.
        matrices: in the order of the layers, embedding and head last.
        sensitivity: of mixed precision, the divergence (KL, nats a token) of the model with one matrix quantised:
            ``{name: {bits: divergence}}``.
        calibration_tokens: that the model was shown.
        seconds: of all runs that it took.
        peak_bytes: the most memory that the process had so far, what it did before included.
        file_bytes: size of the file.
    """

    method: dict[str, Any]
    matrices: tuple[MatrixFacts, ...]
    sensitivity: dict[str, dict[int, float]] = Field(default_factory=dict)
    calibration_tokens: int
    seconds: float
    peak_bytes: int
    file_bytes: int

    @property
    def average_bits(self) -> float:
        """Stored bits a weight of all matrices, embedding and head included."""
        return _average(self.matrices)

    @property
    def layer_bits(self) -> float:
        """Stored bits a weight of the layers' matrices."""
        return _average(tuple(matrix for matrix in self.matrices if matrix.layer is not None))

    @property
    def layer_errors(self) -> dict[int, float]:
        """For each layer the mean error of its matrices: of outputs where it was measured, else of weights."""
        found: dict[int, list[float]] = {}
        for matrix in self.matrices:
            if matrix.layer is not None:
                error = matrix.weight_error if matrix.output_error is None else matrix.output_error
                found.setdefault(matrix.layer, []).append(error)
        return {layer: sum(errors) / len(errors) for layer, errors in found.items()}


def _average(matrices: tuple[MatrixFacts, ...]) -> float:
    return sum(each.weights * each.stored_bits for each in matrices) / max(sum(each.weights for each in matrices), 1)
