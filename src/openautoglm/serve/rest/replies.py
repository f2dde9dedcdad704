"""The forms of replies, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """The base of all replies."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), defer_build=True)


class ErrorFacts(Reply):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str


class Error(Reply):
    """An error in OpenAI's form."""

    error: ErrorFacts


class Dropped(Reply):
    """What was left out of a prompt that was too long."""

    messages: int
    tokens: int


class Usage(Reply):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    dropped: Dropped = Field(default=Dropped(messages=0, tokens=0))


class CompletionLogprobs(Reply):
    """Log-probabilities of an answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Reply):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(Reply):
    """The answers to a completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class TopLogprob(Reply):
    """A likely token."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Reply):
    """Log-probabilities of an answer."""

    content: list[TokenLogprob]
    refusal: None


class CalledFunction(Reply):
    """Name and arguments of a call."""

    name: str
    arguments: str


class ToolCall(Reply):
    """A call."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Reply):
    """An answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] = Field(default=[])


class ChatChoice(Reply):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class Unkept(Reply):
    """Why an answer was not kept in its conversation."""

    name: str
    kept: Literal[False]
    error: ErrorFacts


class Chat(Reply):
    """The answers in a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    conversation: Unkept | None = Field(default=None)


class CompletionChunkChoice(Reply):
    """What is added to one answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionChunk(Reply):
    """An event of a streamed completion; the last one before the end has no choices, and the counts where asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChunkChoice]
    usage: Usage | None = None


class FunctionPart(Reply):
    """A part of a call: its name comes first, then its arguments bit by bit."""

    name: str = ""
    arguments: str


class ToolCallPart(Reply):
    """A part of a call."""

    index: int
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionPart


class ChatDelta(Reply):
    """What is added to one answer; the first says whose turn it is."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    tool_calls: list[ToolCallPart] = Field(default=[])


class ChatChunkChoice(Reply):
    """What is added to one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatChunk(Reply):
    """An event of a streamed chat; the last one before the end has no choices, and the counts where asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class EmbeddingUsage(Reply):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Reply):
    """The vector of one input; base64 of little-endian fp32 where that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(Reply):
    """The vectors of all inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(Reply):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    fingerprint: str | None


class Models(Reply):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Tokens(Reply):
    """The ids of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] = Field(default=[])


class Text(Reply):
    """The text of ids."""

    prompt: str


class Status(Reply):
    """How the server stands."""

    status: str
    reason: str = ""


class Version(Reply):
    """The version."""

    version: str


