"""Tiny bundles of random weights, exported for the edge, and what the engine says of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.edge.export import Wanted, export_edge
from openautoglm.edge.manifest import Record
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.sampling import Sampling
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.quantised_bundle import write_quantised_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes
from openautoglm.pipeline.answering import answer_lines
from openautoglm.runtime.quantised import quantise as rounded
from openautoglm.runtime.tensors import Checkpoint
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

TEXTS = (
    "name[The Eagle], eatType[coffee shop], food[French], priceRange[moderate]",
    "The Eagle is a French coffee shop with a moderate price range.",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "Köln straße naïve café — 12345 und 1 000 000!",
    "Привет, мир! Это проверка.",
    "こんにちは世界。\n\n改行もあります。",
    "emoji 🎉👩‍👩‍👧 and\ttabs   spaces  \r\n end  ",
    "it's they'LL we've I'd 'tis",
)
PROMPTS = (*(text.replace("\n", " ").replace("\r", " ") for text in TEXTS), "x", "a longer one: " + "many words " * 40)


@dataclass(frozen=True)
class Model:
    """A bundle, and the folder of its edge model."""

    bundle: Bundle
    folder: Path
    settings: ProgramSettings

    def engine(self, lines: Sequence[str], **sampling: Any) -> list[str]:
        """What the engine answers, with the settings of the export."""
        records = answer_lines(self.bundle, [line.encode() for line in lines], Sampling(**sampling),
                               program=self.settings)
        return [record["text"] for record in records]


def make_model(folder: Path, program: Path, *, kind: str = "pair", family: str = "glm", quantise: Any = None,
               record: Record | None = None, system: str | None = None, stored: bool = False, **facts: Any) -> Model:
    """Write a bundle and export it; `facts` replace those of the spec. `stored`: its file holds quantised weights."""
    tokenizer = Tokenizer.train(TEXTS * 4, 420)
    shape: dict[str, Any] = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn_size": 96,
                             "max_positions": 512, "family": family, "vocab_size": tokenizer.vocab_size, **facts}
    template = Template(kind=kind, system=system)  # type: ignore[arg-type]
    stops = template.stop_ids(tokenizer)
    spec = GlmSpec(**shape, eos_ids=stops, pad_id=tokenizer.pad_id)
    bundle = write_bundle(folder / "bundle", model=hf.build(spec, seed=3, init_std=0.3), spec=spec,
                          tokenizer=tokenizer, template=template, card_facts={})
    if stored:
        bundle = open_bundle(write_quantised_bundle(folder / "stored", bundle, quantised(bundle)))
    settings = ProgramSettings(target="native", quantise=quantise, threads=1, cache_tokens=4096)
    wanted = Wanted(settings.quantise, rows=32, program=program)
    export_edge(bundle, folder / "model", wanted, name="tiny", record=record or Record())
    return Model(bundle, folder / "model", settings)


def quantised(bundle: Bundle) -> Iterator[tuple[str, Any]]:
    """Weights rounded to 4 bits, tables and some matrices to 8, as a quantised file holds them."""
    checkpoint = Checkpoint(bundle.path)
    for name, shape in weight_shapes(bundle.spec).items():
        value = np.array(checkpoint.read(name))
        bits: Any = 8 if "embed" in name or "o_proj" in name else 4
        yield name, rounded(value, bits, 32, symmetric="down" not in name) if len(shape) == 2 else value


def records(output: str) -> list[dict[str, Any]]:
    """Lines of JSON."""
    return [json.loads(line) for line in output.split("\n")[:-1]]


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of code points from everywhere, with many spaces, digits and marks between them."""
    chance = random.Random(seed)
    pools = ["abcXYZ", " \t\n\r\u3000\xa0", "0123456789²½٣", "'sStTrevmlLD\u017f", ",.!?-—，。", "äßéñ", "中文字漢",
             "\u0301\u0300\u20dd", "🎉👩\u200d👧🇩🇪", "мирשלוםไทยहिन्दी"]

    def letter() -> str:
        if chance.random() < 0.1:
            code = chance.randrange(1, 0x110000)
            return "x" if 0xD800 <= code < 0xE000 else chr(code)
        return chance.choice(chance.choice(pools))

    return ["".join(letter() for _ in range(chance.randrange(1, 60))) for _ in range(count)]
