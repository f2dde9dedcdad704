"""The decoder as a small graph of typed operators, and the rules that rewrite it."""

from __future__ import annotations

from openautoglm.graph.build import build
from openautoglm.graph.ir import Graph, Node, TensorType, Value
from openautoglm.graph.operators import register_operator

__all__ = ["Graph", "Node", "TensorType", "Value", "build", "register_operator"]
