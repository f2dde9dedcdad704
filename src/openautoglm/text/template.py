"""The prompt: the single place where text becomes ids, for training, evaluation and serving alike.

Two forms. ``glm4`` is the one of the released chat checkpoints::

    [gMASK]<sop><|system|>\\n{system}<|user|>\\n{source}<|assistant|>\\n{target}<|user|>

``pair`` is a compact one for models trained from scratch on pairs; marks stand where a reader needs them, and
an answer ends with its end token, so that a conversation grows by appending::

    <sop>{source}<|assistant|>{target}<|endoftext|><|user|>{source}<|assistant|>{target}<|endoftext|>

In both, plain text (empty source, no turns, no system) is its head (``[gMASK]<sop>`` or ``<sop>``), the text
and ``<|endoftext|>``. Nothing is ever cut: lengths are the business of those who ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from openautoglm.core.errors import TokenizerError
from openautoglm.core.settings import Settings
from openautoglm.core.values import Example, Turn
from openautoglm.text.tokenizer import ASSISTANT, END, GMASK, OBSERVATION, START, SYSTEM, USER, Tokenizer

_MARKS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "observation": OBSERVATION}


class Encoded(NamedTuple):
    """An example as ids; the loss counts on ``ids[prompt_tokens:]`` only, the end token included."""

    ids: list[int]
    prompt_tokens: int


class Frame(NamedTuple):
    """What stands around a text in a prompt, for programs that make prompts without us.

    The ids of a prompt: `before`, those of `lead` and the text together, `after`; of no text at all: `empty`. An answer
    ends with one of `stops`, and `strip` at its start is no part of it.
    """

    before: list[int]
    lead: str
    after: list[int]
    empty: list[int]
    stops: tuple[int, ...]
    strip: str


class _Piece(NamedTuple):
    """One special token (`special`) or a run of plain text."""

    text: str
    special: bool = False


class Template(Settings):
    """How a source and its turns become a prompt, and where a target ends.

    Attributes:
        kind: the form, see the head of this file.
        system: a text that stands before every prompt which brings no system turn of its own.
    """

    kind: Literal["glm4", "pair"] = "pair"
    system: str | None = None

    def prompt(self, source: str, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
        """Return the ids after which the model writes its answer.

        Raises:
            TokenizerError: a turn has a role that the template does not know, or a text is not Unicode.
        """
        return _join(self._prompt(source, turns), tokenizer)

    def encode(self, example: Example, tokenizer: Tokenizer) -> Encoded:
        """Return prompt, target and end token of one example."""
        return self.encode_many([example], tokenizer)[0]

    def encode_many(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return `encode` of each example; all texts are tokenised in one batch."""
        prompts = [self._prompt(example.source, example.turns) for example in examples]
        targets = [
            self._target(example, plain=len(prompt) == self._head_pieces)
            for example, prompt in zip(examples, prompts, strict=True)
        ]
        pieces = [piece for pair in zip(prompts, targets, strict=True) for part in pair for piece in part]
        ids = iter(_ids(pieces, tokenizer))
        encoded = []
        for prompt, target in zip(prompts, targets, strict=True):
            row = [i for _ in prompt for i in next(ids)]
            prompt_tokens = len(row)
            row.extend(i for _ in target for i in next(ids))
            encoded.append(Encoded(row, prompt_tokens))
        return encoded

    def opening(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids with which the form itself begins every answer.

        They may stand at the end of a prompt, so that what is generated is the answer's text and nothing else, e.g.
        where it must follow a grammar; `reply` leaves the same text out where they are generated.
        """
        return tokenizer.encode("\n") if self.kind == "glm4" else []

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the ids that end an answer."""
        stops = (END, USER, OBSERVATION) if self.kind == "glm4" else (END,)
        return tuple(tokenizer.special[token] for token in stops if token in tokenizer.special)

    def frame(self, tokenizer: Tokenizer) -> Frame:
        """Return what stands around a text without turns.

        Raises:
            TokenizerError: the tokenizer lacks a special token of the form.
        """
        mark = "\0"
        pieces = self._prompt(mark, ())
        place = next(number for number, piece in enumerate(pieces) if piece.text.endswith(mark) and not piece.special)
        lead = pieces[place].text.removesuffix(mark)
        return Frame(_join(pieces[:place], tokenizer), lead, _join(pieces[place + 1:], tokenizer),
                     self.prompt("", (), tokenizer), self.stop_ids(tokenizer), "\n" if self.kind == "glm4" else "")

    def reply(self, ids: Sequence[int], tokenizer: Tokenizer) -> str:
        """Return the text of a generated answer: no special tokens, nor the form's own line break."""
        text = tokenizer.decode(ids)
        return text.removeprefix("\n") if self.kind == "glm4" else text

    @property
    def _head_pieces(self) -> int:
        return 2 if self.kind == "glm4" else 1

    def _prompt(self, source: str, turns: Sequence[Turn]) -> list[_Piece]:
        head = [_Piece(GMASK, True), _Piece(START, True)] if self.kind == "glm4" else [_Piece(START, True)]
        if self.system is not None and not any(turn.role == "system" for turn in turns):
            turns = (Turn("system", self.system), *turns)
        if not turns and not source:
            return head
        answers_tool = not source and turns[-1].role == "observation"
        pieces = head
        for turn in turns if answers_tool else (*turns, Turn("user", source)):
            pieces = pieces + self._turn(turn, first=len(pieces) == self._head_pieces)
        return [*pieces, _Piece(ASSISTANT, True)]

    def _turn(self, turn: Turn, *, first: bool) -> list[_Piece]:
        mark = _MARKS.get(turn.role)
        if mark is None:
            raise TokenizerError(
                f"a turn has the unknown role {turn.role!r}", remedy=f"use one of {', '.join(_MARKS)}"
            )
        if self.kind == "glm4":
            return [_Piece(mark, True), _Piece(f"\n{turn.text}")]
        if first and turn.role == "user":
            return [_Piece(turn.text)]
        end = [_Piece(END, True)] if turn.role == "assistant" else []
        return [_Piece(mark, True), _Piece(turn.text), *end]

    def _target(self, example: Example, *, plain: bool) -> list[_Piece]:
        if plain or self.kind == "pair":
            return [_Piece(example.target), _Piece(END, True)]
        return [_Piece(f"\n{example.target}"), _Piece(USER, True)]


def _join(pieces: Sequence[_Piece], tokenizer: Tokenizer) -> list[int]:
    return [i for ids in _ids(pieces, tokenizer) for i in ids]


def _ids(pieces: Sequence[_Piece], tokenizer: Tokenizer) -> list[list[int]]:
    plain = iter(tokenizer.encode_batch([piece.text for piece in pieces if not piece.special]))
    try:
        return [[tokenizer.special[piece.text]] if piece.special else next(plain) for piece in pieces]
    except KeyError as error:
        raise TokenizerError(
            f"the tokenizer lacks the special token {error}",
            remedy="use the template kind `pair`, or a GLM-4 tokenizer",
        ) from error
