"""The verbs beside run: check, clean, generate, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import autoglm
from tiny_task import write_task

pytestmark = pytest.mark.slow


def test_check_prints_a_table_and_writes_nothing(tmp_path: Path) -> None:
    done = autoglm("check", write_task(tmp_path), "--format", "json")
    assert done.returncode == 0, done.stderr
    lines = {line["what"]: line for line in json.loads(done.stdout)["lines"]}
    assert {"train rows", "tokens", "lengths", "model", "time", "memory", "disk"} <= set(lines)
    assert lines["train rows"]["value"] == "200"
    assert not (tmp_path / "runs").exists()
    assert "first sampled row" in autoglm("check", tmp_path / "task.yaml").stdout


def test_check_finds_what_would_fail(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    (tmp_path / "valid.csv").unlink()
    text = task.read_text().replace("{price}", "{prize}").replace("budget: {minutes: 5}", "budget: {parameters: 100}")
    task.write_text(text)
    done = autoglm("check", task, "--format", "json")
    assert done.returncode == 2
    faults = [line for line in json.loads(done.stdout)["lines"] if line["status"] == "fault"]
    assert any("no column 'prize'" in line["value"] and "price" in line["remedy"] for line in faults)
    assert any("valid.csv" in line["value"] for line in faults)


def test_clean_alone(tmp_path: Path) -> None:
    done = autoglm("clean", write_task(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "200 rows read" in done.stdout
    assert (tmp_path / "runs/tiny/data/quality.json").is_file()
    assert not (tmp_path / "runs/tiny/tokenizer").exists()


def test_generate_answers_good_lines_and_tells_bad_ones(finished: Path, tmp_path: Path) -> None:
    lines = (b"Alfa | Thai | hill | dear\n"
             b'{"name": "Echo", "food": "Greek", "area": "park", "price": "cheap"}\n'
             b'{"name": "Echo"}\n'
             b"\xff\xfe\n"
             b"\n"
             b'{"source": []}\n'
             b"{broken\n"
             b'{"messages": [{"role": "user", "content": "Fox | Irish | hill | dear"}]}\n')
    done = autoglm("generate", finished / "runs/tiny/bundle", "--max-new-tokens", "8", stdin=lines)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [record["line"] for record in records] == [1, 2, 3, 4, 6, 7, 8]
    assert ["error" in record for record in records] == [False, False, True, True, True, True, False]
    assert records[1]["source"] == "Echo | Greek | park | cheap"
    (tmp_path / "in.txt").write_bytes(lines[:26])
    done = autoglm("generate", finished / "out.zip", "--file", tmp_path / "in.txt", "--output", tmp_path / "o.jsonl",
                   "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "o.jsonl").read_text())["text"] == records[0]["text"]


def test_generate_refuses_wrong_options(finished: Path) -> None:
    done = autoglm("generate", finished / "out.zip", "x", "--num-beams", "2", "--temperature", "1")
    assert done.returncode == 2
    assert "do not mix" in done.stderr
    assert autoglm("generate", finished / "nowhere", "x").returncode == 1


def test_evaluate_a_bundle_on_data(finished: Path, tmp_path: Path) -> None:
    done = autoglm("evaluate", finished / "runs/tiny/bundle", "--data", finished / "test.csv", "--metrics", "bleu,chrf",
                   "--output", tmp_path / "scores", "--cases", "5")
    assert done.returncode == 0, done.stderr
    assert "BLEU" in done.stdout
    assert "5 records" in done.stdout
    assert set(json.loads((tmp_path / "scores/scores.json").read_text())["splits"]["data"]) == {"recommended"}


def test_evaluate_predictions_against_references(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("the cat sat on the mat\na dog\n")
    (tmp_path / "r.txt").write_text("the cat sat on the mat\na dog\n")
    done = autoglm("evaluate", "--predictions", tmp_path / "p.txt", "--references", tmp_path / "r.txt",
                   "--output", tmp_path / "s.json", "--bootstrap", "20")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s.json").read_text())["scores"]["exact_match"]["value"] == 100.0
    assert autoglm("evaluate", "--predictions", tmp_path / "p.txt").returncode == 2
    assert autoglm("evaluate", "--predictions", tmp_path / "p.txt", "--references", tmp_path / "r.txt",
                   "--metrics", "blue").returncode == 2
