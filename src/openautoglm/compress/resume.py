"""What is done of a quantisation, on disk: a file for each layer, the calibration's states, a list of facts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openautoglm.compress.calibrate import States
from openautoglm.core.errors import CheckpointError
from openautoglm.core.files import read_json, write_json
from openautoglm.core.log import get

_log = get(__name__)
_STATE = "quantise.json"


class Progressed:
    """The state of one quantisation in a folder of its own.

    Attributes:
        folder: where it lies.
        state: ``layers`` done, ``seconds`` taken, ``matrices`` (facts), ``sensitivity`` as far as it was measured.
    """

    def __init__(self, folder: Path, fingerprint: str, *, kept: bool) -> None:
        self.folder, self._kept = folder, kept
        self.state: dict[str, Any] = {"fingerprint": fingerprint, "layers": 0, "seconds": 0.0, "matrices": []}
        found = self._found()
        if found is not None and found.get("fingerprint") == fingerprint:
            self.state = found
            if found["layers"]:
                _log.info("%d layers were quantised before and are not done again", found["layers"])
            elif measured := len({place.partition(".")[0] for place in found.get("sensitivity", {})}):
                _log.info("the sensitivity of %d layers was measured before and is not measured again", measured)
        elif found is not None:
            _log.info("what %s holds is of another source, method or calibration: it is done again", folder)
            self.clear()

    @property
    def layers(self) -> int:
        """Layers that are done."""
        return int(self.state["layers"])

    def part(self, layer: int) -> Path:
        """The file of a layer."""
        return self.folder / f"layer-{layer:04d}.safetensors"

    def restore(self, states: States) -> None:
        """Read the states behind the layers that are done.

        Raises:
            CheckpointError: they are missing or damaged.
        """
        if not states.load(self._states(self.layers)):
            raise CheckpointError("the calibration's states are missing or cut short", where=str(self.folder),
                                  remedy="empty the folder and start again")

    def finish_layer(self, states: States | None, seconds: float, matrices: list[dict[str, Any]]) -> None:
        """Note that one more layer is done; its file is written already."""
        done = self.layers + 1
        if self._kept and states is not None:
            states.save(self._states(done))
        self.state = {**self.state, "layers": done, "seconds": seconds,
                      "matrices": [*self.state["matrices"], *matrices]}
        self.save()
        self._states(done - 1).unlink(missing_ok=True)

    def save(self) -> None:
        """Write the state."""
        write_json(self.folder / _STATE, self.state)

    def clear(self) -> None:
        """Remove what we wrote; other files stay."""
        (self.folder / _STATE).unlink(missing_ok=True)
        for pattern in ("layer-*.safetensors", "states-*.bin", "walk-*.bin"):
            for file in self.folder.glob(pattern):
                file.unlink()

    def _states(self, layer: int) -> Path:
        return self.folder / f"states-{layer:04d}.bin"

    def _found(self) -> dict[str, Any] | None:
        path = self.folder / _STATE
        if not path.is_file():
            return None
        try:
            found = read_json(path)
        except ValueError as error:
            raise CheckpointError(f"cannot be read: {error}", where=str(path),
                                  remedy="empty the folder and start again") from error
        return found if isinstance(found, dict) else {}


@contextmanager
def work_folder(workdir: Path | None, out: Path) -> Iterator[Path]:
    """The folder to work in: the given one, which stays after a fault, or a temporary one beside the result."""
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        yield workdir
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".work", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
