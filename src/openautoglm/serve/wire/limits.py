"""The one table of bounds on what a client may ask; REST and gRPC keep to the same."""

from __future__ import annotations

from pydantic import Field

from openautoglm.core.settings import Settings


class Limits(Settings):
    """Bounds on one request.

    What a model can is bounded besides: prompt and answer share its positions.

    Attributes:
        body_bytes: of a request's body; larger ones are refused before they are read.
        body_s: seconds in which the body must have come.
        json_depth: levels of brackets of a body.
        text_chars: of one text.
        prompt_tokens: of one prompt.
        max_tokens: of one answer.
        n: answers to one prompt.
        batch: prompts of one request.
        answers: prompts times `n` of one request.
        messages: of a conversation.
        stops: stop strings.
        stop_chars: of one stop string.
        stop_ids: ids that end an answer.
        logit_bias: ids whose logits are changed.
        logprobs: likeliest ids that are reported of each token.
        beams: of a search.
        tools: functions that are described.
        grammar_bytes: of a schema, a pattern or a list of choices, and of the functions' descriptions.
        grammar_depth: levels of a schema.
        name_chars: of names, e.g. of a model, a conversation or a user.
        ids: that are turned into text at once.
        timeout_s: seconds that a request may take, the queue included; also where a client names no time.
        stall_s: seconds that a client may leave a piece unread before it counts as gone.
    """

    body_bytes: int = Field(default=4 << 20, ge=1024)
    body_s: float = Field(default=30.0, gt=0)
    json_depth: int = Field(default=64, ge=4, le=200)
    text_chars: int = Field(default=1 << 20, ge=1)
    prompt_tokens: int = Field(default=1 << 20, ge=1)
    max_tokens: int = Field(default=1 << 17, ge=1)
    n: int = Field(default=16, ge=1, le=256)
    batch: int = Field(default=64, ge=1)
    answers: int = Field(default=128, ge=1)
    messages: int = Field(default=1024, ge=1)
    stops: int = Field(default=16, ge=0)
    stop_chars: int = Field(default=256, ge=1)
    stop_ids: int = Field(default=64, ge=0)
    logit_bias: int = Field(default=1024, ge=0)
    logprobs: int = Field(default=20, ge=0, le=100)
    beams: int = Field(default=16, ge=1, le=64)
    tools: int = Field(default=64, ge=0)
    grammar_bytes: int = Field(default=65_536, ge=16)
    grammar_depth: int = Field(default=48, ge=1)
    name_chars: int = Field(default=256, ge=16)
    ids: int = Field(default=1 << 17, ge=1)
    timeout_s: float = Field(default=600.0, gt=0)
    stall_s: float = Field(default=30.0, gt=0)
