"""Names and shapes of the weights of a spec, as checkpoints hold them; known without torch."""

from __future__ import annotations

from openautoglm.models.spec import GlmSpec


def weight_shapes(spec: GlmSpec) -> dict[str, tuple[int, ...]]:
    """Each tensor of a checkpoint of `spec` by its name, in the order of a step; a shared head is not listed."""
    hidden = spec.hidden_size
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab_size, hidden)}
    norms = ["input_layernorm", "post_attention_layernorm"]
    if spec.family == "glm4":
        norms += ["post_self_attn_layernorm", "post_mlp_layernorm"]
    widths = {"q": spec.query_size, "k": spec.kv_size, "v": spec.kv_size}
    for layer in range(spec.layers):
        front = f"model.layers.{layer}"
        for name, width in widths.items():
            found[f"{front}.self_attn.{name}_proj.weight"] = (width, hidden)
            if spec.qkv_bias:
                found[f"{front}.self_attn.{name}_proj.bias"] = (width,)
        found[f"{front}.self_attn.o_proj.weight"] = (hidden, spec.query_size)
        found[f"{front}.mlp.gate_up_proj.weight"] = (2 * spec.ffn_size, hidden)
        found[f"{front}.mlp.down_proj.weight"] = (hidden, spec.ffn_size)
        found.update({f"{front}.{name}.weight": (hidden,) for name in norms})
    found["model.norm.weight"] = (hidden,)
    if not spec.tied:
        found["lm_head.weight"] = (spec.vocab_size, hidden)
    return found
