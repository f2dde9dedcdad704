"""Who is timed: every engine with the settings among which its best are sought."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """An engine, its weights, its settings.

    Attributes:
        bits: of the weights; figures are compared at equal bits.
        model: file or folder below the shape's folder.
        shapes: on which it is timed.
        alone: timed on its own account in every round, not only where it is the best of its engine and bits.
        whole: its many requests are always run whole, where others may be put together from parts; of ours, these are
            the main recipes, which are compared with the peers.
        single: takes one request at a time.
        often: timed in every round; on E others are in the first one only.
        serving: sampling, reuse, chats and policies are timed with it.
    """

    engine: str
    name: str
    bits: int
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[str, ...] = ("S", "E")
    alone: bool = False
    whole: bool = False
    single: bool = False
    often: bool = True
    serving: bool = False

    @property
    def key(self) -> str:
        """What it is called in results and tables."""
        return f"{self.engine} {self.name}"

    @property
    def field(self) -> str:
        """Variants of one field compete to stand for their engine; those that stand alone are their own."""
        return self.key if self.alone else f"{self.engine} {self.bits}"


def _ours(name: str, bits: int, shapes: tuple[str, ...] = ("S", "E"), whole: bool = False,
          serving: bool = False, often: bool = False, **settings: Any) -> Variant:
    return Variant("ours", name, bits, "packed", settings, shapes, alone=True, whole=whole, often=whole or often,
                   serving=serving)


def _recipe(form: str, group: int, head: str) -> dict[str, Any]:
    return {"format": form, "group": group, "head": head}


OURS = (
    _ours("int8 g32", 8, whole=True, serving=True, quantise=_recipe("int8", 32, "int8")),
    _ours("int8 g128", 8, often=True, quantise=_recipe("int8", 128, "int8")),
    _ours("int8 row", 8, quantise=_recipe("int8", 0, "int8")),
    _ours("int4 g32", 4, whole=True, quantise=_recipe("int4", 32, "int8")),
    _ours("int4 g32, int4 head", 4, quantise=_recipe("int4", 32, "int4")),
    _ours("int4 g128", 4, often=True, quantise=_recipe("int4", 128, "int8")),
    _ours("bf16", 16, whole=True, dtype="bf16"),
    _ours("fp32", 32, shapes=("S",), whole=True, dtype="fp32", cache="fp32"),
)

LLAMA = tuple(
    Variant("llama", f"{name} {label}", bits, model, settings)
    for name, bits, model in (("Q8_0", 8, "q8_0.gguf"), ("Q4_0", 4, "q4_0.gguf"), ("bf16", 16, "bf16.gguf"))
    for label, settings in (("no flash", {"flash": 0}), ("flash", {"flash": 1}),
                            ("flash, unified cache", {"flash": 1, "unified": True})))

OPENVINO = tuple(
    Variant("openvino", f"{kind} {label}", bits, f"openvino-{kind}", settings)
    for kind, bits in (("int8", 8), ("int4", 4))
    for label, settings in (("default", {}), ("DQ 32", {"group": 32}), ("DQ 128", {"group": 128})))

OPENVINO_STATEFUL = tuple(Variant("openvino", f"{kind} stateful", bits, f"openvino-{kind}", {"pipeline": "stateful"},
                                  single=True)
                          for kind, bits in (("int8", 8), ("int4", 4)))

TRANSFORMERS = tuple(Variant("transformers", dtype, bits, "checkpoint", {"dtype": dtype}, often=False)
                     for dtype, bits in (("fp32", 32), ("bf16", 16)))

VARIANTS = {"ours": OURS, "llama": LLAMA, "openvino": OPENVINO + OPENVINO_STATEFUL, "transformers": TRANSFORMERS}
ENVIRONMENTS_OF = {"ours": ("transformers", "ours"), "llama": ("transformers", "llama"),
                   "openvino": ("transformers", "export", "openvino"), "transformers": ("transformers",)}


def variants_of(engines: list[str], shape: str) -> list[Variant]:
    """All variants of these engines on a shape."""
    return [variant for engine in engines for variant in VARIANTS[engine] if shape in variant.shapes]
