"""Memory, and a model of known size: does it fit, would it swap, may it be promised, on which pages does it lie."""

from __future__ import annotations

import shlex

from openautoglm.core.hardware import GIB, Machine
from openautoglm.core.kernel import UNLIMITED, Kernel
from openautoglm.core.needs import RUN_MODELS, Demand, Finding

MIB = 1 << 20
CALM_SWAPPINESS = 10
HUGE_FROM_BYTES = 16 * MIB
"""Blocks from here on ask for huge pages."""
_RESERVE_SHARE, _LEAST_RESERVE = 0.05, 256 * MIB
_SWAPPED_SHARE = 0.1
_PRESSURE = 0.1


def size(amount: float) -> str:
    """Bytes for people: GiB, below one MiB."""
    return f"{amount / GIB:.1f} GiB" if amount >= GIB else f"{amount / MIB:.1f} MiB"


def room_bytes(machine: Machine) -> int:
    """What a model may take of the free memory: all but a twentieth of the machine's, and at least 256 MiB."""
    return machine.available_bytes - int(max(machine.memory_bytes * _RESERVE_SHARE, _LEAST_RESERVE))


def fits(demand: Demand, machine: Machine) -> Finding:
    """Whether the model fits into free memory; what it would fit with where it does not."""
    if demand.target.startswith("torch:cuda"):
        return _on_gpu(demand, machine)
    room, limit = room_bytes(machine), demand.limit_bytes
    parts = (f"weights {size(demand.weight_bytes)}, cache {size(demand.cache_bytes)} ({demand.cache_tokens:,} tokens), "
             f"work {size(demand.work_bytes)}, process {size(demand.base_bytes)}: {size(demand.process_bytes)} of "
             f"{size(machine.available_bytes)} free")
    if limit is not None:
        parts += f", the limit is {size(limit)}"
        room = min(room, limit)
    if demand.load == "map" and demand.packed:
        return _mapped(demand, machine, parts, room)
    if demand.process_bytes <= room:
        return Finding("model in memory", "ok", parts, settings={"program.cache_tokens": demand.cache_tokens})
    tokens = (room - demand.fixed_bytes) // max(demand.token_bytes, 1) // demand.page_tokens * demand.page_tokens
    if tokens >= demand.least_tokens:
        return Finding("model in memory", "warning", parts, f"a cache of {tokens:,} tokens fits"
                       + (f", not the {demand.cache_tokens:,} that were asked for" if demand.cache_asked else ""),
                       settings={"program.cache_tokens": tokens})
    if demand.packed and limit is not None and demand.load == "auto":
        return Finding("model in memory", "warning", parts, "its weights are streamed from the packed file, as far as "
                       "they do not fit: each step reads them again, at the disk's speed",
                       settings={"program.load": "stream", "program.cache_tokens": demand.least_tokens})
    if demand.packed:
        return _mapped(demand, machine, parts, room)
    return _too_large(demand, machine, parts)


def _mapped(demand: Demand, machine: Machine, parts: str, room: int) -> Finding:
    """Weights are read from their file as they are used: all of them in each step, so they should stay cached."""
    held = demand.process_bytes - demand.weight_bytes
    tokens = demand.cache_tokens
    if held > room:
        tokens = (room - held + demand.cache_bytes) // max(demand.token_bytes, 1)
        tokens = tokens // demand.page_tokens * demand.page_tokens
        if tokens < demand.least_tokens:
            return _too_large(demand, machine, parts)
    slow = held + demand.weight_bytes > room
    return Finding("model in memory", "warning" if slow else "ok", parts,
                   "its packed file must be mapped, not copied; what does not stay in memory is read again in each "
                   "step, at the disk's speed" if slow else "",
                   settings={"program.load": "map", "program.cache_tokens": tokens})


