"""Tensors of a GLM as llama.cpp names them, with their shapes; architectures that llama.cpp cannot hold are refused.

The rotary pairs are neighbours in transformers' GLM and in llama.cpp's `chatglm` and `glm4` alike, so no row moves. Of
gate_up_proj the first half is the gate in both.
"""

from __future__ import annotations

from typing import NamedTuple

from openautoglm.core.errors import SpecError
from openautoglm.models.spec import GlmSpec

ARCHITECTURES = {"glm": "chatglm", "glm4": "glm4"}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_MATRICES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_MORE_NORMS = {"glm4": {"post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm"}}


class Renamed(NamedTuple):
    """A tensor: its name in the checkpoint, its name in GGUF, its shape."""

    source: str
    target: str
    shape: tuple[int, ...]

    @property
    def is_matrix(self) -> bool:
        """Whether it may be quantised; norms and biases stay in fp32."""
        return len(self.shape) == 2


def tensors_of(spec: GlmSpec) -> list[Renamed]:
    """Every tensor, in the order of the file.

    Raises:
        SpecError: llama.cpp has no architecture for it.
    """
    refuse_foreign(spec)
    hidden, vocabulary = spec.hidden_size, (spec.vocab_size, spec.hidden_size)
    found = [Renamed(EMBEDDING, "token_embd.weight", vocabulary)]
    for layer in range(spec.layers):
        found += _layer(spec, f"model.layers.{layer}.", f"blk.{layer}.")
    found.append(Renamed("model.norm.weight", "output_norm.weight", (hidden,)))
    if not spec.tied:
        found.append(Renamed(HEAD, "output.weight", vocabulary))
    return found


def _layer(spec: GlmSpec, source: str, target: str) -> list[Renamed]:
    hidden, query, kv = spec.hidden_size, spec.query_size, spec.kv_size
    shapes = {"self_attn.q_proj": (query, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
              "self_attn.o_proj": (hidden, query), "mlp.gate_up_proj": (2 * spec.ffn_size, hidden),
              "mlp.down_proj": (hidden, spec.ffn_size)}
    found = []
    for name, short in (_NORMS | _MORE_NORMS.get(spec.family, {})).items():
        found.append(Renamed(f"{source}{name}.weight", f"{target}{short}.weight", (hidden,)))
    for name, short in _MATRICES.items():
        found.append(Renamed(f"{source}{name}.weight", f"{target}{short}.weight", shapes[name]))
        if spec.qkv_bias and short in ("attn_q", "attn_k", "attn_v"):
            found.append(Renamed(f"{source}{name}.bias", f"{target}{short}.bias", shapes[name][:1]))
    return found


def refuse_foreign(spec: GlmSpec) -> None:
    """Refuse what llama.cpp would not load.

    Raises:
        SpecError: its architecture `chatglm` takes heads that are together as wide as the model.
    """
    if spec.family == "glm" and spec.query_size != spec.hidden_size:
        raise SpecError(f"llama.cpp's chatglm takes only models whose heads x head_dim is their width; here "
                        f"{spec.heads} x {spec.head_dim} = {spec.query_size}, not {spec.hidden_size}",
                        remedy="train a model of family glm4, or with head_dim = hidden_size / heads; "
                        "the other forms of export take it as it is")
