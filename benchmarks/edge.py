"""The edge program: how soon it answers, how fast it writes, and what it holds, on a bundle of yours.

    python benchmarks/edge.py BUNDLE PROMPTS.txt --quantise int4 --memory-limit 32MB

Each figure is the median of the rounds, with the least and the greatest. `first` is from the start of the process to
the first piece of text on its output, start, prompt and token together; `tokens a second` is that of one request after
the first token. With --gguf FILE the same prompts go through llama.cpp (llama-cpp-python must be installed), greedy and
with as many threads, its model loaded and warm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("prompts", type=Path, help="one a line")
    parser.add_argument("--quantise")
    parser.add_argument("--memory-limit", default="32MB")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--tokens", default="64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--program", help="a compiled autoglm-edge")
    parser.add_argument("--gguf")
    given = parser.parse_args()
    prompts = [line for line in given.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        words = [word for name in ("quantise", "program") if (value := getattr(given, name))
                 for word in (f"--{name}", value)]
        subprocess.run([sys.executable, "-m", "openautoglm", "-q", "edge", given.bundle, "-o", model, *words],
                       check=True, stdout=subprocess.DEVNULL)
        size = sum(path.stat().st_size for path in model.iterdir())
        print(f"{'folder':<28}{size / 1e6:.2f} MB")
        command = [str(model / "autoglm-edge"), "--memory-limit", given.memory_limit, "--threads", given.threads,
                   "--max-tokens", given.tokens]
        show("first, ms", [first_ms(command, prompts[0]) for _ in range(given.rounds)])
        rounds = [stats(command, prompts) for _ in range(given.rounds)]
        show("tokens a second", [one[0] for one in rounds])
        show("resident at the most, MB", [one[1] for one in rounds])
    if given.gguf:
        show("llama.cpp, tokens a second", llama(given, prompts))


def first_ms(command: Sequence[str], prompt: str) -> float:
    """From the start of the process to its first piece of text."""
    begin = time.perf_counter()
    with subprocess.Popen([*command, "--stream"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(prompt.encode() + b"\n")
        process.stdin.close()
        process.stdout.read(1)
        taken = (time.perf_counter() - begin) * 1000
        process.stdout.read()
    return taken


def stats(command: Sequence[str], prompts: Sequence[str]) -> tuple[float, float]:
    """Tokens a second after the first tokens, over all prompts, and the most memory in MB."""
    done = subprocess.run([*command, "--stats"], input="\n".join(prompts), capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"line"')]
    rest = [line for line in lines if line["tokens_per_s"] > 0]
    seconds = sum((line["tokens"] - 1) / line["tokens_per_s"] for line in rest)
    return sum(line["tokens"] - 1 for line in rest) / seconds, max(line["peak_resident"] for line in lines) / 1e6


def llama(given: argparse.Namespace, prompts: Sequence[str]) -> list[float]:
    """Tokens a second of llama.cpp after the first tokens."""
    from llama_cpp import Llama

    threads = int(given.threads)
    model = Llama(given.gguf, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    rates = []
    for _ in range(given.rounds):
        count, seconds = 0, 0.0
        for prompt in prompts:
            model.reset()
            pieces = model.generate(model.tokenize(prompt.encode(), add_bos=False), temp=0.0)
            next(pieces)
            begin = time.perf_counter()
            for token, _ in zip(pieces, range(int(given.tokens) - 1), strict=False):
                count += 1
                if token == model.token_eos():
                    break
            seconds += time.perf_counter() - begin
        rates.append(count / seconds)
    return rates


def show(name: str, values: Sequence[float]) -> None:
    """A median with its spread."""
    print(f"{name:<28}{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
