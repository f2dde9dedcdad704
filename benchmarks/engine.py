"""The engine's speed beside its peers': the same random weights, the same threads, each at its best settings.

    python benchmarks/engine.py --prepare                 # environments and models, once; needs PyPI and a compiler
    python benchmarks/engine.py --shapes S E --repeats 3 --out engine.json

Peers are transformers, llama.cpp and OpenVINO GenAI, each in an environment of its own below `--work`. Every
measurement is a process of its own that loads the model, so that load times and memory are of every run; engines take
turns, so that what else the machine does hits all of them. Settings of a peer compete in a trial first, which is kept
for later runs (`--trial` makes it again). Tables in Markdown are printed at the end, records go to `--out`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

from peers.catalogue import VARIANTS, Variant, variants_of
from peers.environments import versions
from peers.launch import Launcher, Record
from peers.limits import Limits, measure
from peers.prepare import prepare
from peers.report import Book, write_report
from peers.rounds import Schedule, choose, load_choice, run_round, run_trial, save_choice
from peers.shapes import SHAPES

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "openautoglm" / "bench"
VECTORS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--engines", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="variants whose name contains one of these")
    parser.add_argument("--repeats", type=int, default=3, help="rounds after the trial; 0 for the trial alone")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start nothing new after so long in the rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=CACHE, help="environments, models and the kept trial")
    parser.add_argument("--out", type=Path, help="records as JSON; also read by --print")
    parser.add_argument("--prepare", action="store_true", help="make environments and models, and end")
    parser.add_argument("--trial", action="store_true", help="let the peers' settings compete again")
    parser.add_argument("--quick", action="store_true", help="batch 1 and prefill only")
    parser.add_argument("--whole", action="store_true", help="run the peers' many requests on E whole (takes long)")
    parser.add_argument("--no-serving", action="store_true", help="without sampling, reuse, chats and policies")
    parser.add_argument("--continue", action="store_true", dest="go_on", help="keep what --out has, run what it lacks")
    parser.add_argument("--print", action="store_true", help="print the tables of --out, and end")
    return parser.parse_args()


def limits_of(records: list[Record]) -> Limits:
    """Medians over the rounds."""
    return Limits(*(statistics.median(record.value for record in records
                                      if record.variant == "limits" and record.measure == name
                                      and record.value is not None)
                    for name in ("read_gb_s", "int8_gop_s", "fp32_gop_s")))


def measure_limits(launcher: Launcher, number: int) -> None:
    """Record what the machine can do at this moment."""
    found = measure(launcher.work, launcher.threads)
    launcher.records += [Record("", "limits", number, name, value) for name, value in found.items()]
    print(f"[limits {number}] {', '.join(f'{name} {value:.4g}' for name, value in found.items())}", flush=True)


def run(options: argparse.Namespace, shapes: dict[str, list[Variant]]) -> Launcher:
    """The trial where none is kept, then the rounds."""
    launcher = Launcher(options.work, options.threads, lambda records: save(options, records))
    schedule = Schedule(options.repeats, options.whole, options.quick, not options.no_serving)
    kept = options.work / "trial.json"
    chosen = {}
    if options.go_on and options.out.exists():
        launcher.records += read_records(options.out)
    held = {(record.shape, record.variant) for record in launcher.records if record.round == 0}
    measure_limits(launcher, 0)
    for shape, variants in shapes.items():
        known = None if options.trial else load_choice(kept, shape, variants)
        if known is None:
            run_trial(launcher, shape, variants, schedule)
            chosen[shape] = choose(launcher.records, shape, variants)
            save_choice(kept, shape, chosen[shape], launcher.records)
        else:
            chosen[shape] = known[0]
            names = {variant.key for variant in variants}
            launcher.records += [record for record in known[1]
                                 if record.variant in names and (record.shape, record.variant) not in held]
    schedule = replace(schedule, ends=time.monotonic() + 60 * options.minutes)
    for number in range(1, options.repeats + 1):
        if schedule.over:
            break
        measure_limits(launcher, number)
        for shape, variants in shapes.items():
            run_round(launcher, shape, variants, chosen[shape], number, schedule)
    return launcher


def save(options: argparse.Namespace, records: list[Record]) -> None:
    """Write the records, and what they were measured on, where a file was asked for."""
    if options.out is None:
        return
    facts = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "threads": options.threads,
             "machine": processor(), "python": platform.python_version(),
             "versions": {name: versions(options.work, name) for name in ("transformers", "llama", "openvino")}}
    options.out.write_text(json.dumps({"facts": facts, "records": [vars(record) for record in records]}, indent=1))


def read_records(path: Path) -> list[Record]:
    """What `save` wrote."""
    return [Record(**record) for record in json.loads(path.read_text())["records"]]


def processor() -> str:
    """What the kernel calls it, and the vector instructions that matter."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {name.strip(): text.strip() for name, text in lines.items()}
    flags = facts.get("flags", "").split()
    wanted = [flag for flag in VECTORS if flag in flags]
    return f"{facts.get('model name', platform.machine())}, {os.cpu_count()} cores, {' '.join(wanted)}"


def main() -> None:
    """Prepare, run, or print."""
    options = arguments()
    options.work = options.work.resolve()
    if options.out is None and (options.print or options.go_on):
        raise SystemExit("--print and --continue read a file: name it with --out")
    if options.prepare:
        return prepare(options.work, options.shapes, options.engines)
    shapes = {shape: [variant for variant in variants_of(options.engines, shape)
                      if not options.only or any(text in variant.key for text in options.only)]
              for shape in options.shapes}
    if options.print:
        records = read_records(options.out)
    else:
        prepare(options.work, options.shapes, options.engines)
        records = run(options, shapes).records
    print(f"\n{processor()}, {options.threads} threads\n")
    for shape, variants in shapes.items():
        print(write_report(Book(records, SHAPES[shape], variants, limits_of(records))), "\n")
    return None


if __name__ == "__main__":
    main()
