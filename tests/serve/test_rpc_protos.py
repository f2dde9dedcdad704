"""The files of the wire: numbers of the standard, and generated code that is theirs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from openautoglm.protos import inference_pb2

ROOT = Path(__file__).resolve().parents[2]
STANDARD = {
    "ServerLiveResponse": "live=1", "ServerReadyResponse": "ready=1", "ModelReadyRequest": "name=1 version=2",
    "ModelReadyResponse": "ready=1", "ServerMetadataResponse": "name=1 version=2 extensions=3",
    "ModelMetadataRequest": "name=1 version=2",
    "ModelMetadataResponse": "name=1 versions=2 platform=3 inputs=4 outputs=5",
    "ModelMetadataResponse.TensorMetadata": "name=1 datatype=2 shape=3",
    "InferParameter": "bool_param=1 int64_param=2 string_param=3 double_param=4 uint64_param=5",
    "InferTensorContents": "bool_contents=1 int_contents=2 int64_contents=3 uint_contents=4 uint64_contents=5 "
                           "fp32_contents=6 fp64_contents=7 bytes_contents=8",
    "ModelInferRequest": "model_name=1 model_version=2 id=3 parameters=4 inputs=5 outputs=6 raw_input_contents=7",
    "ModelInferRequest.InferInputTensor": "name=1 datatype=2 shape=3 parameters=4 contents=5",
    "ModelInferRequest.InferRequestedOutputTensor": "name=1 parameters=2",
    "ModelInferResponse": "model_name=1 model_version=2 id=3 parameters=4 outputs=5 raw_output_contents=6",
    "ModelInferResponse.InferOutputTensor": "name=1 datatype=2 shape=3 parameters=4 contents=5",
    "RepositoryIndexRequest": "repository_name=1 ready=2", "RepositoryIndexResponse": "models=1",
    "RepositoryIndexResponse.ModelIndex": "name=1 version=2 state=3 reason=4",
    "RepositoryModelLoadRequest": "model_name=1 triton_model_name=2 parameters=3",
    "RepositoryModelLoadResponse": "model_name=1 isLoaded=2",
    "RepositoryModelUnloadRequest": "model_name=1 triton_model_name=2 parameters=3",
    "RepositoryModelUnloadResponse": "model_name=1 isUnloaded=2",
}


@pytest.mark.parametrize("name", STANDARD)
def test_numbers_are_the_standards(name: str) -> None:
    first, *rest = name.split(".")
    message = inference_pb2.DESCRIPTOR.message_types_by_name[first]
    for part in rest:
        message = message.nested_types_by_name[part]
    assert " ".join(f"{field.name}={field.number}" for field in message.fields) == STANDARD[name]


def test_generated_code_fits_the_proto_files(tmp_path: Path) -> None:
    try:
        found = version("grpcio-tools")
    except PackageNotFoundError:
        pytest.skip("grpcio-tools is not installed (extra `dev`)")
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
                  and not line.startswith("#"))["grpcio-tools"]
    if found != pinned:
        pytest.skip(f"grpcio-tools {found} may write other code than {pinned}, which is pinned")
    protos = sorted((ROOT / "src/openautoglm/protos").glob("*.proto"))
    done = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "src"),
                           f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *map(str, protos)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text() for path in (tmp_path / "openautoglm/protos").iterdir()}
    kept = {path.name: path.read_text() for path in protos[0].parent.glob("*_pb2.py*")}
    assert len(made) == 2 * len(protos)
    assert made == kept, "run `make protos`"
