"""What a client may ask for, whatever it speaks; the fields are OpenAI's, and vLLM's where those have none.

A field that is left out or null takes the default of the bundle's card or of the model. `validate.py` holds an ask
against the bounds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from openautoglm.serve.wire.fields import Ask, Count, Flag, Ids, Int, Real, Text, TokenId
from openautoglm.serve.wire.messages import Message, Tool, ToolChoice
from openautoglm.serve.wire.unions import Prompt, Stop, Texts

Record = dict[str, Any]
Truncate = Literal["off", "turns", "window"]


class StreamOptions(Ask):
    """Options of a streamed answer.

    Attributes:
        include_usage: send the counts of tokens as the last event.
        include_obfuscation: of no effect: nothing is padded.
    """

    include_usage: Flag | None = None
    include_obfuscation: Flag | None = None


class JsonSchema(Ask):
    """A schema with its name, as `response_format` has it."""

    name: Text = Field(min_length=1)
    description: Text | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: Flag | None = None


class ResponseFormat(Ask):
    """The form of the answer: any text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Ask):
    """The form of the answer in more ways than `response_format` has; exactly one of them."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    json_object: Flag | None = None
    regex: Text | None = None
    choice: tuple[Text, ...] | None = None


class GenerationAsk(Ask):
    """What completions and chats have in common.

    Attributes:
        model: name of the model.
        max_tokens: bound on the tokens of an answer.
        temperature: 0 takes the likeliest token.
        top_p, top_k, min_p: bounds on what is drawn from.
        n: answers to each prompt.
        seed: same seed, prompt and model: same answer.
        stop: strings that end an answer; they are not part of it.
        stop_token_ids: ids that end it.
        ignore_eos: the model's own end does not end it.
        min_tokens: it does not end before so many tokens.
        presence_penalty, frequency_penalty, repetition_penalty: against repetition.
        logit_bias: added to the logits of ids, by id.
        num_beams, length_penalty: of a beam search.
        stream, stream_options: send the answer piece by piece.
        response_format, structured_outputs: the form that the answer must have.
        timeout_s: seconds that the request may take, the queue included.
        truncate: of a prompt that is too long: refuse it (`off`), leave out the oldest turns (`turns`), or those and
            then the beginning of its text (`window`).
        cache: whether the answer may be one that was given before to the same request, where it is one of temperature 0
            or has a seed; as the server was started where left out. A server without a registry has no such answers.
        user, metadata, store, service_tier, safety_identifier, prompt_cache_key, prompt_cache_retention: of no effect.
    """

    model: Text = Field(min_length=1)
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    temperature: Annotated[Real, Field(ge=0, le=100)] | None = None
    top_p: Annotated[Real, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[Real, Field(ge=0, le=1)] | None = None
    n: Annotated[Int, Field(ge=1)] | None = None
    seed: Annotated[Int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | None = None
    stop_token_ids: Ids | None = None
    ignore_eos: Flag | None = None
    min_tokens: Count | None = None
    presence_penalty: Annotated[Real, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Real, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Real, Field(ge=0.01, le=10)] | None = None
    logit_bias: dict[Annotated[Text, Field(pattern=r"^[0-9]{1,9}$")],
                     Annotated[Real, Field(ge=-100, le=100)]] | None = None
    num_beams: Annotated[Int, Field(ge=1)] | None = None
    length_penalty: Annotated[Real, Field(ge=-10, le=10)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    timeout_s: Annotated[Real, Field(gt=0)] | None = None
    truncate: Truncate | None = None
    cache: Flag | None = None
    user: Text | None = None
    metadata: dict[str, Text] | None = None
    store: Flag | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None


class CompletionAsk(GenerationAsk):
    """Texts, records or ids to be answered or continued.

    Attributes:
        prompt: a text, a record (an object with the columns that the bundle was trained on), ids, or a list of these.
        raw: continue texts as they stand, without the bundle's template; its own way where left out.
        logprobs: report so many of each token's likeliest ids.
        echo, best_of, suffix: not supported; taken where they say nothing.
    """

    prompt: Prompt
    raw: Flag | None = None
    logprobs: Count | None = None
    echo: Flag | None = None
    best_of: Count | None = None
    suffix: Text | None = None


class ChatAsk(GenerationAsk):
    """A conversation to be gone on with.

    Attributes:
        messages: oldest first; the last is the user's, or a tool's result.
        max_completion_tokens: as `max_tokens`.
        logprobs, top_logprobs: report each token's log-probability, and those of so many likeliest ids.
        conversation: name of a conversation that the server keeps; `messages` go on from there.
        tools, tool_choice: one function may be forced to be called; the models' templates describe none.
        parallel_tool_calls, verbosity: of no effect.
        modalities: text alone.
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    logprobs: Flag | None = None
    top_logprobs: Count | None = None
    conversation: Text | None = Field(default=None, min_length=1)
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: Flag | None = None
    modalities: tuple[Literal["text"], ...] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class EmbeddingAsk(Ask):
    """Texts or ids whose mean hidden state is wanted.

    Attributes:
        encoding_format: a list of numbers, or base64 of little-endian fp32.
        dimensions: the model's own width; no other is supported.
    """

    model: Text = Field(min_length=1)
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Int, Field(ge=1)] | None = None
    user: Text | None = None


class TokenizeAsk(Ask):
    """A text, a record or a conversation whose ids are wanted.

    Attributes:
        add_special_tokens: with the template's marks, as generation sees it; a text alone where false.
        return_token_strs: the text of each id too.
    """

    model: Text | None = Field(default=None, min_length=1)
    prompt: Text | Record | None = None
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    add_special_tokens: Flag | None = None
    return_token_strs: Flag | None = None


class DetokenizeAsk(Ask):
    """Ids whose text is wanted."""

    model: Text | None = Field(default=None, min_length=1)
    tokens: tuple[TokenId, ...]
