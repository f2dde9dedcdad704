"""A norm and the one linear that reads it in one operator. Optional: `fuse_add_norm` usually saves more."""

from __future__ import annotations

from openautoglm.graph.fused import FusedNormLinear
from openautoglm.graph.pattern import Linear, RmsNorm
from openautoglm.graph.rewrite import ReplacePattern

fuse_norm_linear = ReplacePattern(pattern=RmsNorm() + Linear(), replacement=FusedNormLinear(), name="fuse_norm_linear")
