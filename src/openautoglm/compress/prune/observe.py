"""What flows into a model's matrices and through its layers, by hooks on a forward pass.

Letters in names: B rows of a batch, L tokens of a row, N real tokens, I inputs of a matrix, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from openautoglm.compress.prune.examples import ExampleBatch, loss_sum
from openautoglm.core.progress import progress


class InputNorms:
    """Sums of the squares of a matrix's inputs over all tokens: `squares` [I], fp32."""

    def __init__(self, matrix: nn.Linear) -> None:
        self.squares = torch.zeros(matrix.in_features, device=matrix.weight.device)

    def add(self, x_NI: Tensor) -> None:
        """Count some tokens."""
        self.squares += x_NI.square().sum(0)


class Hessian:
    """Sum of ``x x^T`` of a matrix's inputs over all tokens: `products` [I, I], fp32."""

    def __init__(self, matrix: nn.Linear) -> None:
        self.products = torch.zeros(matrix.in_features, matrix.in_features, device=matrix.weight.device)

    @property
    def squares(self) -> Tensor:
        """As that of `InputNorms`."""
        return self.products.diagonal()

    def add(self, x_NI: Tensor) -> None:
        """Count some tokens."""
        self.products.addmm_(x_NI.t(), x_NI)


Inputs = InputNorms | Hessian
Run = Callable[[Any, Mapping[nn.Linear, Inputs]], None]


class Watch:
    """Hands the inputs of some matrices to their counters; `real` says which tokens of a batch count."""

    def __init__(self, counters: Mapping[nn.Linear, Inputs]) -> None:
        self.real: Tensor | None = None
        self._handles = [matrix.register_forward_pre_hook(self._hook(counter)) for matrix, counter in counters.items()]

    def _hook(self, counter: Inputs) -> Any:
        def count(_module: nn.Module, args: tuple[Any, ...]) -> None:
            assert self.real is not None
            counter.add(args[0].detach()[self.real].float())

        return count

    def close(self) -> None:
        """Take the hooks off."""
        remove(self._handles)


def watch_inputs(model: Any, batches: Sequence[ExampleBatch], counters: Mapping[nn.Linear, Inputs]) -> None:
    """Run all batches, and count what flows into the matrices."""
    watch = Watch(counters)
    with progress(len(batches), "prune: inputs", "batches") as bar, quiet(model):
        try:
            for batch in batches:
                watch.real = batch.real
                model.model(input_ids=batch.ids, use_cache=False)
                bar.advance()
        finally:
            watch.close()


class _Reached(Exception):  # noqa: N818  # a signal: the input of the first layer is there
    """Ends a forward pass at the first layer."""


