"""What a pruned model recovers with: the task's own tokens, and training settings made of its parent's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from openautoglm.compress.prune.settings import RecoverSettings
from openautoglm.core.errors import CompressError, DataError
from openautoglm.core.files import fingerprint
from openautoglm.data.tokens import TokenStore, open_store
from openautoglm.models.card import Card
from openautoglm.train.settings import TrainSettings


@dataclass(frozen=True)
class Recovery:
    """Tokens to train on, and to follow the loss on where there are some."""

    train: TokenStore
    valid: TokenStore | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies both."""
        return fingerprint([self.train.fingerprint, self.valid and self.valid.fingerprint])

    @classmethod
    def of_run(cls, folder: str | Path) -> Recovery:
        """The tokens of a run folder: the targets that its model learnt last (of self-distillation, where there is
        any), and the validation split.

        Raises:
            CompressError: the folder holds no tokens.
        """
        folder = Path(folder)
        for place in (folder / "self_distill" / "tokens", folder / "tokenizer" / "tokens-train"):
            if (place / "store.json").is_file():
                return cls(open_store(place), _store(folder / "tokenizer" / "tokens-valid"))
        raise CompressError("holds no tokens of a task", where=str(folder),
                            remedy="give the folder of a run that was trained, or the folder of a token store")

    @classmethod
    def of(cls, data: Recovery | TokenStore | str | Path) -> Recovery:
        """Tokens from a store, from the folder of one, or from a run folder."""
        if isinstance(data, Recovery):
            return data
        if isinstance(data, TokenStore):
            return cls(data)
        return cls(open_store(data)) if (Path(data) / "store.json").is_file() else cls.of_run(data)


def _store(path: Path) -> TokenStore | None:
    try:
        return open_store(path)
    except DataError:
        return None


def training_of(card: Card) -> TrainSettings:
    """How a bundle was trained, as its card tells; the defaults where it does not.

    Raises:
        CompressError: the card's settings cannot be read.
    """
    told = card.recipe.get("train") or (card.recipe.get("plan") or {}).get("train") or {}
    try:
        return TrainSettings.model_validate(told)
    except ValidationError as error:
        raise CompressError(f"the parent's training settings cannot be read: {error.errors()[0]['msg']}",
                            where="recipe.train", remedy="use a bundle of this version") from error


def recovery_settings(asked: RecoverSettings, parent: Card, passes: float) -> TrainSettings:
    """The training loop's settings: those that the parent's card tells of its training, shorter and gentler.

    Raises:
        CompressError: the card's settings cannot be read.
    """
    train = training_of(parent)
    return train.model_copy(update={
        "passes": passes, "tokens": None, "minutes": None, "batch": asked.batch, "batch_unit": "rows",
        "accumulation": 1, "lr": asked.lr or train.lr * asked.lr_ratio, "ema_decay": asked.ema_decay,
        "label_smoothing": train.label_smoothing if asked.label_smoothing is None else asked.label_smoothing,
        "best_by": "valid_loss", "patience": None, "validate_every_passes": passes,
        "checkpoint_every_minutes": asked.checkpoint_every_minutes})
