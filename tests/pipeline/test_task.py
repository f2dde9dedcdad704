"""Task files: all faults at once, each with its place and the nearest valid key."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core.errors import Fault, TaskError
from openautoglm.pipeline.task import Task, load_task, make_task

GOOD = "data: {train: a.csv, source: mr, target: ref}\n"


def faults(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> tuple[Fault, ...]:
    path = tmp_path / "task.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        load_task(path, environment or {})
    assert str(path) in str(caught.value)
    return caught.value.faults


@pytest.mark.parametrize(("text", "key", "line", "column", "message", "remedy"), [
    ("", "task", 1, 1, "empty", ""),
    ("- a\n", "task", 1, 1, "mapping", ""),
    ("name: x\n", "data", 1, 1, "required", ""),
    ("data: {sorce: mr, train: a, target: t, text: x}\n", "data.sorce", 1, 8, "unknown key", "did you mean source?"),
    (GOOD + "modle: {}\n", "modle", 2, 1, "unknown key", "did you mean model?"),
    (GOOD + "model: {layers: -1}\n", "model.layers", 2, 17, "greater than 0", ""),
    (GOOD + "model: {size: tinny}\n", "model.size", 2, 15, "no size 'tinny'", ""),
    (GOOD + "model: {tune: lora}\n", "model", 2, 8, "needs a checkpoint", ""),
    (GOOD + "model: {checkpoint: x, layers: 3}\n", "model", 2, 8, "has its own shape", ""),
    (GOOD + "train: {schedule: cosin}\n", "train.schedule", 2, 19, "must be", "did you mean cosine?"),
    (GOOD + "train: {batch: many}\n", "train.batch", 2, 16, "integer", ""),
    (GOOD + "budget: {minutes: soon}\n", "budget.minutes", 2, 19, "not a duration", ""),
    (GOOD + "budget: {memory: 2XB}\n", "budget.memory", 2, 18, "not a size", ""),
    (GOOD + "budget: {parameters: lots}\n", "budget.parameters", 2, 22, "not a count", ""),
    (GOOD + "compress: {qualty: 1}\n", "compress.qualty", 2, 12, "unknown key", "did you mean quality?"),
    (GOOD + "compress: [gtpq]\n", "compress[0]", 2, 12, "there is no method 'gtpq'", "did you mean gptq?"),
    (GOOD + "compress: gtpq\n", "compress", 2, 11, "there is no method 'gtpq'", "did you mean gptq?"),
    (GOOD + "compress: {recipe: [rtn, {method: gptq, bits: 5}]}\n", "compress.recipe[1].bits", 2, 47, "must be 8 or 4",
     ""),
    (GOOD + "compress: {recipe: [gptq, prune]}\n", "compress.recipe", 2, 20, "only kv can follow", ""),
    (GOOD + "compress: {metric: length_ratio}\n", "compress.metric", 2, 20, "cannot tell what was kept", "choose bleu"),
    (GOOD + "compress: {metric: coverage}\n", "compress.metric", 2, 20, "needs the fields", "data.fields"),
    (GOOD + "evaluate: {metrics: [bleu]}\ncompress: {metric: chrf}\n", "compress.metric", 3, 20, "not among", "bleu"),
    ("data: {train: a.txt, text: true}\ncompress: {metric: bleu}\n", "compress.metric", 2, 20, "the data is plain text",
     "perplexity counts then"),
    (GOOD + "evaluate: {metrics: [blue]}\n", "evaluate.metrics", 2, 21, "no metric 'blue'", ""),
    (GOOD + "evaluate: {decodings: {b: {beams: 2}}}\n", "evaluate.decodings.b.beams", 2, 28, "unknown key",
     "did you mean num_beams?"),
    (GOOD + "clean: {rules: [lenght]}\n", "clean.rules[0]", 2, 17, "no rule", "did you mean 'length'?"),
    (GOOD + "clean: {rules: [{length: {taget: [1, 2]}}]}\n", "clean.rules[0].length.taget", 2, 27, "no setting",
     "target"),
    (GOOD + "tokenizer: {vocab_size: 5}\n", "tokenizer.vocab_size", 2, 25, "between 300", ""),
    (GOOD + "name: a/b\n", "name", 2, 7, "letters", ""),
    ("data: {train: '${NOWHERE}/a.csv', source: a, target: b}\n", "data.train", 1, 15, "NOWHERE is not set", "export"),
])
def test_a_fault_has_key_place_and_remedy(tmp_path: Path, text: str, key: str, line: int, column: int, message: str,
                                          remedy: str) -> None:
    found = faults(tmp_path, text)
    assert [(fault.key, fault.line, fault.column) for fault in found] == [(key, line, column)]
    assert message in found[0].message
    assert remedy in found[0].remedy


def test_all_faults_are_told_at_once_in_file_order(tmp_path: Path) -> None:
    found = faults(tmp_path, "name: a b\ndata:\n  train: a.csv\n  train: b.csv\n  sorce: x\nmodel: {siz: tiny}\n"
                             "train: {lr: -1, epochs: 3}\nclean: {rules: [nope]}\n")
    assert {"name", "data.train", "data.sorce", "model.siz", "train.lr", "train.epochs",
            "clean.rules[0]"} <= {fault.key for fault in found}
    assert [fault.line for fault in found] == sorted(fault.line for fault in found)


def test_variables_are_expanded_in_paths_only(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text('data:\n  train: ["${HERE}/a.csv", "${NOT:-there}/b.csv"]\n  template: "${HERE} {a}"\n  target: b\n'
                    'output: ${HERE}/run\n', encoding="utf-8")
    task = load_task(path, {"HERE": "/d"})
    assert task.data.train == ("/d/a.csv", "there/b.csv")
    assert task.data.template == "${HERE} {a}" or task.data.template is not None
    assert task.output == "/d/run"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(TaskError, match="cannot be read"):
            load_task(path)


def test_empty_sections_mean_defaults_and_amounts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(GOOD + "train:\nclean:\ncompress:\nbudget: {minutes: 1h30m, memory: 2GB, parameters: 30M}\n",
                    encoding="utf-8")
    task = load_task(path)
    assert (task.budget.minutes, task.budget.memory, task.budget.parameters) == (90.0, 2_000_000_000, 30_000_000)
    assert task.train == Task.model_validate({"data": task.data}).train
    assert task.recipe() is None


def test_a_recipe_takes_from_evaluate_what_it_does_not_say_itself() -> None:
    data = {"train": "a.csv", "source": "s", "target": "t"}
    plain = make_task({"data": data, "compress": "auto", "evaluate": {"lowercase": True, "choose_by": "chrf"}}).recipe()
    assert plain is not None
    assert (plain.recipe, plain.metric, plain.evaluate.lowercase) == ("auto", "chrf", True)
    own = make_task({"data": data, "compress": {"recipe": ["prune", "gptq"], "metric": "ter", "evaluate": {
        "metrics": ["ter"]}}, "evaluate": {"lowercase": True}}).recipe()
    assert own is not None
    assert [step.method for step in own.recipe] == ["prune", "gptq"]  # type: ignore[union-attr]
    assert (own.metric, own.evaluate.lowercase) == ("ter", False)
    text = make_task({"data": {"train": "a.txt", "text": True}, "compress": {}}).recipe()
    assert text is not None
    assert text.metric is None


def test_a_mapping_makes_a_task_too() -> None:
    assert make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}}).name == "task"
    with pytest.raises(TaskError) as caught:
        make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, "sead": 3})
    assert caught.value.faults[0].remedy == "did you mean seed?"


def test_tasks_are_frozen() -> None:
    task = make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}})
    with pytest.raises(ValueError, match="frozen"):
        task.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", ["e2e/task.yaml", "e2e/compress.yaml", "quickstart/task.yaml"])
def test_the_examples_are_valid(name: str) -> None:
    task = load_task(Path(__file__).parents[2] / "examples" / name, {})
    assert (task.recipe() is not None) == name.endswith("compress.yaml")
