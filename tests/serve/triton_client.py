"""Asks a server as Triton's public client does, in a process of its own, as its messages have the names of ours.

    python triton_client.py ADDRESS MODEL [admin]
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException


def inputs(name: str, *texts: str) -> Any:
    tensor = triton.InferInput(name, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    return [tensor]


def refusal(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error.status())
    return "OK"


def main(address: str, model: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    found: dict[str, Any] = {
        "live": client.is_server_live(), "ready": client.is_server_ready(), "model_ready": client.is_model_ready(model),
        "server": client.get_server_metadata().name,
        "inputs": [one.name for one in client.get_model_metadata(model).inputs],
        "index": [(one.name, one.state) for one in client.get_model_repository_index().models]}
    asks = {"max_tokens": 6, "seed": 1, "temperature": 0.5, "ignore_eos": True}
    reply = client.infer(model, inputs("text_input", "The Punter", "Café"), parameters=asks, request_id="r1")
    found["texts"] = [text.decode() for text in reply.as_numpy("text_output")]
    found["counts"] = [reply.as_numpy(name).tolist() for name in ("prompt_tokens", "completion_tokens")]
    found["id"] = reply.get_response().id
    wanted = [triton.InferRequestedOutput("embedding")]
    found["embedding"] = client.infer(model, inputs("text_input", "a b"), outputs=wanted).as_numpy("embedding").tolist()
    record = json.dumps({"name": "Alimentum", "price": "cheap"})
    found["record"] = client.infer(model, inputs("record", record), parameters=asks).as_numpy("text_output")[0].decode()
    found["refused"] = {
        "config": refusal(lambda: client.get_model_config(model)),
        "statistics": refusal(lambda: client.get_inference_statistics(model)),
        "load": refusal(lambda: client.load_model(model)), "unload": refusal(lambda: client.unload_model(model)),
        "unknown": refusal(lambda: client.infer("none", inputs("text_input", "a"))),
        "timeout": refusal(lambda: client.infer(model, inputs("text_input", "a"), timeout=5)),
        "shared_memory": refusal(lambda: client.get_system_shared_memory_status())}
    client.close()
    found["async"] = asyncio.run(asked_async(address, model, asks))
    return found


async def asked_async(address: str, model: str, asks: dict[str, Any]) -> list[str]:
    async with triton_aio.InferenceServerClient(address) as client:
        reply = await client.infer(model, inputs("text_input", "The Punter", "Café"), parameters=asks)
        return [text.decode() for text in reply.as_numpy("text_output")]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