def walk_layers(model: Any, batches: Sequence[ExampleBatch]) -> Iterator[tuple[int, Any, Run]]:
    """Go through the layers in order, with what flows into each.

    Yields number, layer and ``run(layer, counters)``, which runs all batches through the layer and counts the inputs of
    some of its matrices. What is changed in a layer before the next one is asked for acts on the next one's inputs.
    """
    kept: list[tuple[Tensor, dict[str, Any]]] = []

    def stop(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        kept.append((args[0], options))
        raise _Reached

    handle = model.model.layers[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        for batch in batches:
            try:
                model.model(input_ids=batch.ids, use_cache=False)
            except _Reached:
                continue
    finally:
        remove([handle])

    def run(layer: Any, counters: Mapping[nn.Linear, Inputs]) -> None:
        watch = Watch(counters)
        try:
            for batch, (states, options) in zip(batches, kept, strict=True):
                watch.real = batch.real
                layer(states, **options)
        finally:
            watch.close()

    for number, layer in enumerate(model.model.layers):
        yield number, layer, run
        for place, (states, options) in enumerate(kept):
            kept[place] = (layer(states, **options), options)


def block_influence(model: Any, batches: Sequence[ExampleBatch]) -> Tensor:
    """How much each layer turns its input: 1 - the mean cosine of input and output, [layers].

    Men et al. 2024, "ShortGPT" (arXiv 2403.03853).
    """
    turned = torch.zeros(len(model.model.layers), dtype=torch.float64)
    real: Tensor | None = None

    def hook(number: int) -> Any:
        def look(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            one, other = args[0][real].float(), output[real].float()
            turned[number] += float((1 - torch.cosine_similarity(one, other, dim=-1)).sum())

        return look

    handles = [layer.register_forward_hook(hook(number)) for number, layer in enumerate(model.model.layers)]
    with progress(len(batches), "prune: layers", "batches") as bar, quiet(model):
        try:
            for batch in batches:
                real = batch.real
                model.model(input_ids=batch.ids, use_cache=False)
                bar.advance()
        finally:
            remove(handles)
    return turned.float() / sum(int(batch.real.sum()) for batch in batches)


def input_effects(model: Any, batches: Sequence[ExampleBatch],
                  matrices: Sequence[tuple[nn.Linear, int]]) -> list[Tensor]:
    """By how much the loss would change without parts of a matrix's inputs, to first order, squared and summed.

    Parts are runs of inputs of equal width. A part's effect on the loss of one example is the sum of ``x * dloss/dx``
    over its inputs and all tokens, which is that of ``w * dloss/dw`` over their columns (Molchanov et al. 2019,
    arXiv 1906.10771).

    Args:
        matrices: each with the width of its parts; one may be named several times.

    Returns:
        For each entry of `matrices` the sums over the examples, [parts].
    """
    found = [torch.zeros(matrix.in_features // width, device=matrix.weight.device) for matrix, width in matrices]
    seen: dict[nn.Linear, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        args[0].retain_grad()
        seen[module] = args[0]  # type: ignore[index]

    distinct = {matrix for matrix, _ in matrices}
    handles = [matrix.register_forward_pre_hook(keep) for matrix in distinct]
    with progress(len(batches), "prune: gradients", "batches") as bar, frozen(model):
        try:
            for batch in batches:
                embedded = model.model.embed_tokens(batch.ids).detach().requires_grad_()
                loss_sum(model, batch, inputs_embeds=embedded).backward()  # type: ignore[no-untyped-call]
                for place, (matrix, width) in enumerate(matrices):
                    x_BLI = seen[matrix]
                    assert x_BLI.grad is not None
                    effect = (x_BLI.detach().float() * x_BLI.grad.float()).sum(1)
                    found[place] += effect.view(len(effect), -1, width).sum(-1).square().sum(0)
                seen.clear()
                bar.advance()
        finally:
            remove(handles)
    return found


def weight_effects(model: Any, batches: Sequence[ExampleBatch], matrices: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """``|w * dloss/dw|`` of every weight, summed over the batches, fp32."""
    found = {name: torch.zeros_like(matrix.weight, dtype=torch.float32) for name, matrix in matrices.items()}
    with progress(len(batches), "prune: gradients", "batches") as bar, frozen(model):
        for matrix in matrices.values():
            matrix.weight.requires_grad_()
        for batch in batches:
            loss_sum(model, batch).backward()  # type: ignore[no-untyped-call]
            for name, matrix in matrices.items():
                assert matrix.weight.grad is not None
                found[name] += (matrix.weight.detach().float() * matrix.weight.grad.float()).abs()
                matrix.weight.grad = None
            bar.advance()
    return found


@contextmanager
def quiet(model: Any) -> Iterator[None]:
    """Inside, the model is in evaluation mode and no gradient is kept."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Inside, the model is in evaluation mode and no parameter asks for a gradient; then all is as before."""
    training, asked = model.training, [parameter.requires_grad for parameter in model.parameters()]
    kept = [parameter.grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for parameter, was, grad in zip(model.parameters(), asked, kept, strict=True):
            parameter.requires_grad_(was)
            parameter.grad = grad


def remove(handles: Sequence[RemovableHandle]) -> None:
    """Take hooks off."""
    for handle in handles:
        handle.remove()
