"""Readers: files in many formats become a stream of examples and rejects."""

from openautoglm.data.read.paths import count_bytes, resolve
from openautoglm.data.read.reader import columns, read
from openautoglm.data.read.rejects import RejectLog, read_checked
from openautoglm.data.read.sample import Sample, sample

__all__ = ["RejectLog", "Sample", "columns", "count_bytes", "read", "read_checked", "resolve", "sample"]
