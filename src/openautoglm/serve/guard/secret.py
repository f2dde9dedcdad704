"""Keys as text: ``autoglm_ID_SECRET``. The id finds the hash, so that a check is one argon2 verification.

The secret has 256 random bits. Argon2id (RFC 9106) with OWASP's smaller setting protects it where a database leaks.
"""

from __future__ import annotations

import re
import secrets
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

PREFIX = "autoglm"
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_LENGTH, _SECRET_BYTES = 12, 32
_TOKEN = re.compile(rf"{PREFIX}_([a-z0-9]{{{_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def mint() -> tuple[str, str, str]:
    """Make a key; return its id, the key itself, which is not kept anywhere, and its hash."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    token = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return key_id, token, _HASHER.hash(token)


def id_of(token: str) -> str | None:
    """The id inside a key; None where the text has not the form of a key."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def verify(token: str, hashed: str | None) -> bool:
    """Whether `token` is the key behind `hashed`; takes as long where there is no hash. About 30 ms, blocks."""
    try:
        return _HASHER.verify(hashed if hashed is not None else _nobodys(), token) and hashed is not None
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


@lru_cache(maxsize=1)
def _nobodys() -> str:
    """The hash of a key that nobody has."""
    return mint()[2]
