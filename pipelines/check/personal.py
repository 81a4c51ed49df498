"""Hints of personal data: e-mail addresses, telephone and payment card numbers. Found texts are not repeated."""

from __future__ import annotations

from collections import Counter

import regex
from phonenumbers import Leniency, PhoneNumberMatcher

from pipelines.check.findings import Finding, Items, share

REGIONS = ("US", "GB", "DE", "FR")  # whose national ways of writing a telephone number are known; + numbers always

_EMAIL = regex.compile(r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+)+")
_CARD = regex.compile(  # digits in a row; four times four; American Express
    r"(?<![\d.])(?:[3-6]\d{12,18}|[3-6]\d{3}(?:[ -]\d{4}){3}|3\d{3}[ -]\d{6}[ -]\d{5})(?!\.?\d)"
)
_DIGITS = regex.compile(r"\d(?:\D{0,3}\d){6}")


def personal_data(items: Items) -> Finding:
    """Texts that hold some; `check` blanks them in all findings, so that a page does not spread what it warns of."""
    counts, places = Counter[str](), []
    for number, text in enumerate(items.texts):
        kinds = personal_kinds(text)
        counts.update(kinds)
        if kinds:
            places.append(items.place(number, ", ".join(kinds)))
    if not places:
        return Finding("personal data", "fine", "no e-mail address, telephone or card number was recognised")
    told = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    sentence = (
        f"{share(len(places), len(items))} texts may hold personal data ({told}): models can repeat what they were "
        "trained on; names and addresses are not looked for"
    )
    return Finding("personal data", "note", sentence, dict(counts), tuple(places))


def personal_kinds(text: str) -> list[str]:
    """Of a text: any of `e-mail address`, `card number`, `telephone number`."""
    kinds = ["e-mail address"] if _EMAIL.search(text) else []
    without = _CARD.sub(lambda found: " " if _luhn(found.group()) else found.group(), text)
    if without != text:
        kinds.append("card number")
    text = without
    if _DIGITS.search(text) and any(_has_number(text, region) for region in REGIONS):
        kinds.append("telephone number")
    return kinds


def _has_number(text: str, region: str) -> bool:
    return PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING).has_next()


def _luhn(number: str) -> bool:
    """Check digit of payment cards, ISO/IEC 7812-1 annex B."""
    digits = [int(digit) for digit in number if digit.isdigit()][::-1]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10
