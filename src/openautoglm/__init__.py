"""Open-AutoGLM: from data and a budget to a GLM-family model that is trained, compressed, served and proven."""

from typing import TYPE_CHECKING, Any

from openautoglm.core.version import __version__

__all__ = ["AsyncEngine", "AutoTrainer", "Engine", "Pruner", "__version__", "load", "open_engine"]
if TYPE_CHECKING:
    from openautoglm.api import AsyncEngine, AutoTrainer, Engine, Pruner, load, open_engine


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'openautoglm' has no attribute {name!r}")
    return getattr(__import__("openautoglm.api", fromlist=[name]), name)
