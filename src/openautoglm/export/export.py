"""A model into another form, chosen by the name it is given."""

from __future__ import annotations

from pathlib import Path

from openautoglm.core.errors import BundleError
from openautoglm.export.element_types import ElementType
from openautoglm.models.bundle import Bundle, export


