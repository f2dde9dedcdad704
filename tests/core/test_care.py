"""What needs care on which machine, for a model of known size; and the profile that follows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from paper_machine import GIB_KB, limits, meminfo, paper, stat

from openautoglm.core.care import examine_model, profile_of
from openautoglm.core.hardware import Gpu, probe
from openautoglm.core.kernel import Kernel, look
from openautoglm.core.needs import RUN_MODELS, Demand, Finding

GIB = 1 << 30
MODEL = Demand(model="my model", target="native", weight_bytes=2 * GIB, work_bytes=GIB // 8, base_bytes=GIB // 8,
               token_bytes=1 << 17, page_tokens=16, cache_tokens=8192, longest=4096, connections=4096,
               pack="python -c pack", smaller={"--quantise int8": GIB, "--quantise int4": GIB // 2})
"""3.25 GiB: 2 of weights, 1 of cache."""


@pytest.fixture(autouse=True)
def of_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors and GPUs of this machine do not count."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr("openautoglm.core.hardware._gpus", lambda: ())


def examined(root: Path, demand: Demand = MODEL, **changes: str | None) -> dict[str, Finding]:
    paper(root, **changes)
    return {finding.name: finding for finding in examine_model(demand, probe(root), look(root))}


def test_a_good_machine_needs_no_care(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert profile_of(found.values(), MODEL) == {"program": {"cache_tokens": 8192, "threads": 4}, "process": {}}


CASES: list[tuple[str, str, dict[str, str | None], dict[str, Any], str, str]] = [
    # what, status, files, changes of the model, what is found, what mends it
    ("swap", "ok", {"proc/meminfo": meminfo(swap_gib=4, swap_free_gib=4)}, {}, "fits without it", ""),
    ("swap", "warning", {"proc/meminfo": meminfo(free_gib=3, swap_gib=4, swap_free_gib=4)}, {}, "would be swapped",
     "sudo swapoff -a"),
    ("swap", "warning", {"proc/meminfo": meminfo(swap_gib=4, swap_free_gib=1)}, {}, "memory was short",
     "MemorySwapMax=0"),
    ("swap", "ok", {"proc/meminfo": meminfo(swap_gib=4), "proc/self/cgroup": "0::/x\n",
                    "sys/fs/cgroup/x/memory.swap.max": "0\n"}, {}, "may use none", ""),
    ("swap", "ok", {}, {}, "none", ""),
    ("swappiness", "warning", {"proc/meminfo": meminfo(swap_gib=4, swap_free_gib=4)}, {}, "60",
     "sudo sysctl -w vm.swappiness=10"),
    ("swappiness", "ok", {"proc/meminfo": meminfo(swap_gib=4, swap_free_gib=4), "proc/sys/vm/swappiness": "5"}, {}, "5",
     ""),
    ("overcommit", "failure", {"proc/sys/vm/overcommit_memory": "2"}, {}, "3.0 GiB may still",
     "vm.overcommit_memory=0"),
    ("overcommit", "ok", {"proc/sys/vm/overcommit_memory": "2"}, {"cache_tokens": 512}, "strict", ""),
    ("overcommit", "failure", {}, {"cache_tokens": 1 << 18}, "32.0 GiB at once", ""),
    ("overcommit", "ok", {"proc/sys/vm/overcommit_memory": "1"}, {"cache_tokens": 1 << 18}, "always", ""),
    ("huge pages", "warning", {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"}, {}, "4 KiB",
     "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"),
    ("huge pages", "ok", {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"},
     {"weight_bytes": 1000, "cache_tokens": 16}, "too small", ""),
    ("reserved pages", "warning", {"proc/meminfo": meminfo(huge=1024)}, {}, "2.0 GiB", "vm.nr_hugepages=0"),
    ("memory pressure", "warning", {"proc/pressure/memory": "some avg10=35.00 avg60=0"}, {}, "35%", "ps aux"),
    ("CPU clock", "warning", {"sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq"}, {}, "kept slow",
     "echo performance | sudo tee"),
    ("CPU clock", "ok", {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
                         "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": None}, {}, "schedutil", ""),
    ("CPU quota", "warning", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000",
                              "sys/fs/cgroup/cpu.stat": "nr_throttled 1234"}, {"threads": 4},
     "stopped this group 1,234", ""),
    ("CPU quota", "warning", {"proc/self/cgroup": "3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
                              "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, {"threads": 2}, "1.5 processors",
     ""),
    ("CPU quota", "ok", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000"}, {"threads": 2}, "2.5",
     ""),
    ("CPU affinity", "warning", {"proc/self/status": "Cpus_allowed_list: 2-3"}, {"threads": 4}, "2 of 4", "taskset"),
    ("priority", "warning", {"proc/self/stat": stat(10)}, {}, "nice 10", "sudo renice -n 0"),
    ("priority", "warning", {}, {"nice": -5}, "-5 was asked for", "sudo nice -n -5"),
    ("priority", "ok", {"proc/self/status": "CapEff: ffffffffffffffff"}, {"nice": -5}, "-5 was asked for", ""),
    ("priority", "ok", {}, {"nice": 5}, "5 was asked for", ""),
    ("other load", "warning", {"proc/loadavg": "2.60 1 1 1/2 3"}, {}, "2.6 of 4 processors", "renice"),
    ("open files", "warning", {"proc/self/limits": limits("1024", "1048576")}, {}, "4,352 are needed",
     "ulimit -n 4352"),
    ("open files", "warning", {"proc/self/limits": limits("1024", "2048")}, {}, "2,048 is the most", "sudo tee"),
    ("open files", "ok", {"proc/self/limits": limits("unlimited", "unlimited")}, {}, "no limit", ""),
    ("memory limits", "warning", {"proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/memory.high": str(2 * GIB)}, {},
     "above 2.0 GiB", "MemoryHigh"),
    ("memory limits", "ok", {"proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/memory.max": str(8 * GIB)}, {}, "8.0 GiB",
     ""),
]


@pytest.mark.parametrize(("what", "status", "files", "changes", "says", "mends"), CASES,
                         ids=[f"{number}-{case[0]}-{case[1]}" for number, case in enumerate(CASES)])
def test_what_is_found_and_what_mends_it(tmp_path: Path, what: str, status: str, files: dict[str, str | None],
                                         changes: dict[str, Any], says: str, mends: str) -> None:
    finding = examined(tmp_path, replace(MODEL, **changes), **files)[what]
    assert (finding.status, says in finding.found) == (status, True), finding
    assert mends in "\n".join(finding.commands)
    assert bool(finding.remedy) == (status in ("warning", "failure"))
    assert finding.blocks == (RUN_MODELS if status == "failure" else ())


def test_where_nothing_can_be_read_nothing_is_claimed(tmp_path: Path) -> None:
    findings = examine_model(MODEL, probe(tmp_path), Kernel())
    unknown = {finding.name for finding in findings if finding.status == "unknown"}
    assert unknown == {"swap", "swappiness", "overcommit", "memory pressure", "huge pages", "reserved pages",
                       "locked memory", "CPU affinity", "NUMA", "CPU clock", "priority", "other load", "open files"}


@pytest.mark.parametrize(("free_gib", "changes", "status", "says", "settings"), [
    (12, {}, "ok", "3.2 GiB of 12.0 GiB free", {"program.cache_tokens": 8192}),
    (3.5, {}, "warning", "3.2 GiB of 3.5 GiB", {"program.cache_tokens": 3680}),
    (3, {"cache_tokens": 1 << 20}, "failure", "3.0 GiB free", {}),
    (3, {"packed": True}, "warning", "3.0 GiB free", {"program.load": "map", "program.cache_tokens": 8192}),
    (1.5, {"packed": True}, "warning", "1.5 GiB free", {"program.load": "map", "program.cache_tokens": 3680}),
    (0.5, {"packed": True}, "failure", "512.0 MiB free", {}),
    (12, {"packed": True, "load": "map"}, "ok", "free", {"program.load": "map", "program.cache_tokens": 8192}),
    (12, {"limit_bytes": 5 * GIB // 2}, "warning", "the limit is 2.5 GiB", {"program.cache_tokens": 2048}),
    (12, {"limit_bytes": GIB, "packed": True}, "warning", "the limit is 1.0 GiB",
     {"program.load": "stream", "program.cache_tokens": 512}),
    (12, {"limit_bytes": GIB}, "failure", "the limit is 1.0 GiB", {}),
], ids=["fits", "less cache", "too large", "mapped", "mapped with less cache", "hopeless",
        "map was asked for", "limit: less cache", "limit: streamed", "limit: too large"])
def test_whether_it_fits_and_what_would(tmp_path: Path, free_gib: float, changes: dict[str, Any], status: str,
                                        says: str, settings: dict[str, Any]) -> None:
    demand = replace(MODEL, **changes)
    found = examined(tmp_path, demand, **{"proc/meminfo": meminfo(free_gib=free_gib)})["model in memory"]
    assert (found.status, says in found.found, dict(found.settings)) == (status, True, settings), found


def test_what_does_not_fit_is_told_what_would(tmp_path: Path) -> None:
    found = examined(tmp_path, **{"proc/meminfo": meminfo(free_gib=0.75)})["model in memory"]
    assert "--quantise int4 takes 512.0 MiB" in found.remedy
    assert "int8" not in found.remedy
    assert found.commands == ("python -c pack",)
    small = replace(MODEL, limit_bytes=GIB // 4, smaller={})
    limited = examined(tmp_path / "limited", small)["model in memory"]
    assert "raise --memory-limit: 320.0 MiB are taken without any weights" in limited.remedy
    assert limited.commands == ()


def test_a_gpu_is_held_against_its_own_memory(tmp_path: Path) -> None:
    machine, demand = probe(paper(tmp_path)), replace(MODEL, target="torch:cuda")
    for gpus, status in (((), "unknown"), ((Gpu("A", 2 * GIB),), "failure"), ((Gpu("A", 8 * GIB),), "ok")):
        found = examine_model(demand, replace(machine, gpus=gpus), look(tmp_path))[0]
        assert found.status == status


def two_nodes(free_gib: int, allowed: str = "0-3") -> dict[str, str]:
    node = "sys/devices/system/node/node"
    return {f"{node}0/cpulist": "0-1\n", f"{node}1/cpulist": "2-3\n",
            "proc/self/status": f"Cpus_allowed_list: {allowed}",
            f"{node}0/meminfo": f"Node 0 MemFree: {GIB_KB} kB\n",
            f"{node}1/meminfo": f"Node 1 MemFree: {free_gib * GIB_KB} kB\n"}


def test_a_model_stays_on_the_node_that_has_room(tmp_path: Path) -> None:
    found = examined(tmp_path / "room", **two_nodes(5))
    assert found["NUMA"].settings == {"process.cpus": [2, 3], "program.threads": 2}
    assert "--cpunodebind=1" in found["NUMA"].commands[0]
    assert profile_of(found.values(), MODEL)["program"]["threads"] == 2
    spread = examined(tmp_path / "spread", **two_nodes(2))["NUMA"]
    assert (spread.status, dict(spread.settings), "--interleave=all" in spread.commands[0]) == ("warning", {}, True)
    assert examined(tmp_path / "one", **two_nodes(2, "2"))["NUMA"].status == "ok"


def test_the_profile_takes_the_fewest_threads_and_what_was_asked_for(tmp_path: Path) -> None:
    demand = replace(MODEL, threads=16, nice=3, limit_bytes=4 * GIB)
    found = examined(tmp_path, demand, **{
        "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000",
        "proc/self/limits": limits("256", "1000"), "proc/self/status": "Cpus_allowed_list: 0-1"})
    profile = profile_of(found.values(), demand)
    assert profile["program"] == {"cache_tokens": 8192, "threads": 2, "memory_limit": 4 * GIB}
    assert profile["process"] == {"nice": 3, "open_files": 1000, "data_bytes": 5 * GIB + (16 << 20)}
    assert "data_bytes" not in profile_of(found.values(), replace(demand, target="torch:cpu"))["process"]


def test_verbs_that_are_no_servers_need_no_connections(tmp_path: Path) -> None:
    assert "open files" not in examined(tmp_path, replace(MODEL, connections=0))
