"""The facts of one GLM architecture, as data.

Families: ``glm`` (GLM-4-9B-chat-hf, GLM-Edge; pre-norm) and ``glm4`` (GLM-4-0414; two more norms a layer,
before the residual adds). Both have grouped-query attention, interleaved rotary positions over the first
``rotary_factor * head_dim`` dimensions, a fused SwiGLU feed-forward without bias, and RMSNorm in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from openautoglm.core.errors import SpecError
from openautoglm.core.settings import Settings

_ARCHITECTURES = {"glm": "GlmForCausalLM", "glm4": "Glm4ForCausalLM"}
_PAD_VOCABULARY_TO = 8


class GlmSpec(Settings):
    """One architecture. Sizes are counts; everything else is derived.

    Attributes:
        vocab_size: rows of the embedding; a tokenizer may use fewer.
        ffn_size: width of the feed-forward (its first matrix is twice as wide: gate and up).
        rotary_factor: share of `head_dim` that turns with the position.
        tied: the head shares the embedding's weights.
        pad_id: the id of padding, whose embedding stays zero; None where there is none.
        eos_ids: ids that end a text.
    """

    family: Literal["glm", "glm4"] = "glm"
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    ffn_size: int = Field(gt=0)
    rotary_factor: float = Field(default=0.5, gt=0, le=1)
    rope_theta: float = Field(default=10000.0, gt=0)
    qkv_bias: bool = True
    rms_eps: float = Field(default=1e-5, gt=0)
    max_positions: int = Field(default=2048, gt=0)
    tied: bool = False
    pad_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> GlmSpec:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv heads evenly")
        rotary = self.head_dim * self.rotary_factor
        if rotary != int(rotary) or int(rotary) % 2:
            raise ValueError(f"rotary_factor x head_dim = {rotary:g} must be an even whole number")
        outside = [
            i
            for i in (*self.eos_ids, *([] if self.pad_id is None else [self.pad_id]))
            if not 0 <= i < self.vocab_size
        ]
        if outside:
            raise ValueError(f"ids {outside} lie outside the vocabulary of {self.vocab_size}")
        return self

    def with_vocabulary(self, size: int, *, pad_id: int | None, eos_ids: tuple[int, ...]) -> GlmSpec:
        """Return this spec for a tokenizer of `size` ids; rows are filled up to a multiple of eight."""
        padded = -(-size // _PAD_VOCABULARY_TO) * _PAD_VOCABULARY_TO
        return GlmSpec(**{**self.model_dump(), "vocab_size": padded, "pad_id": pad_id, "eos_ids": eos_ids})

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together; values have the same."""
        return self.kv_heads * self.head_dim

    @property
    def _layer_matrices(self) -> int:
        attention = 2 * self.hidden_size * (self.query_size + self.kv_size)
        return attention + 3 * self.hidden_size * self.ffn_size

    @property
    def body_parameters(self) -> int:
        """Parameters of the layers and the last norm, without embedding and head."""
        bias = self.query_size + 2 * self.kv_size if self.qkv_bias else 0
        norms = (4 if self.family == "glm4" else 2) * self.hidden_size
        return self.layers * (self._layer_matrices + bias + norms) + self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters; shared ones count once."""
        return self.body_parameters + self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def flops_per_token(self) -> int:
        """Floating point operations of one forward token, matrices only (two per weight)."""
        return 2 * (self.layers * self._layer_matrices + self.vocab_size * self.hidden_size)

    def training_flops_per_token(self, context: int = 0) -> int:
        """Operations of one token's forward and backward pass, attending to `context` tokens."""
        return 3 * (self.flops_per_token + 4 * self.layers * self.query_size * context)

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes that one token takes in the KV cache."""
        return 2 * self.layers * self.kv_size * bytes_per_value

    def inference_memory_bytes(
        self, *, tokens: int = 0, bytes_per_weight: float = 2.0, bytes_per_kv: int = 2
    ) -> int:
        """Bytes of weights and of a KV cache of `tokens` tokens."""
        return int(self.parameters * bytes_per_weight) + tokens * self.kv_bytes_per_token(bytes_per_kv)

    def training_memory_bytes(
        self,
        tokens_per_batch: int,
        *,
        bf16: bool = True,
        ema: bool = False,
        checkpointing: bool = False,
        trainable: int | None = None,
        state_bytes: float = 8.0,
        frozen_layers: int = 0,
    ) -> int:
        """Bytes at the peak of a training step: weights, gradients, AdamW's two states, kept activations.

        Args:
            tokens_per_batch: tokens of one forward pass, padding included.
            bf16: matrix products run in bf16 autocast (weights stay fp32, a bf16 copy is made).
            ema: a moving average of the weights is kept.
            checkpointing: only the inputs of the layers are kept; one layer is recomputed at a time.
            trainable: parameters that learn (LoRA, or not frozen); all when None.
            state_bytes: of AdamW's two moments, a parameter: 8 in fp32, about 2 in eight bits, 0 in files.
            frozen_layers: layers at the bottom that keep nothing.
        """
        learnt = self.parameters if trainable is None else trainable
        weights = int(self.parameters * (4 + (2 if bf16 else 0)) + learnt * (4 + state_bytes + (4 if ema else 0)))
        layer, layers = self._activation_bytes(2 if bf16 else 4), max(0, self.layers - frozen_layers)
        kept = layers * 4 * self.hidden_size + layer if checkpointing else layers * layer
        head = self.vocab_size * ((2 if bf16 else 4) + 8) + 12 * self.hidden_size
        return weights + tokens_per_batch * (kept + head)

    def frozen_parameters(self, layers: int, *, embeddings: bool) -> int:
        """Parameters of the lowest `layers` layers, and of the token embedding (with a head that shares it)."""
        one = (self.body_parameters - self.hidden_size) // self.layers
        return min(layers, self.layers) * one + (self.vocab_size * self.hidden_size if embeddings else 0)

    def _activation_bytes(self, width: int) -> int:
        """Bytes that a layer keeps of a token for the backward pass; `width` of a value in products.

        Counted from what autograd saves of transformers' classes: the norms before attention and feed-forward
        keep three fp32 rows each, the two that ``glm4`` adds one fp32 row and one of products.
        """
        norms = 24 * self.hidden_size + (2 * (4 + width) * self.hidden_size if self.family == "glm4" else 0)
        return norms + width * (3 * self.query_size + 2 * self.kv_size + 4 * self.ffn_size)

    def config(self) -> dict[str, Any]:
        """Return the content of transformers' ``config.json``."""
        return {
            "architectures": [_ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.ffn_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "attention_bias": self.qkv_bias,
            "initializer_range": 0.02,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_eps,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self.rope_theta,
                "partial_rotary_factor": self.rotary_factor,
            },
            "tie_word_embeddings": self.tied,
            "use_cache": True,
            "bos_token_id": None,  # nosec B105  # a token of text
            "pad_token_id": self.pad_id,
            "eos_token_id": list(self.eos_ids),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str = "config.json") -> GlmSpec:
        """Read the facts from transformers' configuration, old (``rope_theta`` at the top) or new.

        Raises:
            SpecError: the architecture is not one of ours, or the facts do not fit together.
        """
        _refuse_foreign(config, where)
        rope = {**config, **(config.get("rope_parameters") or config.get("rope_scaling") or {})}
        _refuse_variants(config, rope, where)
        facts = {
            **_RELEASED,
            **{key: value for key, value in config.items() if key == "pad_token_id" or value is not None},
        }
        eos = facts["eos_token_id"]
        try:
            return cls(
                family=facts["model_type"],
                vocab_size=facts["vocab_size"],
                hidden_size=facts["hidden_size"],
                layers=facts["num_hidden_layers"],
                heads=facts["num_attention_heads"],
                kv_heads=facts["num_key_value_heads"],
                head_dim=facts["head_dim"],
                ffn_size=facts["intermediate_size"],
                rotary_factor=rope.get("partial_rotary_factor", 0.5),
                rope_theta=rope.get("rope_theta", 10000.0),
                qkv_bias=facts["attention_bias"],
                rms_eps=facts["rms_norm_eps"],
                max_positions=facts["max_position_embeddings"],
                tied=facts["tie_word_embeddings"],
                pad_id=facts["pad_token_id"],
                eos_ids=(eos,) if isinstance(eos, int) else tuple(eos),
            )
        except KeyError as error:
            raise SpecError(
                f"lacks the key {error}", where=where, remedy="fetch the checkpoint's config.json again"
            ) from error
        except ValidationError as error:
            faults = "; ".join(fault["msg"] for fault in error.errors())
            raise SpecError(
                f"the facts do not fit together: {faults}",
                where=where,
                remedy="fetch the checkpoint's config.json again",
            ) from error


