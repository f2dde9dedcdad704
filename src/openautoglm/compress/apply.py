"""One matrix by one method, and what a layer's outcome means for the tensors beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from openautoglm.compress.awq import awq
from openautoglm.compress.gptq import Gptq
from openautoglm.compress.grid import Coded, Form
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import AwqSettings, GptqSettings, RtnSettings
from openautoglm.compress.source import Source, norms, prefix
from openautoglm.compress.statistics import Statistics
from openautoglm.models.quantised_file import QuantisedWriter
from openautoglm.models.spec import GlmSpec

Base = RtnSettings | GptqSettings | AwqSettings


def quantise_matrix(weight: Tensor, seen: Statistics | None, form: Form, base: Base, where: str,
                    shared: tuple[int, int] | None) -> Coded:
    """Quantise a matrix [O, I] fp32.

    Args:
        seen: what the calibration shows of its inputs; None for round to nearest.
        where: its name, for the log.
        shared: see `awq`.
    """
    if seen is None or isinstance(base, RtnSettings):
        return round_to_nearest(weight, form, search=base.search)
    if isinstance(base, GptqSettings):
        return Gptq(seen.hessian, base, where).quantise(weight, form)
    return awq(weight, seen, form, base, where, shared=shared)


def shared_columns(spec: GlmSpec, slot: str) -> tuple[int, int]:
    """Which columns of a place must be scaled alike: all heads that read one value head, else each by itself."""
    if slot == "o":
        return spec.heads // spec.kv_heads, spec.head_dim
    return 1, spec.ffn_size if slot == "down" else spec.hidden_size


def write_layer(writer: QuantisedWriter, source: Source, layer: int, outcome: dict[str, Coded]) -> None:
    """Write all tensors of a layer; column scales are folded into what makes these columns.

    Scales of q/k/v and of gate/up go into the norm before, those of o into the rows of v, those of down into the rows
    of up. A row that is divided keeps its codes: only its own scale changes.
    """
    spec, at = source.spec, prefix(layer)
    qkv, gate_up = outcome["qkv"], outcome["gate_up"]
    value = slice(spec.query_size + spec.kv_size, spec.query_size + 2 * spec.kv_size)
    by = torch.ones(len(qkv.codes))
    if (scales := outcome["o"].column_scales) is not None:
        by[value] = scales.view(spec.kv_heads, -1, spec.head_dim)[:, 0].reshape(-1)
        qkv = qkv.divided(by)
    if (scales := outcome["down"].column_scales) is not None:
        gate_up = gate_up.divided(torch.cat((torch.ones(spec.ffn_size), scales)))
    bias, start = source.bias(layer), 0
    for name, rows in source.slots["qkv"].tensors:
        writer.add(f"{at}{name}.weight", qkv.rows(start, start + rows).matrix())
        if bias is not None:
            writer.add(f"{at}{name}.bias", (bias / by)[start:start + rows].numpy())
        start += rows
    for coded, slot in ((outcome["o"], "o"), (gate_up, "gate_up"), (outcome["down"], "down")):
        writer.add(f"{at}{source.slots[slot].tensors[0][0]}.weight", coded.matrix())
    folded = {"input_layernorm": qkv.column_scales, "post_attention_layernorm": gate_up.column_scales}
    for name in norms(spec):
        weight, scales = source.norm(layer, name), folded.get(name)
        writer.add(f"{at}{name}.weight", (weight if scales is None else weight / scales).numpy())
