"""Identifiers that the server makes. Nothing a user sends ever becomes one."""

from __future__ import annotations

import secrets
import string

ALPHABET = string.digits + string.ascii_letters
LENGTH = 24  # base62 characters, about 143 bits


def new_id(prefix: str) -> str:
    """Such as `ftjob-3kTMd…`; the separator is part of the prefix."""
    return prefix + random_word(LENGTH)


def random_word(length: int) -> str:
    """Base62 characters from the system's source of randomness."""
    number, word = secrets.randbelow(len(ALPHABET) ** length), ""  # one call: one for each took 5% of a short read
    for _ in range(length):
        number, place = divmod(number, len(ALPHABET))
        word += ALPHABET[place]
    return word
