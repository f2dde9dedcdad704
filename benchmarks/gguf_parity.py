"""What llama.cpp makes of our `.gguf` files: logits, ids, texts.

    python benchmarks/gguf_parity.py --work /tmp/peers
    python benchmarks/gguf_parity.py --work /tmp/peers --bundle runs/e2e/bundle --prompts 100

llama-cpp-python is no dependency of the project: it compiles for some minutes. It runs in an environment of its own
under --work, made on first use as for benchmarks/peers. Logits: models of random weights, every family and shape, in
every element type, against transformers in fp32. Ids: real lines, against `tokenizers`. Texts: a trained bundle's
greedy answers, against our engine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.environments import make_environment, python_of, search_path

from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.request import Decoding
from openautoglm.export.gguf import write_gguf
from openautoglm.export.source import open_source
from openautoglm.graph.recipe import Quantisation
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

DATA = Path(os.environ.get("OPENAUTOGLM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SHAPE = {"hidden_size": 256, "layers": 3, "heads": 8, "head_dim": 32, "ffn_size": 512, "max_positions": 512}
SPECS = {
    "glm, rotary 0.5, bias, 8/2 heads": {"rotary_factor": 0.5, "qkv_bias": True, "kv_heads": 2},
    "glm, rotary 1, no bias, tied, 8/2": {"rotary_factor": 1.0, "qkv_bias": False, "tied": True, "kv_heads": 2},
    "glm, rotary 0.5, 8/8, theta 5e6": {"rotary_factor": 0.5, "kv_heads": 8, "rope_theta": 5e6},
    "glm, rotary 1, 8/1, eps 1.6e-7": {"rotary_factor": 1.0, "kv_heads": 1, "rms_eps": 1.5625e-7},
    "glm4, rotary 0.5, bias, 8/2": {"family": "glm4", "rotary_factor": 0.5, "qkv_bias": True, "kv_heads": 2},
    "glm4, rotary 1, no bias, tied, 8/4": {"family": "glm4", "rotary_factor": 1.0, "qkv_bias": False, "tied": True,
                                           "kv_heads": 4},
    "glm4, 6 heads x 32 at width 256": {"family": "glm4", "heads": 6, "kv_heads": 2},
}
KINDS = ("f32", "f16", "bf16", "q8_0", "q5_1", "q4_1", "q4_0")
TOKENS = 64


def ask(work: Path, question: dict[str, Any]) -> dict[str, np.ndarray]:
    """llama.cpp's answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.json"
        path.write_text(json.dumps(question), encoding="utf-8")
        subprocess.run([python_of(work, "llama"), "-m", "peers.ask_llama", path], cwd=search_path(work), check=True,
                       env={**os.environ, "PYTHONPATH": ""})
        with np.load(path.with_suffix(".npz")) as answer:
            return dict(answer)


def english() -> list[str]:
    """Records and texts of E2E."""
    with (DATA / "e2e-nlg" / "devset.csv").open(encoding="utf-8") as file:
        return [text for row in csv.DictReader(file) for text in row.values()]


def chinese() -> list[str]:
    """Lines of poems."""
    files = sorted((DATA / "chinese-poetry" / "全唐诗").glob("poet.tang.*.json"))[:2]
    return [line for file in files for poem in json.loads(file.read_text(encoding="utf-8"))
            for line in poem["paragraphs"]]


def naughty() -> list[str]:
    """Strings that programs stumble over."""
    return [text for text in json.loads((DATA / "hostile" / "blns.json").read_text(encoding="utf-8")) if text]


def numbers() -> list[str]:
    """Amounts, dates and long numbers in running text."""
    return [f"On 2{n % 1000:03}-0{n % 9 + 1}-1{n % 9} the sum was {n * 7919}.{n % 100:02} of {n ** 3}"
            for n in range(2000)]


def compare_logits(work: Path) -> None:
    """Print the greatest difference of logits for every spec and element type."""
    tokenizer = Tokenizer.train(english()[:2000], 600)
    print(f"| model | logits up to | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}")
    for name, facts in SPECS.items():
        spec = GlmSpec(vocab_size=8, **{**SHAPE, **facts}).with_vocabulary(
            tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],))
        model = hf.build(spec, seed=3, init_std=0.1).eval()
        generator = torch.Generator().manual_seed(1)
        for key, values in model.named_parameters():
            if "bias" in key or "norm" in key:  # hf.build leaves them zero and one
                values.data += 0.3 * torch.randn(values.shape, generator=generator)
        ids = torch.randint(0, tokenizer.vocab_size, (1, TOKENS), generator=generator)
        with torch.inference_mode():
            wanted = model(ids).logits[0].numpy()
        with tempfile.TemporaryDirectory() as folder:
            bundle = write_bundle(Path(folder) / "bundle", model=model, spec=spec, tokenizer=tokenizer,
                                  template=Template(kind="pair"), card_facts={})
            cells = []
            for kind in KINDS:
                file = write_gguf(open_source(bundle), Path(folder) / f"{kind}.gguf", kind).path
                found = ask(work, {"file": str(file), "ids": ids.tolist()})["logits0"]
                cells.append(f"{np.abs(found - wanted).max():.2g}")
        print(f"| {name} | {np.abs(wanted).max():.1f} | {' | '.join(cells)} |", flush=True)


