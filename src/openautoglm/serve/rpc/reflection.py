"""Reflection: clients such as grpcurl read the services from the server. It knows our files and no others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha._async import ReflectionServicer

from openautoglm.serve.rpc.serving import Call, Method

_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both versions have the same messages."""


def reflection(services: Collection[str], files: Sequence[Any]) -> Sequence[Method]:
    """The methods of reflection.

    Args:
        services: that clients are told of.
        files: descriptors of the files in which they stand.
    """
    pool = DescriptorPool()
    for file in (*files, pb.DESCRIPTOR):
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        pool.Add(proto)
    servicer = ReflectionServicer((*services, *_SERVICES[1:]), pool)

    async def answer(requests: Any, call: Call) -> AsyncGenerator[Any, None]:
        async for reply in servicer.ServerReflectionInfo(requests, None):
            yield reply

    return [Method(service, "ServerReflectionInfo", pb.ServerReflectionRequest, answer, many=True)
            for service in _SERVICES]
