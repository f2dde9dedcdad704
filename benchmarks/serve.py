"""The service beside the bare engine and beside llama-server, on the same weights, and its behaviour under overload.

    python benchmarks/serve.py overhead MODEL [--gguf FILE --llama-server PROGRAM]
    python benchmarks/serve.py overload MODEL [--seconds 300] [--times 3]

`overhead`: rounds of the engine alone, of `autoglm serve` and of llama-server, in turn: output tokens a second with a
closed loop of streaming clients, and the time to first token of a single client. Every measurement is an `autoglm
bench` in a process of its own, on the same machine as what it measures: what the generator takes is missing there, for
all of them. `overload`: a Poisson load of so many times the capacity, which a closed loop has measured before it.
MODEL is a bundle or the folder of a checkpoint with a tokenizer. Results go to `--out` as JSON and are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

AUTOGLM = (sys.executable, "-m", "openautoglm")
_START_S, _END_S = 600, 60


class Peer(NamedTuple):
    """A server, or the bare engine where `command` is None."""

    name: str
    command: tuple[str, ...] | None
    health: str = "/ready"


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(peer: Peer) -> Iterator[str]:
    """Start a server and give its address; end it afterwards."""
    assert peer.command is not None
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*peer.command, "--port", str(port)], stdout=log, stderr=log)
        try:
            wait_for(process, url + peer.health, log)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str, log: Any) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            log.seek(0)
            said = log.read().decode(errors="replace")[-3000:]
            raise SystemExit(f"a server ended with {process.returncode}:\n{said}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=10) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {_START_S} s")


def bench(*options: str | Path | float) -> dict[str, Any]:
    """One `autoglm bench`, and its result."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [*AUTOGLM, "-q", "bench", *map(str, options), "--result-filename", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not file.exists():
            raise SystemExit(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-3000:]}")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def loaded(options: argparse.Namespace, *load: str | float, url: str | None) -> dict[str, Any]:
    """A load on a server, or on the engine where there is no address."""
    if url is not None:
        return bench("--base-url", url, "--tokenizer", options.model, *load)
    return bench(options.model, *options.program, *load)


def peers(options: argparse.Namespace) -> list[Peer]:
    """What is compared."""
    found = [Peer("engine", None), Peer("rest", server_command(options))]
    if options.llama_server:
        most = options.clients * (options.input_len + options.output_len + 64)
        threads = str(options.threads)
        found.append(Peer("llama-server", (
            str(options.llama_server), "-m", str(options.gguf), "--host", "127.0.0.1", "-t", threads, "-tb", threads,
            "-np", str(options.clients), "-c", str(most), "-b", "2048", "-ub", "512", "-fa", "on"), "/health"))
    return found