def compare_ids(work: Path) -> None:
    """Print how many texts get other ids from llama.cpp, for tokenizers trained on each kind of text."""
    texts = {"E2E": english(), "poems": chinese(), "naughty strings": naughty(), "long numbers": numbers()}
    trained = {"E2E, 2,000": Tokenizer.train(texts["E2E"], 2000), "poems, 8,000": Tokenizer.train(texts["poems"], 8000),
               "all four, 8,000": Tokenizer.train([text for many in texts.values() for text in many], 8000)}
    print(f"\n| tokenizer | pre | {' | '.join(f'{name} ({len(many):,})' for name, many in texts.items())} |")
    print(f"|---|---|{'---|' * len(texts)}")
    for name, tokenizer in trained.items():
        with tempfile.TemporaryDirectory() as folder:
            spec = GlmSpec(vocab_size=8, kv_heads=2, **{**SHAPE, "layers": 1}).with_vocabulary(
                tokenizer.vocab_size, pad_id=None, eos_ids=())
            bundle = write_bundle(Path(folder) / "bundle", model=hf.build(spec, seed=1), spec=spec,
                                  tokenizer=tokenizer, template=Template(kind="pair"), card_facts={})
            written = write_gguf(open_source(bundle), Path(folder) / "model.gguf")
            every = [text for many in texts.values() for text in many]
            answer = ask(work, {"file": str(written.path), "texts": every, "vocabulary": True})
        wanted = iter(tokenizer.encode_batch(every))
        numbered = iter(enumerate(every))
        differ = {kind: [text for text in many if next(wanted) != answer[f"text{next(numbered)[0]}"].tolist()]
                  for kind, many in texts.items()}
        print(f"| {name} | {(written.notes and written.notes[-1]) or 'exact'} | "
              f"{' | '.join(str(len(many)) for many in differ.values())} |", flush=True)
        for kind, many in differ.items():
            for text in many[:3]:
                print(f"    {kind}: {text[:100]!r}")


def compare_trained(work: Path, bundle: Bundle) -> None:
    """Print the greatest difference of a trained bundle's logits for every element type."""
    ids = bundle.template.prompt(english()[0], (), bundle.tokenizer) + bundle.tokenizer.encode(english()[1])
    with torch.inference_mode():
        wanted = bundle.model(torch.float32)(torch.tensor([ids])).logits[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            file = write_gguf(open_source(bundle), Path(folder) / f"{kind}.gguf", kind).path
            found = ask(work, {"file": str(file), "ids": [ids]})["logits0"]
            print(f"{kind}: logits up to {np.abs(wanted).max():.1f} differ by {np.abs(found - wanted).max():.2g}; the "
                  f"same best id in {(found.argmax(-1) == wanted.argmax(-1)).sum()} of {len(ids)} rows", flush=True)


def compare_texts(work: Path, bundle: Bundle, number: int, most: int) -> None:
    """Print how many greedy answers of a trained bundle differ between our engine and llama.cpp."""
    tokenizer = bundle.tokenizer
    with (DATA / "e2e-nlg" / "testset_w_refs.csv").open(encoding="utf-8") as file:
        sources = list(dict.fromkeys(next(iter(row.values())) for row in csv.DictReader(file)))[:number]
    prompts = [bundle.template.prompt(source, (), tokenizer) for source in sources]
    stops = set(bundle.template.stop_ids(tokenizer)) | set(bundle.spec.eos_ids)
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, program in (("f32", ProgramSettings(dtype="fp32", cache="fp32")), ("q8_0", ProgramSettings(
                quantise=Quantisation(format="int8", group=32)))):
            engine = open_engine(bundle.path, program, stop_ids=sorted(stops), vocab_size=tokenizer.vocab_size)
            ours = [list(found[0].ids) for found in engine.generate(prompts, Decoding(max_new_tokens=most))]
            file_ = write_gguf(open_source(bundle), Path(folder) / f"{kind}.gguf", kind).path
            chats = [[{"role": "user", "content": source}] for source in sources]
            answer = ask(work, {"file": str(file_), "prompts": prompts, "most": most, "chats": chats})
            if not stops <= set(answer["ends"].tolist()):
                raise SystemExit(f"llama.cpp ends a text at {answer['ends']}, we at {sorted(stops)}")
            theirs = [answer[f"answer{i}"].tolist() for i in range(len(prompts))]
            same = sum([i for i in a if i not in stops] == b for a, b in zip(ours, theirs, strict=True))
            chat = sum(answer[f"chat{i}"].tolist() == prompt for i, prompt in enumerate(prompts))
            cells.append(f"{kind}: of {len(prompts)}, {same} texts equal, {chat} prompts equal by the chat template")
            differ = [(a, b) for a, b in zip(ours, theirs, strict=True) if [i for i in a if i not in stops] != b]
            for a, b in differ[:3]:
                print(f"    ours:   {tokenizer.decode(a)}\n    theirs: {tokenizer.decode(b)}")
    print("\n".join(cells))


def main() -> None:
    """Run what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--bundle", type=Path, help="a trained bundle whose texts are compared")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--only", choices=("logits", "ids"), help="one part of what is done without a bundle")
    options = parser.parse_args()
    make_environment(options.work, "llama")
    if options.bundle is None:
        if options.only != "ids":
            compare_logits(options.work)
        if options.only != "logits":
            compare_ids(options.work)
    else:
        bundle = open_bundle(options.bundle)
        compare_trained(options.work, bundle)
        compare_texts(options.work, bundle, options.prompts, most=128)


if __name__ == "__main__":
    main()
