"""Two models compared layer by layer: the figures are those of both models in memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from quantise_models import quantised_model, sequences, small_checkpoint, small_spec

from openautoglm.compress import source as sources
from openautoglm.compress.compare import compare_layers
from openautoglm.compress.quantise import quantise_checkpoint, tensors_of
from openautoglm.compress.settings import GptqSettings
from openautoglm.core.errors import DataError
from openautoglm.models.quantised_bundle import write_quantised_bundle


@torch.no_grad()
@pytest.mark.parametrize(("family", "tied"), [("glm", True), ("glm4", False)], ids=["glm-tied", "glm4"])
def test_the_figures_are_those_of_both_models_in_memory(family: str, tied: bool, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_checkpoint(tmp_path / "it", small_spec(family, tied=tied), shard="60KB")
    quantise_checkpoint(tmp_path / "it", tmp_path / "q", GptqSettings(), sequences())
    write_quantised_bundle(tmp_path / "small", tmp_path / "it", tensors_of(tmp_path / "q"))
    other = quantised_model(model, tmp_path / "q")
    texts = [(ids, 1 + number % 3) for number, ids in enumerate(sequences(7, seed=5)) if len(ids) > 4]
    monkeypatch.setattr(sources, "CHUNK_VALUES", 64 * 40)  # the head in three spans
    found = compare_layers(tmp_path / "it", tmp_path / "small", texts, tmp_path)
    kl, same, losses, tokens = 0.0, 0, [0.0, 0.0], 0
    for ids, first in texts:
        logs = [each(torch.tensor([ids])).logits[0, first - 1:-1].double().log_softmax(-1) for each in (model, other)]
        kl += float((logs[0].exp() * (logs[0] - logs[1])).sum())
        same += int((logs[0].argmax(-1) == logs[1].argmax(-1)).sum())
        wanted = torch.tensor(ids[first:])
        losses = [loss - float(log[torch.arange(len(wanted)), wanted].sum())
                  for loss, log in zip(losses, logs, strict=True)]
        tokens += len(wanted)
    assert found.tokens == tokens
    assert found.kl == pytest.approx(kl / tokens, rel=1e-3)
    assert found.agreement == pytest.approx(same / tokens)
    assert found.perplexity == pytest.approx([math.exp(loss / tokens) for loss in losses], rel=1e-3)
    fewer = compare_layers(tmp_path / "it", tmp_path / "it", [([1, 2, 3], 1)], tmp_path, vocab_size=50)
    log = model(torch.tensor([[1, 2]])).logits[0, :, :50].double().log_softmax(-1)
    assert fewer.perplexity[0] == pytest.approx(float((-(log[0, 2] + log[1, 3]) / 2).exp()), rel=1e-3)
    alone = compare_layers(tmp_path / "it", tmp_path / "it", texts, tmp_path)
    assert (alone.kl, alone.agreement) == (0, 1)
    assert alone.perplexity[0] == alone.perplexity[1] == pytest.approx(found.perplexity[0], rel=1e-9)
    assert not list(tmp_path.glob("*.bin"))


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    small_checkpoint(tmp_path / "it", small_spec())
    small_checkpoint(tmp_path / "other", small_spec(vocab_size=104))
    with pytest.raises(DataError, match="vocabularies differ: 96 and 104"):
        compare_layers(tmp_path / "it", tmp_path / "other", [([1, 2], 1)], tmp_path)
    with pytest.raises(DataError, match="no token is predicted"):
        compare_layers(tmp_path / "it", tmp_path / "it", [([1], 1)], tmp_path)
