"""A plug-in of openautoglm: the operator ``sandwich_norm``, its kernels, and the rule that makes use of it."""
