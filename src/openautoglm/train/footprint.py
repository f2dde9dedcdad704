"""How much memory training takes, from its settings alone: what stays, what comes and goes, what a checkpoint adds.

Counted from the tensors that the walk of `train.forward` keeps for the backward pass; tests hold it to autograd.
``check``, ``estimate`` and the search take the same figures. `GlmSpec.training_memory_bytes` is the rough rule by which
a size is chosen, before there is a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from openautoglm.models.spec import GlmSpec
from openautoglm.train.settings import TrainSettings

HOLES = 1.17
"""What the C library's allocator takes for pieces of many sizes that come and go, beside their own bytes: the holes
between pieces that stay. Measured at 1.14 to 1.19, over depths and widths."""
_CHUNK_BYTES = 8 << 20
"""Of the logits that are held at a time (`train.objective`), and how many such pieces there are."""
_CHUNKS = 3
_VALIDATION_TOKENS = 4096
_EIGHT_BIT_WORK = 12 << 20


@dataclass(frozen=True)
class Step:
    """The largest forward pass of a run.

    Attributes:
        tokens: rows that are computed, padding included.
        needed: those of them that predict a target.
        blocks: groups of rows of one width.
    """

    tokens: int
    needed: int
    blocks: int = 1


@dataclass(frozen=True)
class Training:
    """What is trained, and how.

    Attributes:
        bf16: matrix products run in bf16 autocast.
        adapters: parameters of low-rank adapters, which alone learn then; 0: there are none.
        saves: checkpoints and the best weights are written to disk; else the best weights stay in memory.
        validates: there is a validation set.
        background: checkpoints are written while training goes on, not only at its end.
    """

    spec: GlmSpec
    settings: TrainSettings
    step: Step
    bf16: bool = False
    dropout: float = 0.0
    adapters: int = 0
    saves: bool = True
    validates: bool = True
    background: bool = True

    @property
    def learnt(self) -> int:
        """Parameters that learn."""
        trainable: int | None = self.settings.memory(self.spec).get("trainable")
        return self.adapters or (self.spec.parameters if trainable is None else trainable)

    @property
    def frozen_layers(self) -> int:
        """Layers at the bottom that keep nothing."""
        found: int = self.settings.memory(self.spec).get("frozen_layers", 0)
        return 0 if self.adapters else min(found, self.spec.layers)


def lora_parameters(spec: GlmSpec, rank: int, targets: str | tuple[str, ...]) -> int:
    """Parameters of low-rank adapters; module names other than those of the layers count nothing."""
    hidden, q, kv, ffn = spec.hidden_size, spec.query_size, spec.kv_size, spec.ffn_size
    sizes = {"q_proj": hidden + q, "k_proj": hidden + kv, "v_proj": hidden + kv, "o_proj": q + hidden,
             "gate_up_proj": hidden + 2 * ffn, "down_proj": ffn + hidden}
    names = {"all": tuple(sizes), "attention": tuple(sizes)[:4]}.get(str(targets), targets)
    return rank * spec.layers * sum(sizes.get(name, 0) for name in names)


def footprint(training: Training) -> dict[str, dict[str, int]]:
    """Bytes of each part at the moments that may be the worst, without interpreter and libraries.

    Returns:
        By moment (``step``, ``validation``, ``checkpoint``, ``end``), by part.
    """
    spec, settings, learnt = training.spec, training.settings, training.learnt
    adapters = 4 * training.adapters
    state = 0.0 if settings.offload else 2.05 if settings.optimiser_state == "8bit" else 8.0
    held = {"weights": 4 * spec.parameters + adapters, "gradients": 4 * learnt, "optimiser state": int(state * learnt),
            "averaged weights": 4 * learnt if settings.ema_decay is not None else 0}
    mapped = 8 if settings.optimiser_state == "fp32" else 2.05
    if settings.offload:
        held["optimiser state, in mapped files"] = int(mapped * learnt)
    passing = activations(training)
    moments = {"step": held | passing}
    if training.validates:
        free = sum(passing.values()) // 2  # holes that a step has left, where large pieces find room
        parts = {"validation": _validation(training), "weights set aside": held["averaged weights"]}
        moments["validation"] = held | passing | {"validation": max(0, sum(parts.values()) - free)}
    if training.saves and training.background:
        copies = 4 * learnt + held["averaged weights"] + int(mapped * learnt)
        moments["checkpoint"] = held | passing | {"copies for a checkpoint": copies}
    if training.validates:
        best = {"best weights, read from disk" if training.saves else "best weights": 4 * learnt}
        moments["end"] = held | passing | best
    return {moment: {name: size for name, size in parts.items() if size} for moment, parts in moments.items()}


def activations(training: Training) -> dict[str, int]:
    """What a step takes beside weights, gradients and states: kept for the backward pass, and passing."""
    spec, step = training.spec, training.step
    full, last = kept_values(training)
    layers = spec.layers - training.frozen_layers
    width = 2 if training.bf16 else 4
    working = width * 5 * spec.ffn_size + 12 * spec.hidden_size
    if training.adapters:  # a matrix' output, what the adapter adds, that scaled, and the sum
        working = max(working, width * 8 * spec.ffn_size)
    share = step.needed / step.tokens
    last_layer = last[0] + share * last[1]
    embedded = 4 * spec.hidden_size * (2 if training.dropout else 1)
    per_token: float
    if training.settings.gradient_checkpointing:
        per_token = layers * 4 * spec.hidden_size + full + working
    else:
        per_token = (layers - 1) * full + max(last_layer, min(full, working))
    if layers and training.frozen_layers:
        embedded += 4 * spec.hidden_size
    kept = HOLES * step.tokens * (per_token + embedded)
    copied = 0 if training.adapters else layers * width * spec.hidden_size * (spec.query_size + 2 * spec.kv_size)
    if training.bf16:
        copied += 2 * spec.parameters
    chunk = max(32 * 4 * spec.vocab_size, _CHUNK_BYTES)
    chunk = min(chunk, max(32, step.needed) * 4 * spec.vocab_size)
    head = _CHUNKS * chunk + (0 if training.adapters else 4 * spec.vocab_size * spec.hidden_size)
    work = _EIGHT_BIT_WORK if training.settings.optimiser_state == "8bit" else 0
    return {"activations": int(kept), "copies of weights": copied, "logits and the head's gradient": head,
            "work space of the optimiser": work}


def kept_values(training: Training) -> tuple[int, tuple[int, int]]:
    """Bytes a token that a layer keeps for the backward pass.

    Returns:
        Of a layer; and of the last one, at all rows and at those that predict a target.
    """
    spec = training.spec
    hidden, query, kv, ffn = spec.hidden_size, spec.query_size, spec.kv_size, spec.ffn_size
    width = 2 if training.bf16 else 4
    copied_out = spec.heads > spec.kv_heads > 1  # keys and values are written out for all heads, else q, k, v stay
    attention = 3 * query if copied_out else 2 * query + 3 * kv
    mixed = query * (2 if training.step.blocks > 1 else 1)
    noise = width * hidden if training.dropout else 0
    norm = 4 * hidden + width * hidden
    before = norm + width * (attention + mixed)
    after = norm + width * 3 * ffn + 2 * noise + (2 * width * hidden if spec.family == "glm4" else 0)
    return before + after, (before, after + width * query + 4 * hidden)


def _validation(training: Training) -> int:
    """What a forward pass over the validation set takes; nothing is kept there."""
    spec, width = training.spec, 2 if training.bf16 else 4
    wide = (8 if training.adapters else 3) * spec.ffn_size
    passing = 4 * 3 * spec.hidden_size + width * max(wide, 2 * spec.query_size + 3 * spec.kv_size)
    return int(HOLES * _VALIDATION_TOKENS * passing) + _CHUNKS * max(_CHUNK_BYTES, 128 * spec.vocab_size)
