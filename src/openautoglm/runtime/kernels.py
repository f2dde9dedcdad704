"""Which function runs an operator on a target. Kernels register themselves; plug-ins do it through entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from openautoglm.core.errors import GraphError
from openautoglm.core.plugins import load_plugins
from openautoglm.graph.ir import Attribute

K = TypeVar("K")
GROUP = "openautoglm.kernels"
"""Entry points of plug-in kernels: each names a module (or function) whose import registers kernels."""
Kernel = Callable[[Sequence[Any], Mapping[str, Attribute], Any], Sequence[Any]]
"""Takes inputs, attributes and the program's context (its KV cache), gives the outputs. A kernel of the target `native`
is none of these but a ``PyCapsule``: see ``runtime/include/autoglm_kernel.h``."""

_KERNELS: dict[tuple[str, str], Any] = {}
_plugins_loaded = False


def register_kernel(operator: str, target: str) -> Callable[[K], K]:
    """Decorate the function that runs `operator` on ``torch``; called with the capsule of one on ``native``.

    Raises:
        GraphError: another function has that place.
    """
    def register(kernel: K) -> K:
        if _KERNELS.setdefault((operator, target), kernel) is not kernel:
            raise GraphError(f"there is a {target} kernel of {operator!r} already", remedy="register it once")
        return kernel

    return register


def kernel_of(operator: str, target: str) -> Any:
    """Return the kernel of an operator on a target, plug-ins included.

    Raises:
        GraphError: there is none.
        PluginError: an installed plug-in does not load.
    """
    global _plugins_loaded
    if (operator, target) not in _KERNELS and not _plugins_loaded:
        _plugins_loaded = True
        load_plugins(GROUP)
    found = _KERNELS.get((operator, target))
    if found is None:
        raise GraphError(f"the operator {operator!r} has no {target} kernel",
                         remedy=f"register one with register_kernel({operator!r}, {target!r})")
    return found