_RELEASED = {
    "num_key_value_heads": 2,
    "head_dim": 128,
    "rms_norm_eps": 1.5625e-07,
    "attention_bias": True,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "eos_token_id": [151329, 151336, 151338],
    "pad_token_id": 151329,  # nosec B105  # a token of text
}
"""What transformers takes for keys that a configuration leaves out."""


def _refuse_variants(config: Mapping[str, Any], rope: Mapping[str, Any], where: str) -> None:
    if rope.get("rope_type", rope.get("type", "default")) not in ("default", None):
        raise SpecError(f"scaled rotary positions ({rope.get('rope_type')}) are not supported", where=where,
                        remedy="use the checkpoint without position scaling")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise SpecError(f"activation {config['hidden_act']!r} is not supported", where=where,
                        remedy="use a GLM checkpoint, whose activation is silu")


def _refuse_foreign(config: Mapping[str, Any], where: str) -> None:
    kind = config.get("model_type")
    if kind in _ARCHITECTURES:
        return
    if kind == "chatglm" or "auto_map" in config:
        raise SpecError(
            "the checkpoint needs code of its own (remote code), which is never run",
            where=where,
            remedy="use the conversion for transformers, e.g. glm-4-9b-chat-hf in place of glm-4-9b-chat",
        )
    if kind in ("glm4_moe", "glm4_moe_lite"):
        raise SpecError(
            f"mixture-of-experts models ({kind}) are not supported yet",
            where=where,
            remedy="use a dense GLM: families glm and glm4",
        )
    raise SpecError(
        f"model type {kind!r} is not a GLM that we know",
        where=where,
        remedy="use a checkpoint of the families glm (GLM-4-9B-chat-hf, GLM-Edge) or glm4 (GLM-4-0414)",
    )
