"""The requests of a soak: ordinary ones with random options, grammars, probes whose text is known, hostile ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from openautoglm.core.errors import GenerationError
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import Grammar
from openautoglm.engine.request import Decoding, Piece, Request
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.program import Plan
from openautoglm.text.tokenizer import END, Tokenizer

TEXTS = ['{"name": "Café Rouge", "stars": 4, "open": true}', "The Punter is a cheap pub near the river. 天地玄黃"] * 9
KINDS = {"ordinary": 70, "grammar": 8, "probe": 8, "malformed": 10, "hostile": 4}
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6},
                                           "stars": {"type": "integer", "minimum": 0, "maximum": 9}},
          "required": ["name", "stars"], "additionalProperties": False}
FAULTY_GRAMMARS = ({"regex": "(a"}, {"json_schema": {"uniqueItems": True}}, {"json_schema": {"$ref": "http://a/b"}},
                   {"json_schema": {"type": "integer", "multipleOf": 999983}}, {})


def tokenizer(folder: Path | None) -> Tokenizer:
    """The model's own, or the one of the random model."""
    return Tokenizer.train(TEXTS, 320) if folder is None else Tokenizer.load(folder)


def write_model(folder: Path, seed: int) -> None:
    """Write a small random checkpoint; made without torch."""
    words = tokenizer(None)
    spec = GlmSpec(vocab_size=words.vocab_size, hidden_size=64, layers=3, heads=4, kv_heads=2, head_dim=32,
                   ffn_size=128, max_positions=192, eos_ids=(words.special[END],))
    dice = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (64,)}
    for name in ("model.embed_tokens", "lm_head"):
        shapes[f"{name}.weight"] = (spec.vocab_size, 64)
    for layer in (f"model.layers.{number}" for number in range(spec.layers)):
        for name, width in (("q", spec.query_size), ("k", spec.kv_size), ("v", spec.kv_size)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (width, 64)
            shapes[f"{layer}.self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (64, spec.query_size)
        shapes[f"{layer}.mlp.gate_up_proj.weight"] = (256, 64)
        shapes[f"{layer}.mlp.down_proj.weight"] = (64, 128)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (64,)
    tensors = {name: dice.normal(float("norm" in name), 0.3, shape).astype(np.float32) for name, shape in
               shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(spec.config()))


class Traffic:
    """Makes requests.

    Args:
        plan: of the program.
        stop_ids: of the engine.

    Attributes:
        probes: prompts and options whose texts must not depend on their company.
    """

    def __init__(self, plan: Plan, compiler: GrammarCompiler, dice: random.Random, stop_ids: Sequence[int]) -> None:
        self._dice, self._compiler, self._stop_ids = dice, compiler, tuple(stop_ids)
        self._vocab = plan.spec.vocab_size
        self._positions = min(plan.spec.max_positions, plan.cache.slots // 2)
        self._pieces = compiler.pieces
        self._heads = [self._ids(length) for length in (9, 17, 40)]
        greedy, drawn = Decoding(max_new_tokens=24), Decoding(max_new_tokens=24, temperature=0.8, top_p=0.9, seed=7)
        self.probes = [(self._ids(length), decoding) for length in (5, 30, 50) for decoding in (greedy, drawn)]
        self._watched = 0

    def kind(self) -> str:
        """What comes next."""
        return self._dice.choices(list(KINDS), list(KINDS.values()))[0]

    def make(self, kind: str, now: float) -> Request:
        """Make a request of a kind.

        Raises:
            AutoGLMError, ValueError: it is malformed in a way that is noticed here.
        """
        if kind == "malformed":
            return self._malformed()
        if kind == "probe":
            return Request(*self._dice.choice(self.probes), salt=b"probe")
        if kind == "grammar":
            state = self._compiler.compile(self._grammar(), self._stop_ids)
            options = self._dice.choice([{}, {"temperature": 1.0}, {"temperature": 1.0, "n": 3}, {"num_beams": 3}])
            decoding = Decoding(max_new_tokens=60, seed=self._seed(), **options)
            return Request(self._prompt(60), decoding, grammar=state)
        watch = self._watcher if kind == "hostile" or self._dice.random() < 0.1 else None
        decoding = self._decoding(beams=watch is None)
        deadline = now + self._dice.uniform(0, 0.5) if self._dice.random() < 0.1 else None
        return Request(self._prompt(decoding.max_new_tokens), decoding, priority=self._dice.choice([0, 0, 0, 1, -1]),
                       deadline=deadline, watch=watch, salt=self._dice.choice([b"", b"", b"a"]))

    def listener(self, kind: str) -> Callable[[Piece], None] | None:
        """Somebody who is told of each step; of a hostile request, one that fails."""
        if kind == "hostile":
            left = self._dice.randrange(1, 12)

            def fail(piece: Piece) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise OSError("the client is gone")

            return fail
        return (lambda piece: None) if self._dice.random() < 0.3 else None

    def probe_number(self, request: Request) -> int | None:
        """Which probe a request is."""
        if request.salt != b"probe":
            return None
        return next(n for n, (prompt, decoding) in enumerate(self.probes)
                    if prompt is request.prompt and decoding is request.decoding)

    def check(self, request: Request, ids: Sequence[int], finish: str | None, violate: Callable[[str], None]) -> None:
        """Look at an answer that has ended."""
        if len(ids) > request.decoding.max_new_tokens:
            violate(f"an answer has {len(ids)} tokens, {request.decoding.max_new_tokens} were allowed")
        if request.grammar is not None and finish == "stop":
            text = b"".join(self._pieces[i] for i in ids)
            try:
                text.decode()
                if text[:1] == b"{":
                    json.loads(text)
            except ValueError as error:
                violate(f"an answer by a grammar is {text!r}: {error}")

    def _malformed(self) -> Request:
        dice = self._dice
        prompt, decoding = self._ids(4), Decoding(max_new_tokens=4)
        case = dice.randrange(9)
        if case == 0:
            raise_on = dice.choice([{"temperature": -1}, {"n": 0}, {"num_beams": 2, "temperature": 1.0}, {"seeed": 1}])
            Decoding(**raise_on)
        if case == 1:
            self._compiler.compile(Grammar(**dice.choice(FAULTY_GRAMMARS)))
        wrong: list[Request] = [
            Request([], decoding), Request([1, -1], decoding), Request([self._vocab], decoding),
            Request(self._ids(self._positions * 4), decoding),
            Request(prompt, Decoding(logit_bias=((self._vocab + 5, 1.0),))),
            Request(prompt, Decoding(num_beams=64, max_new_tokens=4)),
            Request(prompt, Decoding(num_beams=2, max_new_tokens=4), watch=self._watcher)]
        return wrong[case - 2]

    def _grammar(self) -> Grammar:
        dice = self._dice
        return dice.choice([
            Grammar(json_schema=PERSON, compact=True), Grammar(choice=("yes", "no", f"{dice.randrange(40)}")),
            Grammar(regex=f"[a-z]{{1,{dice.randrange(1, 20)}}}( [a-z]+)?"),
            Grammar(json_schema={"type": "array", "items": PERSON, "maxItems": 3})])

    def _decoding(self, beams: bool) -> Decoding:
        dice = self._dice
        common = {"max_new_tokens": dice.choice([1, 4, 16, 40, 80]), "min_tokens": dice.choice([0, 0, 3])}
        if dice.random() < 0.25:
            common |= {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2}
        if dice.random() < 0.1:
            common["logit_bias"] = ((dice.randrange(self._vocab), dice.uniform(-5, 5)),)
        if dice.random() < 0.1:
            common["stop_ids"] = (dice.randrange(self._vocab),)
        if beams and dice.random() < 0.15:
            width = dice.randrange(2, 5)
            return Decoding(num_beams=width, n=dice.randrange(1, width + 1), **common)
        common["logprobs"] = dice.choice([None, None, 0, 5])
        if dice.random() < 0.4:
            return Decoding(score=dice.random() < 0.3, ignore_stop=dice.random() < 0.2, **common)
        return Decoding(temperature=dice.choice([0.5, 1.0, 2.0]), top_k=dice.choice([0, 1, 20]),
                        top_p=dice.choice([1.0, 0.9, 0.1]), min_p=dice.choice([0.0, 0.1]), n=dice.choice([1, 1, 2, 5]),
                        seed=self._seed(), **common)

    def _watcher(self) -> Callable[[int], bool]:
        """Ends its answer after some tokens, or fails."""
        left, fails = self._dice.randrange(1, 30), self._dice.random() < 0.3

        def watch(token: int) -> bool:
            nonlocal left
            left -= 1
            if left == 0 and fails:
                raise GenerationError("the watcher fails on purpose")
            return left <= 0

        return watch

    def _prompt(self, answer: int) -> list[int]:
        """A prompt that leaves room for its answer; often with a beginning that others have, too."""
        head = self._dice.choice([[], *self._heads])
        most = max(1, self._positions - answer - len(head) - 1)
        return [*head, *self._ids(self._dice.randrange(1, min(most, 60) + 1))]

    def _ids(self, count: int) -> list[int]:
        return [self._dice.randrange(self._vocab) for _ in range(count)]

    def _seed(self) -> int:
        return self._dice.randrange(1 << 30)
