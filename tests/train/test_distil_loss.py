"""The distillation loss against plain formulas: values, gradients, kept probabilities."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from openautoglm.train import distil_loss
from openautoglm.train.distil_loss import Top, Whole, distil_sums, top_shares

T, H, H2, V = 70, 12, 10, 31


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(distil_loss, "_CHUNK_BYTES", 1)  # 32 rows a chunk


def material(vocabulary: int = V):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return (normal(T, H).requires_grad_(), normal(V, H).requires_grad_(), torch.randint(V, (T,), generator=generator),
            Whole(normal(T, H2), normal(vocabulary, H2)), torch.rand(T, generator=generator))


def reference(logits, labels, q_logits, alpha, temperature, smoothing, weights):
    """Straight from the formula, with autograd's own gradients."""
    hard = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    soft = F.kl_div(F.log_softmax(logits / temperature, -1), F.log_softmax(q_logits / temperature, -1),
                    reduction="none", log_target=True).sum(-1)
    terms = (1 - alpha) * hard + alpha * temperature**2 * soft
    return (terms if weights is None else terms * weights).sum()


@pytest.mark.parametrize(("alpha", "temperature", "smoothing", "weighted"), [
    (0.7, 2.0, 0.1, True), (1.0, 1.0, 0.0, False), (0.0, 3.0, 0.1, True), (0.5, 0.7, 0.0, True)],
    ids=["usual", "teacher-alone", "labels-alone", "sharpened"])
def test_values_and_gradients_are_those_of_the_formula(alpha, temperature, smoothing, weighted):
    hidden, head, labels, teacher, weights = material()
    weights = weights if weighted else None
    objective, nll = distil_sums(hidden, head, labels, teacher, alpha=alpha, temperature=temperature,
                                 smoothing=smoothing, weights=weights)
    (3 * objective).backward()
    found = hidden.grad.clone(), head.grad.clone()
    hidden.grad = head.grad = None
    logits = hidden @ head.t()
    expected = reference(logits, labels, teacher.hidden @ teacher.head.t(), alpha, temperature, smoothing, weights)
    (3 * expected).backward()
    torch.testing.assert_close(objective, expected)
    torch.testing.assert_close(nll, F.cross_entropy(logits.detach(), labels, reduction="sum"))
    torch.testing.assert_close(found, (hidden.grad, head.grad), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [V - 4, V + 4], ids=["teacher-narrower", "teacher-wider"])
def test_vocabularies_of_other_padding_are_fitted(vocabulary):
    hidden, head, labels, teacher, _ = material(vocabulary)
    objective, _ = distil_sums(hidden, head, labels, teacher, alpha=1.0, temperature=1.0)
    theirs = (teacher.hidden @ teacher.head.t())[:, :V]
    logq = F.log_softmax(theirs, -1)
    logp = F.log_softmax(hidden @ head.t(), -1)[:, : logq.shape[1]]
    torch.testing.assert_close(objective, (logq.exp() * (logq - logp)).sum())


def test_all_kept_probabilities_are_the_whole_distribution():
    hidden, head, labels, teacher, weights = material()
    results = []
    for source in (teacher, top_shares(teacher.hidden, teacher.head, V, 2.0)):
        hidden.grad = head.grad = None
        objective, _ = distil_sums(hidden, head, labels, source, alpha=0.6, temperature=2.0, weights=weights)
        objective.backward()
        results.append((objective.detach(), hidden.grad, head.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_few_kept_probabilities_leave_one_outcome_over():
    hidden, head, labels, teacher, weights = material()
    top = top_shares(teacher.hidden, teacher.head, 4, 2.0)
    q = F.softmax(teacher.hidden @ teacher.head.t() / 2, -1)
    torch.testing.assert_close(top.shares, q.topk(4, -1).values)
    torch.testing.assert_close(top.rest[:, 0], 1 - top.shares.sum(1))
    objective, _ = distil_sums(hidden, head, labels, top, alpha=1.0, temperature=2.0, weights=weights)
    objective.backward()
    found = hidden.grad.clone(), head.grad.clone()
    hidden.grad = head.grad = None
    p = F.softmax(hidden @ head.t() / 2, -1).gather(1, top.ids)
    q = torch.cat([top.shares, 1 - top.shares.sum(1, keepdim=True)], 1)
    p = torch.cat([p, 1 - p.sum(1, keepdim=True)], 1)
    expected = 4 * ((q * (q.log() - p.log())).sum(1) * weights).sum()
    expected.backward()
    torch.testing.assert_close(objective, expected)
    torch.testing.assert_close(found, (hidden.grad, head.grad), rtol=1e-4, atol=1e-4)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn():
    hidden, head, labels, _, _ = material()
    for teacher in (Whole(hidden.detach(), head.detach()), top_shares(hidden.detach(), head.detach(), 5, 1.5)):
        hidden.grad = None
        objective, _ = distil_sums(hidden, head, labels, teacher, alpha=1.0, temperature=1.5)
        objective.backward()
        assert abs(float(objective.detach())) < 1e-4
        assert hidden.grad.abs().max() < 1e-5


def test_kept_half_precision_certainty_is_no_trouble():
    hidden, head, labels, _, _ = material()
    sure = Top(torch.tensor([[1.0, 0.0]], dtype=torch.float16).repeat(T, 1), torch.tensor([[3, 4]]).repeat(T, 1),
               torch.zeros(T, 1))
    objective, _ = distil_sums(hidden, head, labels, sure, alpha=1.0, temperature=1.0)
    objective.backward()
    torch.testing.assert_close(objective.detach(), F.cross_entropy(hidden @ head.t(), torch.full((T,), 3),
                                                                   reduction="sum").detach())
    assert torch.isfinite(hidden.grad).all()
