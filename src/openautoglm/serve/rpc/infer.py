"""ModelInfer: from tensors and parameters to an ask, from its answers to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from openautoglm.protos import inference_pb2 as pb
from openautoglm.serve.faults import BadRequest, Unsupported
from openautoglm.serve.rpc.fields import conversation_of, plain, record_of
from openautoglm.serve.rpc.serving import Call, Serving
from openautoglm.serve.rpc.tensors import Outputs, inputs_of, text_of
from openautoglm.serve.rpc.text import opened, show
from openautoglm.serve.service.answering import Answering
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, EmbeddingAsk
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import read_ask

ANSWERS = ("text_output", "finish_reason", "prompt_tokens", "completion_tokens")
EMBEDDING = "embedding"
_TAKEN = frozenset({"model", "prompt", "input", "messages", "stream", "stream_options", "encoding_format"})


async def infer(request: Any, model: str, serving: Serving, call: Call) -> Any:
    """The reply to a request for a model.

    Raises:
        Fault: as the validator and the service say.
    """
    wanted, ask = _ask(request, model, serving.limits)
    reply = pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    outputs = Outputs(reply, raw=bool(request.raw_input_contents), wanted=wanted)
    show(serving, ask, call)
    if isinstance(ask, EmbeddingAsk):
        async with serving.models.use(ask.model) as service:
            vectors, usage = await service.embed(ask, call.caller)
        outputs.numbers(EMBEDDING, "FP32", vectors)
        outputs.numbers("prompt_tokens", "INT64", np.array([usage.prompt_tokens]))
    else:
        async with opened(serving, ask, call) as (_, answering):
            await _answers(answering, outputs)
    return reply


async def _answers(answering: Answering, outputs: Outputs) -> None:
    texts, finishes = [""] * answering.count, [""] * answering.count
    async with aclosing(answering.stream()) as deltas:
        async for delta in deltas:
            texts[delta.choice] += delta.text
            finishes[delta.choice] = delta.finish or finishes[delta.choice]
    outputs.texts("text_output", texts)
    outputs.texts("finish_reason", finishes)
    outputs.numbers("prompt_tokens", "INT64", np.array([answering.usage.prompt_tokens]))
    outputs.numbers("completion_tokens", "INT64", np.array([answering.usage.completion_tokens]))


def _ask(request: Any, model: str, limits: Limits) -> tuple[Sequence[str], CompletionAsk | ChatAsk | EmbeddingAsk]:
    """The outputs that are wanted, and what is asked."""
    wanted = _wanted(request)
    inputs = inputs_of(request)
    if len(inputs) != 1:
        raise BadRequest(f"there are {len(inputs)}", where="inputs", remedy="give one of text_input, record, messages")
    (name, elements), = inputs.items()
    fields = {**_parameters(request.parameters, limits), "model": model}
    if EMBEDDING in wanted:
        if name != "text_input":
            raise BadRequest(f"there are no embeddings of {name}", where="inputs", remedy="give text_input")
        fields["input"] = [text_of(element, f"text_input.{number}") for number, element in enumerate(elements)]
        return wanted, read_ask(EmbeddingAsk, fields, limits)
    if name == "messages":
        if len(elements) != 1:
            raise BadRequest(f"has {len(elements)} elements", where="messages",
                             remedy="give one: a JSON list of the messages of one conversation")
        fields["messages"] = conversation_of(elements[0], "messages", limits)
        return wanted, read_ask(ChatAsk, fields, limits)
    fields["prompt"] = [text_of(element, f"{name}.{number}") if name == "text_input" else
                        record_of(element, f"{name}.{number}", limits) for number, element in enumerate(elements)]
    return wanted, read_ask(CompletionAsk, fields, limits)


def _wanted(request: Any) -> Sequence[str]:
    wanted = [output.name for output in request.outputs]
    if any(output.parameters for output in request.outputs):
        raise Unsupported("parameters of outputs, such as shared memory, are not supported", where="outputs",
                          remedy="leave them out")
    known = (EMBEDDING, "prompt_tokens") if EMBEDDING in wanted else ANSWERS
    for number, name in enumerate(wanted):
        if name not in known:
            raise BadRequest(f"{name[:100]!r} is no output, or none beside the others", where=f"outputs.{number}.name",
                             remedy=f"ask for some of {', '.join(ANSWERS)}, or for {EMBEDDING}")
    return wanted


def _parameters(given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Parameters as fields of an ask; `options` is a JSON object of further fields."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise BadRequest("has no value", where=f"parameters.{name[:100]}", remedy="give one")
        if name != "options":
            fields[name] = next(iter(plain(value).values()))
            continue
        if kind != "string_param":
            raise BadRequest("is no text", where="parameters.options", remedy="give a JSON object as text")
    if "options" in given:
        more = record_of(given["options"].string_param.encode(), "parameters.options", limits)
        twice = next((name for name in more if name in fields), None)
        if twice is not None:
            raise BadRequest("stands in the parameters, too", where=f"options.{twice[:100]}", remedy="give it once")
        fields |= more
    taken = next((name for name in fields if name in _TAKEN), None)
    if taken is not None:
        raise BadRequest("is no parameter here", where=f"parameters.{taken}",
                         remedy="give prompts as tensors; for streams use autoglm.v1.TextService")
    return fields
