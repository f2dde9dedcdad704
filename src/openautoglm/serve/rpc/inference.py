"""`inference.GRPCInferenceService`: the Open Inference Protocol V2, with its extension for repositories."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from openautoglm.core.version import __version__
from openautoglm.protos import inference_pb2 as pb
from openautoglm.serve.faults import BadRequest, NotFound, Unsupported
from openautoglm.serve.guard.rights import Scope
from openautoglm.serve.rpc.infer import EMBEDDING, infer
from openautoglm.serve.rpc.serving import Call, Method, Serving, methods_of
from openautoglm.serve.rpc.tensors import INPUTS, tensor_metadata
from openautoglm.serve.service.models import Held, Model, Repository

_SCOPES: dict[str, Scope | None] = {"ServerLive": None, "ServerReady": None, "RepositoryIndex": "admin",
                                    "RepositoryModelLoad": "admin", "RepositoryModelUnload": "admin"}
_VERSION = "1"
_PLATFORM = "autoglm_glm"


class Inference:
    """The methods of the service."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def methods(self) -> Sequence[Method]:
        """All of them."""
        answers = {"ServerLive": self.live, "ServerReady": self.ready, "ModelReady": self.model_ready,
                   "ServerMetadata": self.server, "ModelMetadata": self.model, "ModelInfer": self.infer,
                   "RepositoryIndex": self.index, "RepositoryModelLoad": self.load,
                   "RepositoryModelUnload": self.unload}
        return methods_of(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"], answers, scopes=_SCOPES,
                          classes=lambda message: getattr(pb, message.name))

    async def live(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """The process answers."""
        yield pb.ServerLiveResponse(live=True)

    async def ready(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Whether it can serve."""
        yield pb.ServerReadyResponse(ready=await self._serving.models.unready() is None)

    async def server(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """What it is."""
        yield pb.ServerMetadataResponse(name="autoglm", version=__version__, extensions=["model_repository"])

    async def model_ready(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Whether a model is loaded, and the server can serve."""
        name = self._name(request.name, request.version, "name")
        known = name in self._serving.models.loaded() or (await self._known(request.name)).max_tokens is not None
        yield pb.ModelReadyResponse(ready=known and await self._serving.models.unready() is None)

    async def model(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """The tensors of a model."""
        self._name(request.name, request.version, "name")
        model = await self._known(request.name)
        versions = [_VERSION]
        if self._serving.repository is not None:
            versions = [held.version for held in await self._serving.repository.index() if held.name == model.name]
        outputs = (("text_output", "BYTES", (-1,)), ("finish_reason", "BYTES", (-1,)), ("prompt_tokens", "INT64", (1,)),
                   ("completion_tokens", "INT64", (1,)), (EMBEDDING, "FP32", (-1, -1)))
        yield pb.ModelMetadataResponse(
            name=model.name, versions=versions, platform=_PLATFORM,
            inputs=[tensor_metadata(name, "BYTES", (1,) if name == "messages" else (-1,)) for name in INPUTS],
            outputs=[tensor_metadata(*output) for output in outputs])

    async def infer(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Answers, or embeddings."""
        model = self._name(request.model_name, request.model_version, "model_name")
        yield await infer(request, model, self._serving, call)

    async def index(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """All versions that are known."""
        _one_repository(request.repository_name)
        loaded = self._serving.models.loaded()
        held: Sequence[Held] = [Held(model.name, _VERSION, "READY" if model.name in loaded else "UNAVAILABLE")
                                for model in await self._serving.models.listed()] \
            if self._serving.repository is None else await self._serving.repository.index()
        yield pb.RepositoryIndexResponse(models=[
            pb.RepositoryIndexResponse.ModelIndex(name=one.name, version=one.version, state=one.state,
                                                  reason=one.reason)
            for one in held if one.state == "READY" or not request.ready])

    async def load(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Load a model."""
        name, version = self._meant(request)
        if request.parameters:
            raise Unsupported("configurations and files do not come from clients", where="parameters",
                              remedy="register the model, and load it by its name")
        await self._repository.load(name, version, call.who.actor)
        yield pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def unload(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Unload a model."""
        name, version = self._meant(request)
        if set(request.parameters) - {"unload_dependents"}:
            raise Unsupported("there are no such parameters", where="parameters", remedy="leave them out")
        await self._repository.unload(name, version, call.who.actor)
        yield pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    @property
    def _repository(self) -> Repository:
        if self._serving.repository is None:
            raise Unsupported("this server serves one bundle for good", where="model_name",
                              remedy="start it with a registry to load and unload models")
        return self._serving.repository

    def _meant(self, request: Any) -> tuple[str, str | None]:
        """Name and version that are to be loaded: ``NAME`` or ``NAME/VERSION``."""
        if request.triton_model_name:
            _one_repository(request.model_name)
        name, _, version = (request.triton_model_name or request.model_name).partition("/")
        if not name:
            raise BadRequest("is missing", where="model_name", remedy="give it")
        return name, version or None

    def _name(self, name: str, version: str, where: str) -> str:
        """How the models know a version: ``NAME/VERSION``; a server of one bundle has version 1.

        Raises:
            NotFound: it has no other.
        """
        if not name:
            raise BadRequest("is missing", where=where, remedy="give it")
        if not version:
            return name
        if self._serving.repository is not None:
            return f"{name}/{version}"
        if version != _VERSION:
            raise NotFound(f"there is no version {version[:40]!r}", where="version",
                           remedy=f"leave it out, or ask for {_VERSION}")
        return name

    async def _known(self, name: str) -> Model:
        for model in await self._serving.models.listed():
            if model.name == name:
                return model
        raise NotFound(f"there is no model {name[:100]!r}", where="name", remedy="TextService/Models lists them")


def _one_repository(name: str) -> None:
    if name:
        raise NotFound(f"there is no repository {name[:100]!r}", where="repository_name",
                       remedy="leave it out: there is one")