def server_command(options: argparse.Namespace) -> tuple[str, ...]:
    """Our server, with the engine's options."""
    return (*AUTOGLM, "-q", "serve", str(options.model), *options.program, *options.serve)


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of all peers in turn."""
    shape = ("--input-len", options.input_len, "--output-len", options.output_len)
    records = []
    for number in range(options.repeats):
        for peer in peers(options):
            with contextlib.ExitStack() as stack:
                url = stack.enter_context(running(peer)) if peer.command is not None else None
                many = loaded(options, "--max-concurrency", options.clients, "--num-prompts", options.prompts, *shape,
                              "--num-warmups", 4, "--seed", number, url=url)
                one = loaded(options, "--max-concurrency", 1, "--num-prompts", options.single, "--input-len",
                             options.input_len, "--output-len", 8, "--seed", number, url=url)
            record = {"round": number, "peer": peer.name, "tokens_per_s": many["output_throughput"],
                      "failed": many["failed"] + one["failed"], "p50_ttft_ms_one": one["p50_ttft_ms"],
                      "p50_itl_ms": many["p50_itl_ms"], "p99_itl_ms": many["p99_itl_ms"],
                      "generator_cpu": many["generator"].get("cpu_mean"), "warnings": many["warnings"]}
            records.append(record)
            print({name: value for name, value in record.items() if name != "warnings"}, flush=True)
    return {"records": records, "summary": summary(records)}


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians by peer, and of the ratios within each round."""
    rounds: dict[int, dict[str, dict[str, Any]]] = {}
    for record in records:
        rounds.setdefault(record["round"], {})[record["peer"]] = record
    names = list(dict.fromkeys(record["peer"] for record in records))
    found: dict[str, Any] = {name: {measure: statistics.median(record[measure] for record in records
                                                               if record["peer"] == name)
                                    for measure in ("tokens_per_s", "p50_ttft_ms_one", "p50_itl_ms")}
                             for name in names}
    for name in names[1:]:
        found[f"rest / {name}" if name != "rest" else "rest / engine"] = statistics.median(
            each["rest"]["tokens_per_s"] / each["engine" if name == "rest" else name]["tokens_per_s"]
            for each in rounds.values())
    found["added_ttft_ms"] = statistics.median(
        each["rest"]["p50_ttft_ms_one"] - each["engine"]["p50_ttft_ms_one"] for each in rounds.values())
    return found


def overload(options: argparse.Namespace) -> dict[str, Any]:
    """Capacity, then so many times of it."""
    shape = ("--input-len", options.input_len, "--output-len", options.output_len, "--range-ratio", 0.5)
    with running(Peer("rest", server_command(options))) as url:
        closed = loaded(options, "--max-concurrency", 2 * options.clients, "--duration-s", options.seconds / 5, *shape,
                        "--num-prompts", 1_000_000, url=url)
        capacity = closed["steady_request_throughput"] or closed["request_throughput"]
        print(f"capacity {capacity:.2f} requests/s", flush=True)
        over = loaded(options, "--request-rate", options.times * capacity, "--duration-s", options.seconds, *shape,
                      "--warmup-s", min(10.0, options.seconds / 10), url=url)
        after = loaded(options, "--max-concurrency", 4, "--num-prompts", 32, *shape, url=url)
    looks = [look for look in over["series"]["looks"] if "rss_bytes" in look]
    third = max(1, len(looks) // 3)
    rss = [statistics.median(look["rss_bytes"] for look in part) for part in (looks[third:2 * third], looks[-third:])]
    done = over["steady_request_throughput"] or over["request_throughput"]
    return {"capacity_per_s": capacity, "offered_per_s": options.times * capacity, "done_per_s": done,
            "goodput_of_capacity": done / capacity, "errors": over["errors_by_kind"], "completed": over["completed"],
            "failed": over["failed"], "p50_e2el_ms": over["p50_e2el_ms"], "p99_e2el_ms": over["p99_e2el_ms"],
            "p99_ttft_ms": over["p99_ttft_ms"], "rss_middle_mib": rss[0] / 2**20, "rss_end_mib": rss[1] / 2**20,
            "failed_afterwards": after["failed"], "warnings": over["warnings"]}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("overhead", "overload"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--quantise", default="int8", help="int8, int4, or none")
    parser.add_argument("--group", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--single", type=int, default=50)
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--times", type=float, default=3)
    parser.add_argument("--serve", type=shlex.split, default=[], help="further options of autoglm serve, in one word: "
                        "--serve='--cache-tokens 65536'")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(given)
    form = [] if options.quantise == "none" else ["--quantise", options.quantise, "--group", str(options.group)]
    options.program = [*form, "--threads", str(options.threads), "--max-batch", str(options.clients)]
    return options


def main() -> None:
    """Measure and print."""
    options = arguments()
    found = {"part": options.part, "model": str(options.model.name), "program": options.program,
             **(overhead if options.part == "overhead" else overload)(options)}
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1))
    print(json.dumps(found.get("summary", found), indent=1))


if __name__ == "__main__":
    main()