def _too_large(demand: Demand, machine: Machine, parts: str) -> Finding:
    """Not even a small cache fits: say what would."""
    most = min(machine.available_bytes, demand.limit_bytes or machine.available_bytes)
    without = demand.work_bytes + demand.base_bytes + demand.least_tokens * demand.token_bytes
    ways = [f"{how} takes {size(taken)}" for how, taken in demand.smaller.items() if taken <= most]
    commands: tuple[str, ...] = ()
    if demand.pack and not demand.packed and without < most:
        ways.append("map a packed file of its weights")
        commands = (demand.pack,)
    if demand.limit_bytes is not None and demand.limit_bytes < machine.available_bytes:
        ways.append(f"raise --memory-limit: {size(without)} are taken without any weights" if without >= most
                    else "raise --memory-limit")
    ways.append("end other programs, raise the container's limit, or take a smaller model")
    return Finding("model in memory", "failure", parts, f"it does not fit: {'; or '.join(ways)}", RUN_MODELS, commands)


def _on_gpu(demand: Demand, machine: Machine) -> Finding:
    taken = demand.process_bytes - demand.base_bytes
    parts = f"weights {size(demand.weight_bytes)}, cache {size(demand.cache_bytes)}, work {size(demand.work_bytes)}"
    most = max((gpu.memory_bytes for gpu in machine.gpus), default=None)
    if most is None:
        return Finding("model in memory", "unknown", f"{parts}; the GPU's memory is not known")
    found = f"{parts}: {size(taken)} of the GPU's {size(most)}"
    if taken <= most:
        return Finding("model in memory", "ok", found)
    return Finding("model in memory", "failure", found, "give fewer --cache-tokens, or quantise", RUN_MODELS)


def group(demand: Demand, machine: Machine, kernel: Kernel) -> Finding:
    """The control group's limits."""
    high = kernel.group_high_bytes
    if high is not None and high < demand.process_bytes:
        return Finding("memory limits", "warning", f"above {size(high)} the control group slows this process down, it "
                       f"takes {size(demand.process_bytes)}", "raise memory.high of the group (systemd: MemoryHigh)",
                       commands=("sudo systemctl set-property --runtime UNIT MemoryHigh=infinity",))
    if machine.limit_bytes is None:
        found = "no memory limit; one keeps other programs safe from this one"
        most = f"-p MemoryMax={-(-demand.process_bytes * 5 // 4 // MIB)}M -p MemorySwapMax=0"
        return Finding("memory limits", "ok", found, commands=(f"systemd-run --user --scope {most} {served(demand)}",))
    return Finding("memory limits", "ok", f"memory limit {size(machine.limit_bytes)}")


def swap(demand: Demand, machine: Machine, kernel: Kernel) -> Finding:
    """Whether the model could be swapped out; its weights are used in each step, so a swapped model crawls."""
    if kernel.swap_bytes is None:
        return Finding("swap", "unknown", "the system does not say")
    if kernel.swap_bytes == 0:
        return Finding("swap", "ok", "none: where memory ends, processes are killed, none is slowed down")
    if kernel.group_swap_bytes == 0:
        return Finding("swap", "ok", "this control group may use none")
    used = kernel.swap_bytes - (kernel.swap_free_bytes or 0)
    found = f"{size(kernel.swap_bytes)}, {size(used)} in use"
    commands = ("sudo swapoff -a", f"systemd-run --user --scope -p MemorySwapMax=0 {served(demand)}")
    if demand.process_bytes > room_bytes(machine):
        return Finding("swap", "warning", f"{found}; the model does not fit beside what runs, so it would be swapped",
                       "keep it out of swap, so that it is refused and not slow", commands=commands)
    if used > _SWAPPED_SHARE * kernel.swap_bytes and used > _LEAST_RESERVE:
        return Finding("swap", "warning", f"{found}: memory was short already", "keep the model out of swap",
                       commands=commands)
    return Finding("swap", "ok", f"{found}; the model fits without it")


def swappiness(kernel: Kernel) -> Finding:
    """How eagerly memory that nobody has used lately is swapped out, e.g. a model at night."""
    value = kernel.swappiness
    if value is None:
        return Finding("swappiness", "unknown", "the system does not say")
    if not kernel.swap_bytes or kernel.group_swap_bytes == 0:
        return Finding("swappiness", "ok", f"{value}, without effect: there is no swap")
    if value <= CALM_SWAPPINESS:
        return Finding("swappiness", "ok", str(value))
    return Finding("swappiness", "warning", f"{value}: a model that idles is swapped out, its first answers are slow",
                   f"{CALM_SWAPPINESS} or less swaps only where memory is short", commands=(
                       f"sudo sysctl -w vm.swappiness={CALM_SWAPPINESS}",
                       f"echo vm.swappiness={CALM_SWAPPINESS} | sudo tee /etc/sysctl.d/90-autoglm.conf"))


