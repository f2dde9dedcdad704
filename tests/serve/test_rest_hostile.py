"""Requests made up from the OpenAPI document, right ones and wrong ones: nothing but deliberate replies comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rest_tools import MODEL, Running, engine_backend
from schemathesis.generation import GenerationMode
from schemathesis.generation.hypothesis import examples  # noqa: F401

from openautoglm.serve.service.language import Language

CASES = int(os.environ.get("HOSTILE_CASES", "12"))
OPERATIONS = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize", "/v1/models",
              "/v1/models/{model}", "/healthz", "/ready", "/metrics", "/version")
DELIBERATE = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429}
