"""OpenVINO IR, through optimum-intel's converter, where that is installed.

It wants a transformers older than the one that we train with, so it lives in an environment of its own, beside a plain
`openautoglm` without the extra `train`.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path

from openautoglm.core.errors import BundleError, MissingExtraError
from openautoglm.core.files import atomic_folder
from openautoglm.export.gguf import Written
from openautoglm.export.source import Source
from openautoglm.models.quantised_file import is_quantised

REQUIREMENTS = "'optimum-intel==2.2.0' 'nncf==3.4.0' 'openvino-tokenizers==2026.4.1.0' 'torch==2.13.0'"
_MODULES = ("optimum.intel", "openvino", "openvino_tokenizers", "transformers", "torch")
_REMEDY = (f"in an environment of its own: pip install openautoglm {REQUIREMENTS}; then pip uninstall torchvision "
           "where it needs CUDA (docs/export.md)")


def write_openvino(source: Source, path: str | Path) -> Written:
    """Write a model as a folder of OpenVINO IR, with tokenizer and detokenizer, for OpenVINO GenAI.

    Weights stay in the type in which they are stored.

    Raises:
        MissingExtraError: the converter is not installed.
        BundleError: the weights are quantised, or `path` is a file.
    """
    path = Path(path)
    if missing := next((name for name in _MODULES if not _there(name)), None):
        raise MissingExtraError(missing.replace(".", "-"), "", _REMEDY)
    if is_quantised(source.folder):
        raise BundleError("quantised weights cannot be converted to OpenVINO IR", where=str(source.folder),
                          remedy="export the bundle that it was made from, or write .gguf")
    if path.is_file():
        raise BundleError("is a file", where=str(path), remedy="OpenVINO IR is a folder: give another name")
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as scratch, atomic_folder(path) as part:
        _rewrite(source, Path(scratch))
        model = OVModelForCausalLM.from_pretrained(  # nosec B615  # a folder we wrote; nothing is fetched
            scratch, export=True, load_in_8bit=False, compile=False, trust_remote_code=False, local_files_only=True)
        model.save_pretrained(part)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(  # nosec B615  # likewise
            scratch, local_files_only=True)
        tokenizer.chat_template = source.template
        tokenizer.save_pretrained(part)
        encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
        openvino.save_model(encoder, part / "openvino_tokenizer.xml")
        openvino.save_model(decoder, part / "openvino_detokenizer.xml")
    return Written(path, {}, ())


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _rewrite(source: Source, folder: Path) -> None:
    """Link the model into a folder, its rotary settings under the names that an older transformers reads.

    It would take its own defaults without a word, and convert another model.
    """
    for file in source.folder.iterdir():
        if file.is_file() and file.name != "config.json":
            (folder / file.name).symlink_to(file.resolve())
    config = source.spec.config()
    rope = config.pop("rope_parameters")
    config |= {"partial_rotary_factor": rope["partial_rotary_factor"], "rope_theta": rope["rope_theta"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