def overcommit(demand: Demand, kernel: Kernel) -> Finding:
    """Whether the kernel promises the memory that the model asks for; cache and stacks are asked for whole."""
    mode = kernel.overcommit
    if mode is None:
        return Finding("overcommit", "unknown", "the system does not say")
    if mode == 2 and kernel.commit_limit_bytes is not None and kernel.committed_bytes is not None:
        left = kernel.commit_limit_bytes - kernel.committed_bytes
        found = f"strict (2): {size(max(left, 0))} may still be promised, the model takes {size(demand.process_bytes)}"
        if left < demand.process_bytes:
            return Finding("overcommit", "failure", found, "let the kernel promise more", RUN_MODELS,
                           ("sudo sysctl -w vm.overcommit_memory=0",))
        return Finding("overcommit", "ok", found)
    largest = max(demand.weight_bytes, demand.cache_bytes)
    if mode == 0 and kernel.memory_bytes is not None and largest > kernel.memory_bytes + (kernel.swap_bytes or 0):
        return Finding("overcommit", "failure", f"as a rule (0): {size(largest)} at once are more than memory "
                       "and swap", "take less cache, or a smaller model", RUN_MODELS)
    return Finding("overcommit", "ok", {0: "as a rule (0)", 1: "always (1)"}.get(mode, f"strict ({mode})"))


def huge_pages(demand: Demand, kernel: Kernel) -> Finding:
    """Weights and cache ask for pages of 2 MiB (`madvise`), which spares a step most of its address look-ups."""
    mode = kernel.huge_pages
    if mode is None:
        return Finding("huge pages", "unknown", "the system does not say")
    if mode != "never":
        return Finding("huge pages", "ok", f"transparent: {mode}; weights and cache get them where they ask")
    if max(demand.weight_bytes, demand.cache_bytes) < HUGE_FROM_BYTES:
        return Finding("huge pages", "ok", "transparent: never; blocks of this model are too small to ask for them")
    return Finding("huge pages", "warning", "transparent: never; weights and cache lie on pages of 4 KiB",
                   "madvise gives them to those that ask", commands=(
                       "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",))


def reserved(kernel: Kernel) -> Finding:
    """Huge pages that were reserved by hand: the engine uses none of those, so the memory is lost for it."""
    amount = kernel.reserved_bytes
    if amount is None or kernel.memory_bytes is None:
        return Finding("reserved pages", "unknown", "the system does not say")
    if amount <= _RESERVE_SHARE * kernel.memory_bytes:
        return Finding("reserved pages", "ok", size(amount) if amount else "none")
    return Finding("reserved pages", "warning", f"{size(amount)} in huge pages that nobody uses",
                   "give them back, unless another program counts on them",
                   commands=("sudo sysctl -w vm.nr_hugepages=0",))


def pressure(kernel: Kernel) -> Finding:
    """Whether processes wait for memory now."""
    if kernel.pressure is None:
        return Finding("memory pressure", "unknown", "the system does not say")
    if kernel.pressure < _PRESSURE:
        return Finding("memory pressure", "ok", f"{kernel.pressure:.0%} of the last ten seconds")
    return Finding("memory pressure", "warning", f"processes waited for memory in {kernel.pressure:.0%} of the last "
                   "ten seconds", "end other programs first", commands=("ps aux --sort=-rss | head",))


def locked(demand: Demand, kernel: Kernel) -> Finding:
    """The engine locks no pages, so the limit binds nobody; told, because people look for it."""
    if kernel.locked is None:
        return Finding("locked memory", "unknown", "the system does not say")
    soft = "any" if kernel.locked.soft == UNLIMITED else size(kernel.locked.soft)
    return Finding("locked memory", "ok", f"{soft} may be locked; {demand.target} locks none")


def served(demand: Demand) -> str:
    """The command that serves this model."""
    return f"autoglm serve {shlex.quote(demand.model)}"
