"""Masking: personal data in texts becomes a placeholder that names its kind."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules import personal
from openautoglm.data.rules.base import Rule, Side, rewritten


class Mask(Rule):
    """Replace e-mail addresses, IBANs, card numbers, IP addresses and phone numbers by typed placeholders.

    Card numbers must pass Luhn's check and IBANs theirs (ISO 13616), so order numbers mostly stay. Phone
    numbers need an international prefix or separators; bare runs of digits are masked only where
    `bare_phones` says so.
    """

    name: ClassVar[str] = "mask"

    kinds: tuple[personal.Kind, ...] = Field(
        ("email", "iban", "card", "ip", "phone"), min_length=1, description="What is masked.")
    placeholder: str = Field(
        "<{kind}>", description="What takes its place; {kind} becomes EMAIL, IBAN, CARD, IP or PHONE.")
    bare_phones: bool = Field(False, description="Take runs of 9 to 15 digits without separators for phones.")
    on: tuple[Side, ...] = Field(("source", "target"), description="Which sides of an example are rewritten.")

    def apply(self, example: Example) -> Example:
        return rewritten(example, self.on, self.rewrite, personal.is_suspicious)

    def rewrite(self, text: str) -> str:
        """Return `text` with personal data masked; the same object where there was none."""
        if not personal.is_suspicious(text):
            return text
        for kind in personal.ORDER:
            if kind in self.kinds:
                mark = self.placeholder.replace("{kind}", kind.upper())
                text = personal.replaced(kind, text, mark, bare_phones=self.bare_phones)
        return text
