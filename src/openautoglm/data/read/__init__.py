"""Readers: files in many formats become a stream of examples and rejects."""

from openautoglm.data.read.paths import count_bytes, resolve
from openautoglm.data.read.reader import columns, read

__all__ = ["columns", "count_bytes", "read", "resolve"]
