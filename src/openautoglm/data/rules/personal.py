"""Personal data in free text: where an e-mail address, IBAN, card, IP address or phone number stands.

A pattern proposes, a check decides: Luhn for cards, modulo 97 for IBANs, the standard library for IP
addresses, the count and grouping of digits for phone numbers. Every repetition in the patterns is bounded or
unambiguous.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Literal

Kind = Literal["email", "iban", "card", "ip", "phone"]
ORDER: tuple[Kind, ...] = ("email", "iban", "card", "ip", "phone")
"""Checked forms go first, phones last, so that a card number is not taken for a phone number."""

_HINT = re.compile(r"@|:[0-9A-Fa-f]{0,4}:|\d(?:\W{0,4}\d){3}|[A-Z]{2}\d\d ?[A-Z0-9]{3}")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\d.+-])[2-6](?:[ -]?\d){12,18}(?![\d])")
_IPV4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"
_IPV6 = r"(?<![\w:.])(?=[0-9A-Fa-f:]{0,9}:)[0-9A-Fa-f:]{3,39}(?:\.\d{1,3}){0,3}(?![\w:])"
_IP = re.compile(f"{_IPV4}|{_IPV6}")
_PHONE = re.compile(r"(?<![\w.,/+-])(?:\+ ?|\(\+?)?\d{1,15}\)?"
                    r"(?:[ .\-/]{1,2}\(?\d{1,12}\)?|\(\d{1,5}\)){0,7}(?!\w|[.,/-]\d)")
_DATE = re.compile(r"(?:\d{4}([-/. ])\d{1,2}\1\d{1,2}|\d{1,2}([-/. ])\d{1,2}\2\d{4})(?!\d)")
_THOUSANDS = re.compile(r"\d{1,2}([ .])\d{3}(?:\1\d{3})*")
_DECIMAL = re.compile(r"\d+\.\d+")
_YEARS = re.compile(r"(?:1[5-9]|20)\d\d(?:[ -]{1,3}(?:1[5-9]|20)\d\d)+")


def is_suspicious(text: str) -> bool:
    """Whether `text` holds what any kind needs: ``@``, two near colons, four near digits, an IBAN's head."""
    return _HINT.search(text) is not None


def replaced(kind: Kind, text: str, mark: str, *, bare_phones: bool = False) -> str:
    """Return `text` with every finding of `kind` replaced by `mark`; the same object where there is none."""
    if kind == "email":
        return _EMAIL.sub(mark.replace("\\", r"\\"), text) if "@" in text else text
    if kind == "ip":
        return _IP.sub(_if(is_ip, mark), text) if "." in text or ":" in text else text
    if kind == "iban":
        return _IBAN.sub(lambda match: _mask_iban(match[0], mark), text)
    if kind == "card":
        return _CARD.sub(_if(is_card, mark), text)
    return _PHONE.sub(_if(lambda found: is_phone(found, bare=bare_phones), mark), text)


def _if(check: Callable[[str], bool], mark: str) -> Callable[[re.Match[str]], str]:
    return lambda match: mark if check(match[0]) else match[0]


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 address, or an IPv6 address of four digits or more (``a::b`` is code)."""
    if ":" in text and sum(letter != ":" for letter in text) < 4:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_card(text: str) -> bool:
    """Whether the digits of `text` pass Luhn's check (ISO/IEC 7812) and are not all the same."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def is_iban(text: str) -> bool:
    """Whether `text` has an IBAN's length and check digits (ISO 13616)."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


def _mask_iban(text: str, mark: str) -> str:
    """Mask the longest start of `text` that is an IBAN and ends where a group of it ends."""
    end = len(text)
    while end > 0:
        if is_iban(text[:end]):
            return mark + text[end:]
        end = text.rfind(" ", 0, end)
    return text


def is_phone(text: str, *, bare: bool = False) -> bool:
    """Whether `text`, a run of digits and separators, is a telephone number rather than a date or an amount.

    International numbers have 8 to 15 digits after ``+`` (ITU E.164) or ``00``; others 9 to 15 digits in
    groups. Seven-digit local numbers are not recognised: too many other things look like them.
    """
    digits = re.sub(r"\D", "", text)
    if "+" in text or digits.startswith("00"):
        return 8 <= len(digits) <= 15
    if not 9 <= len(digits) <= 15:
        return False
    if text.isdigit():
        return bare
    amount = _DECIMAL.fullmatch(text) or _THOUSANDS.fullmatch(text)
    return not (amount or _DATE.match(text) or _YEARS.fullmatch(text))
