"""From a spec to the graph of its decoder, operator by operator, nothing fused. Rules make it fast later."""

from __future__ import annotations

from openautoglm.graph.ir import Attribute, Graph, TensorType, Value
from openautoglm.graph.sources import Rows, Tensor
from openautoglm.models.spec import GlmSpec


def build(spec: GlmSpec, *, head: bool = True) -> Graph:
    """Build the decoder of `spec`.

    Inputs: ``ids`` and ``positions`` int32 [rows], ``layout``, ``wanted`` int32 [wanted], the numbers of the rows whose
    logits are asked for. Output: logits fp32 [wanted, vocab_size]; without a head the final hidden states, after the
    last norm, fp32 [wanted, hidden_size].
    """
    graph = Graph()
    ids, positions = (graph.add_input(name, TensorType("int32", ("rows",))) for name in ("ids", "positions"))
    layout = graph.add_input("layout", TensorType("layout"))
    wanted = graph.add_input("wanted", TensorType("int32", ("wanted",)))
    table = _weight(graph, "model.embed_tokens.weight", spec.vocab_size, spec.hidden_size)
    x = graph.apply("embedding", ids, table, name="embedded")
    for number in range(spec.layers):
        x = _Layer(graph, spec, number).build(x, positions, layout)
    x = graph.apply("rms_norm", x, _weight(graph, "model.norm.weight", spec.hidden_size), name="norm", eps=spec.rms_eps)
    name = "hidden"
    if head:
        matrix = table if spec.tied else _weight(graph, "lm_head.weight", spec.vocab_size, spec.hidden_size)
        x, name = graph.apply("linear", x, matrix, name="logits_of_rows"), "logits"
    graph.outputs = [graph.apply("gather_rows", x, wanted, name=name)]
    graph.verify()
    return graph


def _weight(graph: Graph, name: str, *shape: int) -> Value:
    return graph.weight(name, TensorType("fp32", shape), Tensor(name))


class _Layer:
    """One decoder layer."""

    def __init__(self, graph: Graph, spec: GlmSpec, number: int) -> None:
        self.graph, self.spec, self.number = graph, spec, number
        self.prefix = f"model.layers.{number}"

    def build(self, x: Value, positions: Value, layout: Value) -> Value:
        """The residual stream [rows, hidden] before the layer to the one after it."""
        sandwich = self.spec.family == "glm4"
        attended = self._attention(self._norm(x, "input_layernorm"), positions, layout)
        if sandwich:
            attended = self._norm(attended, "post_self_attn_layernorm")
        x = self._apply("add", x, attended, name="after_attention")
        fed = self._feed_forward(self._norm(x, "post_attention_layernorm"))
        if sandwich:
            fed = self._norm(fed, "post_mlp_layernorm")
        return self._apply("add", x, fed, name="after_mlp")

    def _attention(self, x: Value, positions: Value, layout: Value) -> Value:
        s = self.spec
        widths = {"q": s.query_size, "k": s.kv_size, "v": s.kv_size}
        q, k, v = (self._linear(x, f"self_attn.{name}_proj", width, s.hidden_size, bias=s.qkv_bias)
                   for name, width in widths.items())
        q, k = (self._apply("rotary", value, positions, name=f"{name}_turned", head_dim=s.head_dim,
                            rotary_dims=int(s.head_dim * s.rotary_factor), theta=s.rope_theta)
                for name, value in (("q", q), ("k", k)))
        mixed = self._apply("paged_attention", q, k, v, layout, name="attention", layer=self.number, heads=s.heads,
                            kv_heads=s.kv_heads, head_dim=s.head_dim)
        return self._linear(mixed, "self_attn.o_proj", s.hidden_size, s.query_size)

    def _feed_forward(self, x: Value) -> Value:
        s, fused = self.spec, f"{self.prefix}.mlp.gate_up_proj.weight"
        gate, up = (self.graph.apply("linear", x, self.graph.weight(
            f"{fused}.{name}", TensorType("fp32", (s.ffn_size, s.hidden_size)),
            Rows(Tensor(fused), place * s.ffn_size, (place + 1) * s.ffn_size)), name=f"{self.prefix}.{name}")
            for place, name in enumerate(("gate", "up")))
        hidden = self._apply("mul", self._apply("silu", gate, name="gate_silu"), up, name="gated")
        return self._linear(hidden, "mlp.down_proj", s.hidden_size, s.ffn_size)

    def _linear(self, x: Value, name: str, out: int, into: int, *, bias: bool = False) -> Value:
        weights = [_weight(self.graph, f"{self.prefix}.{name}.weight", out, into)]
        if bias:
            weights.append(_weight(self.graph, f"{self.prefix}.{name}.bias", out))
        return self._apply("linear", x, *weights, name=name)

    def _norm(self, x: Value, name: str) -> Value:
        return self._apply("rms_norm", x, _weight(self.graph, f"{self.prefix}.{name}.weight", self.spec.hidden_size),
                           name=name, eps=self.spec.rms_eps)

    def _apply(self, operator: str, *inputs: Value, name: str, **attributes: Attribute) -> Value:
        return self.graph.apply(operator, *inputs, name=f"{self.prefix}.{name}", before=None, **attributes)
