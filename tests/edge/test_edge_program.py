"""The edge program answers what the engine answers, with the same weights and the same kernels."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edge_models import PROMPTS, Model, records

from openautoglm.edge.manifest import Record
from openautoglm.graph.recipe import Quantisation

Run = Callable[..., subprocess.CompletedProcess[str]]


def texts(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [record["text"] for record in records(done.stdout)]


@pytest.mark.parametrize("facts", [
    pytest.param({}, id="fp32 pair"),
    pytest.param({"kind": "glm4", "family": "glm4", "qkv_bias": True, "tied": False}, id="fp32 glm4"),
    pytest.param({"quantise": Quantisation(format="int4")}, id="int4"),
    pytest.param({"quantise": Quantisation(format="int8", symmetric=False, head="int4"), "rotary_factor": 0.5,
                  "system": "Antworte kurz."}, id="int8 zeros"),
    pytest.param({"stored": True, "tied": True}, id="a quantised bundle"),
])
def test_greedy_text_is_the_engines(make: Callable[..., Model], run: Run, facts: dict[str, Any]) -> None:
    made = make(**facts)
    done = run(made.folder, PROMPTS, "--json", "--max-tokens", "24", "--threads", "2")
    assert texts(done) == made.engine(PROMPTS, max_new_tokens=24)


@pytest.mark.parametrize("options", [
    pytest.param({"temperature": 0.8, "seed": 7}, id="plain"),
    pytest.param({"temperature": 1.5, "top_k": 20, "top_p": 0.9, "seed": 2**40 + 3}, id="filters"),
])
def test_sampled_text_is_the_engines(model: Model, run: Run, options: dict[str, Any]) -> None:
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    done = run(model.folder, PROMPTS, "--json", "--max-tokens", "100", *words)
    assert texts(done) == model.engine(PROMPTS, max_new_tokens=100, **options)


def test_lines_plain_and_json(model: Model, run: Run) -> None:
    lines = ["hello", "", '{"prompt": "hello", "max_tokens": 5}', '{"nothing": 1}', '{"prompt": 5}', "  ", "x" * 40000,
             "last"]
    done = run(model.folder, lines, "--max-tokens", "8")
    answers = done.stdout.splitlines()
    whole = run(model.folder, ["hello", "last"], "--json", "--max-tokens", "8")
    first, last = texts(whole)
    assert len(answers) == 6  # blank lines are passed over, lines that fail are empty
    assert answers[0].replace("\\n", "\n").replace("\\r", "\r") == first
    assert answers[2:5] == ["", "", ""]
    assert answers[5].replace("\\n", "\n").replace("\\r", "\r") == last
    assert done.returncode == 1
    assert "line 4: the object has neither prompt nor source" in done.stderr
    assert "line 5: prompt must be a text" in done.stderr
    assert "line 7: the line has more than 16384 bytes" in done.stderr
    streamed = run(model.folder, ["hello"], "--max-tokens", "8", "--stream")
    assert streamed.stdout == answers[0] + "\n"


def test_records_become_prompts_by_their_columns(make: Callable[..., Model], run: Run) -> None:
    made = make(record=Record((("name: ", "name"), (", food: ", "food"), (".", None)), True))
    lines = ['{"name": "Zum Löwen", "food": "Thai"}', '{"name": "Zum Löwen"}', '{"name": 3}']
    done = run(made.folder, lines, "--json", "--max-tokens", "4")
    found = records(done.stdout)
    assert [record.get("source") for record in found] == ["name: Zum Löwen, food: Thai.", "name: Zum Löwen, food: .",
                                                          None]
    assert found[2]["error"] == 'the column "name" must be a text'


def test_input_that_is_not_text_is_refused(model: Model) -> None:
    done = subprocess.run([model.folder / "autoglm-edge", "--json", "--max-tokens", "2"], capture_output=True,
                          input=b'caf\xe9\n{"prompt": "\\ud800"}\n{"prompt": "a", "prompt": "b"}\n{\nok', check=False)
    found = records(done.stdout.decode())
    assert [record.get("error", "") for record in found] == [
        "not UTF-8 at byte 3", "not JSON at byte 18: half a surrogate pair", "not JSON at byte 24: a name stands twice",
        "not JSON at byte 1: a name in quotes is missing", ""]


def test_a_prompt_longer_than_the_context_is_refused(model: Model, run: Run) -> None:
    done = run(model.folder, ["many words " * 60, "short"], "--json", "--context", "64", "--max-tokens", "200")
    long, short = records(done.stdout)
    assert "the context 64: shorten it" in long["error"]
    assert short["finished"] or short["tokens"] == 64 - len(model.bundle.template.prompt(
        "short", (), model.bundle.tokenizer))


@pytest.mark.parametrize("path", ["portable", "avx2", "avx512"])
def test_all_paths_of_instructions_agree(model: Model, run: Run, path: str) -> None:
    done = run(model.folder, PROMPTS[:4], "--json", "--max-tokens", "16", env={"OPENAUTOGLM_ISA": path})
    if "cannot run the instruction path" in done.stderr:
        pytest.skip(f"this processor has no {path}")
    assert texts(done) == model.engine(PROMPTS[:4], max_new_tokens=16)


def test_damaged_files_are_told(make: Callable[..., Model], run: Run) -> None:
    made = make()
    manifest, weights = made.folder / "manifest.txt", made.folder / "weights.safetensors"
    good, bytes_ = manifest.read_text(encoding="utf-8"), bytearray(weights.read_bytes())

    def told(text: str, *options: str) -> str:
        manifest.write_text(text, encoding="utf-8")
        done = run(made.folder, ["x"], *options)
        assert done.returncode == 2
        assert done.stdout == ""
        return done.stderr

    assert "manifest.txt:1: this is no manifest of this version" in told("something else\n")
    assert "is cut short" in told("autoglm-edge 1\nname \"x\"\n")
    assert "'quack' is unknown" in told(good + "quack 1\n")
    assert "lies outside the arena" in told(good.replace("\narena ", "\narena 0 #", 1).replace(" #", "\n# "))
    assert "there is more on the line" in told(good.replace("\nrows 32", "\nrows 32 1", 1))
    manifest.write_text(good, encoding="utf-8")
    bytes_[-5] ^= 64
    weights.write_bytes(bytes_)
    assert "model.norm.weight" in (words := told(good, "--load", "copy"))
    assert "is damaged" in words
    weights.write_bytes(bytes_[:1000])
    assert "is cut short" in told(good)
    tables = made.folder / "tokenizer.bin"
    tables.write_bytes(tables.read_bytes()[:-64])
    weights.write_bytes(bytes_)
    assert "tables are damaged" in told(good)


def test_what_it_is_told_wrongly_is_said(model: Model, run: Run) -> None:
    for words, fault in ((["--nonsense", "1"], "there is no option --nonsense"), (["--top-p", "2"], "top_p lies above"),
                         (["--seed", "-1"], "--seed takes a whole number"), (["hello"], "prompts come from standard"),
                         (["--memory-limit", "lots"], "--memory-limit takes a size")):
        done = run(model.folder, [], *words)
        assert done.returncode == 2
        assert fault in done.stderr


def test_tokens_and_weights_are_copied_or_mapped_alike(model: Model, run: Run) -> None:
    mapped = run(model.folder, PROMPTS[:3], "--json", "--max-tokens", "8")
    copied = run(model.folder, PROMPTS[:3], "--json", "--max-tokens", "8", "--load", "copy")
    assert mapped.stdout == copied.stdout
    assert len(records(mapped.stdout)) == 3


def test_the_program_is_static_and_moves(model: Model, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.symlink_to(model.folder)
    (tmp_path / "link").symlink_to(model.folder / "autoglm-edge")
    done = subprocess.run([tmp_path / "link", "--info"], capture_output=True, text=True, check=True, cwd="/", env={})
    assert json.loads(done.stdout)["context"] == 512
    program = (model.folder / "autoglm-edge").read_bytes()
    start, size, count = struct.unpack_from("<Q", program, 32)[0], *struct.unpack_from("<HH", program, 54)
    kinds = [struct.unpack_from("<I", program, start + number * size)[0] for number in range(count)]
    assert 1 in kinds  # something is loaded,
    assert 3 not in kinds  # and nobody else is asked to load more
    assert os.access(moved / "autoglm-edge", os.X_OK)
