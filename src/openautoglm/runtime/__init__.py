"""Programs: graphs made ready to step on a target."""

from __future__ import annotations

from openautoglm.runtime.kernels import register_kernel

__all__ = ["register_kernel"]
