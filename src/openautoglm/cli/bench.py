"""``autoglm bench [BUNDLE]``: a load on a server, or on a bundle straight on the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_O = typer.Option
BundlePath = Annotated[Path | None, typer.Argument(help="A bundle, measured straight on the engine; left out, a server "
                                                        "is.", metavar="[BUNDLE]")]
Backend = Annotated[str, _O(help="A server's interface: openai (completions), openai-chat, grpc or grpc-chat.")]
Endpoint = Annotated[str | None, _O(help="Path of the interface; left out, the usual one.")]
Key = Annotated[str | None, _O(envvar=["AUTOGLM_API_KEY", "OPENAI_API_KEY"], help="Key of the server, as a bearer "
                                                                                  "token.", show_envvar=True)]
Model = Annotated[str | None, _O(help="Name of the model; left out, the server's first.")]
TokenizerPath = Annotated[Path | None, _O(help="A folder with tokenizer.json, for prompts of exact lengths.")]
Headers = Annotated[list[str] | None, _O(help="NAME=VALUE, sent with every request; may be repeated.")]
Body = Annotated[str | None, _O(help="A JSON object, added to every request.")]
Pid = Annotated[int | None, _O(help="The server's process; left out, who listens there on loopback.")]
Rate = Annotated[float, _O(help="Requests a second; inf: all at once, or a closed loop of --max-concurrency clients.")]
Burstiness = Annotated[float, _O(help="Shape of the gaps: 1 Poisson, less comes in bursts, inf evenly spaced.")]
Burst = Annotated[int, _O(help="Requests that arrive together.")]
Concurrency = Annotated[int | None, _O(help="Most requests under way; with no rate the clients of a closed loop.")]
Think = Annotated[float, _O(help="What a client of a closed loop waits between answer and request.")]
Count = Annotated[int | None, _O(help="Requests in all; left out, what --duration-s holds, or 200.")]
Duration = Annotated[float | None, _O(help="Nothing is sent after so many seconds.")]
Data = Annotated[list[str] | None, _O(help="Files of prompts: JSONL, CSV, text ...; left out, made of random words.")]
Column = Annotated[str | None, _O(help="Column of the prompts; left out, messages, prompt, source or the like.")]
InputLen = Annotated[int | None, _O("--input-len", "--random-input-len", help="Tokens of a made prompt [128].")]
OutputLen = Annotated[int | None, _O("--output-len", "--random-output-len", help="Most tokens of an answer [64].")]
Ratio = Annotated[float | None, _O("--range-ratio", "--random-range-ratio", help="Lengths vary by this share [0].")]
Shared = Annotated[float | None, _O(help="Share of a made prompt that it has in common with others [0].")]
Prefixes = Annotated[int | None, _O(help="How many different shared beginnings there are [1].")]
Eos = Annotated[bool | None, _O("--ignore-eos/--no-ignore-eos", help="Answers go on to their full length; left out, "
                                                                     "for made prompts and traces.")]
Temperature = Annotated[float, _O(help="0: the likeliest token.")]
TopP = Annotated[float, _O(help="Sample within this probability.")]
TracePath = Annotated[Path | None, _O(help="A recorded load: arrival times and token counts.")]
TraceRate = Annotated[float | None, _O(help="Replay so many times faster; --request-rate sets a mean rate instead.")]
TraceLength = Annotated[float | None, _O(help="Factor for the token counts of the trace.")]
TraceStart = Annotated[float | None, _O(help="Begin at this time of the trace, in seconds.")]
TraceFor = Annotated[float | None, _O(help="Take so many seconds of the trace.")]
MostInput = Annotated[int | None, _O(help="Cut prompts of the trace to so many tokens.")]
MostOutput = Annotated[int | None, _O(help="Cut answers of the trace to so many tokens.")]
Warmups = Annotated[int, _O(help="Requests before the load, not counted.")]
WarmupTime = Annotated[float, _O(help="Requests that arrive in these first seconds are not counted.")]
Timeout = Annotated[float, _O(help="An answer that takes longer is an error, in seconds.")]
StallTime = Annotated[float, _O(help="A server that gives nothing for so many seconds has stalled.")]
LagTime = Annotated[float, _O(help="A generator later than so many ms, at p99, is saturated.")]
Goodput = Annotated[list[str] | None, _O(help="Bounds in ms, e.g. 'ttft:500 tpot:50 e2el:5000'; may be repeated.")]
Percentiles = Annotated[str, _O(help="Percentiles of the latencies, by commas.")]
Repetitions = Annotated[int, _O(help="How often the whole load is put on.")]
Seed = Annotated[int, _O(min=0, help="Of arrivals, lengths, words and sampling.")]
Quantise = Annotated[str | None, _O(help="BUNDLE: round the weights when loading, int8 or int4.")]
Group = Annotated[int | None, _O(help="BUNDLE: weights that share a scale: 32, 64, 128; 0: a row.")]
Target = Annotated[str, _O(help="BUNDLE: what runs it: auto, native, torch:cpu or torch:cuda.")]
Threads = Annotated[int | None, _O(min=1, help="BUNDLE: threads; left out, the cores of use.")]
MaxBatch = Annotated[int | None, _O(min=1, help="BUNDLE: most sequences that run together.")]
MaxBatchTokens = Annotated[int | None, _O(min=1, help="BUNDLE: most token rows of a step.")]
MaxWait = Annotated[float | None, _O(min=0, help="BUNDLE: most seconds that a request waits for company.")]
MinBatch = Annotated[int | None, _O(min=1, help="BUNDLE: sequences worth starting for; see --max-wait.")]
Label = Annotated[str | None, _O(help="Name of the result.")]
Save = Annotated[bool, _O("--save-result", help="Write JSON and page.")]
SaveAll = Annotated[bool, _O("--save-detailed", help="Write every request into the JSON, too.")]
Folder = Annotated[Path | None, _O(help="Folder of the result; implies --save-result.")]
File = Annotated[Path | None, _O(help="File of the result; implies --save-result.")]
Compare = Annotated[tuple[Path, Path] | None, _O(metavar="A.json B.json", help="Compare two results, measure nothing.")]


@app.command()
def bench(
    ctx: typer.Context, bundle: BundlePath = None, backend: Backend = "openai", base_url: Annotated[str | None, _O(
        help="Address of the server, http://host:port or grpc://host:port.")] = None, host: str = "127.0.0.1",
    port: Annotated[int | None, _O(help="Left out, 8080, and 8081 for gRPC.")] = None,
    endpoint: Endpoint = None, model: Model = None, api_key: Key = None, header: Headers = None,
    extra_body: Body = None, tokenizer: TokenizerPath = None, server_pid: Pid = None,
    request_rate: Rate = float("inf"), burstiness: Burstiness = 1.0, burst_size: Burst = 1,
    max_concurrency: Concurrency = None, think_time_s: Think = 0.0, num_prompts: Count = None,
    duration_s: Duration = None, dataset_path: Data = None, column: Column = None, input_len: InputLen = None,
    output_len: OutputLen = None, range_ratio: Ratio = None, shared_prefix: Shared = None,
    num_prefixes: Prefixes = None, ignore_eos: Eos = None, temperature: Temperature = 0.0, top_p: TopP = 1.0,
    trace: TracePath = None, trace_rate_scale: TraceRate = None, trace_length_scale: TraceLength = None,
    trace_start_s: TraceStart = None, trace_duration_s: TraceFor = None, max_input_len: MostInput = None,
    max_output_len: MostOutput = None, num_warmups: Warmups = 1, warmup_s: WarmupTime = 0.0,
    timeout_s: Timeout = 600.0, stall_s: StallTime = 10.0, lag_ms: LagTime = 10.0, goodput: Goodput = None,
    metric_percentiles: Percentiles = "50,90,95,99", repetitions: Repetitions = 1, seed: Seed = 0,
    quantise: Quantise = None, group: Group = None, target: Target = "auto", threads: Threads = None,
    max_batch: MaxBatch = None, max_batch_tokens: MaxBatchTokens = None, min_batch: MinBatch = None,
    max_wait: MaxWait = None, label: Label = None, save_result: Save = False, save_detailed: SaveAll = False,
    result_dir: Folder = None, result_filename: File = None, compare: Compare = None,
) -> None:
    """Put a load on a server or on a bundle, and print latencies, throughput and what else was seen.

    Options and figures are named as in `vllm bench serve`. Latencies count from the time at which a request was to be
    sent. Exit code 1 where no request was answered.
    """
    if compare is not None:
        _compare(*compare, result_filename)
        return
    result = _measure(bundle, ctx.params)
    from openautoglm.cli.bench_tables import print_result

    print_result(result)
    if save_result or save_detailed or result_dir or result_filename:
        from openautoglm.bench.detail import save

        folder = result_dir or (result_filename.parent if result_filename else Path())
        for path in save(result, folder, result_filename.name if result_filename else None):
            typer.echo(f"written: {path}")
    raise typer.Exit(0 if result["completed"] else 1)


def _measure(bundle: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    from openautoglm.bench.client import Mark
    from openautoglm.bench.detail import details
    from openautoglm.bench.options import load_settings
    from openautoglm.bench.run import run_load

    settings = load_settings(given)
    kept: dict[str, list[Any]] = {}

    def keep(repetition: int, marks: list[Mark]) -> None:
        for name, values in details(marks, repetition).items():
            kept.setdefault(name, []).extend(values)

    result = run_load(settings, _target(bundle, given, settings.prompts), keep if given["save_detailed"] else None)
    return result | kept


def _target(bundle: Path | None, given: Mapping[str, Any], prompts: Any) -> Any:
    from openautoglm.bench.options import json_object, pairs
    from openautoglm.bench.rest import ENDPOINTS, Server
    from openautoglm.bench.rpc import METHODS
    from openautoglm.bench.targets import EngineTarget, RestTarget, RpcTarget

    if bundle is not None:
        from openautoglm.pipeline.engines import engine_settings, program_settings

        engine = engine_settings({name: given[name] for name in ("max_batch", "max_batch_tokens", "min_batch",
                                                                 "max_wait")})
        room = {"max_wanted": max(engine.max_batch or 0, 64), "max_rows": max(engine.max_batch_tokens or 0, 512)}
        program = program_settings({name: given[name] for name in ("quantise", "group", "target", "threads")} | room)
        return EngineTarget(bundle, prompts, program, engine, label=given["label"])
    known = (*ENDPOINTS, *METHODS)
    if given["backend"] not in known:
        raise typer.BadParameter(f"{given['backend']!r} is none of {', '.join(known)}", param_hint="--backend")
    headers = pairs(given["header"], "--header")
    if given["api_key"]:
        headers.setdefault("Authorization", f"Bearer {given['api_key']}")
    scheme, usual = ("grpc", 8081) if given["backend"] in METHODS else ("http", 8080)
    address = given["base_url"] or f"{scheme}://{given['host']}:{given['port'] or usual}"
    server = Server(base_url=address, backend=given["backend"],
                    endpoint=given["endpoint"], model=given["model"], headers=headers,
                    extra_body=json_object(given["extra_body"], "--extra-body"))
    kind = RpcTarget if server.backend in METHODS else RestTarget
    return kind(server, prompts, tokenizer=given["tokenizer"], pid=given["server_pid"], label=given["label"])


def _compare(before: Path, after: Path, page: Path | None) -> None:
    from openautoglm.bench.compare import read_result, render_comparison
    from openautoglm.cli.bench_tables import print_comparison
    from openautoglm.core.files import atomic_write

    results = read_result(before), read_result(after)
    print_comparison(*results, (before.stem, after.stem))
    if page is not None:
        with atomic_write(page) as file:
            file.write(render_comparison(*results, (before.stem, after.stem)))
        typer.echo(f"written: {page}")
