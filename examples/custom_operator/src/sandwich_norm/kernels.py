"""The kernels. Importing this module registers them; it takes no torch, so a server without torch can do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openautoglm.graph.ir import Attribute
from openautoglm.runtime.kernels import register_kernel

try:
    from sandwich_norm import _native
except ImportError:  # there was no compiler when the package was installed
    pass
else:
    register_kernel("sandwich_norm", "native")(_native.kernel)


@register_kernel("sandwich_norm", "torch")
def sandwich_norm(inputs: Sequence[Any], attributes: Mapping[str, Attribute], context: Any) -> list[Any]:
    """The sum and its norm; norms in fp32, everything given back in the type of x."""
    x, y, inner, outer = inputs
    total = x + _normed(y, inner, attributes["eps"]).to(x.dtype)
    return [total, _normed(total, outer, attributes["eps"]).to(x.dtype)]


def _normed(x: Any, weight: Any, eps: Any) -> Any:
    exact = x.float()
    return exact * exact.square().mean(-1, keepdim=True).add(eps).rsqrt() * weight
