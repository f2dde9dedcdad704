"""Control group limits of version 1, version 2 and a mixture, from folders that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core import limits


def kernel(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


VERSION_2 = {
    "proc/self/cgroup": "0::/slice/box\n",
    "sys/fs/cgroup/slice/memory.max": "4000\n",
    "sys/fs/cgroup/slice/box/memory.max": "max\n",
    "sys/fs/cgroup/slice/memory.current": "3000\n",
    "sys/fs/cgroup/slice/memory.stat": "anon 1\ninactive_file 500\n",
    "sys/fs/cgroup/slice/box/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/slice/cpu.max": "max 100000\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/box\n4:memory:/box\n1:name=systemd:/\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "2000\n",
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "1500\n",
    "sys/fs/cgroup/memory/box/memory.stat": "total_inactive_file 100\n",
    "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n",
    "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(("files", "limit", "used", "cores"), [
    (VERSION_2, 4000, 2500, 1.5),
    (VERSION_1, 2000, 1400, 3.0),
    ({"proc/self/cgroup": "0::/\n"}, None, None, None),
    ({}, None, None, None),
], ids=["version 2", "version 1", "no limit", "no control groups"])
def test_the_smallest_limit_of_all_levels_counts(tmp_path: Path, files: dict[str, str], limit: int | None,
                                                 used: int | None, cores: float | None) -> None:
    root = kernel(tmp_path, files)
    assert limits.memory_limit_bytes(root) == limit
    assert limits.memory_used_bytes(root) == used
    assert limits.cpu_limit(root) == cores
