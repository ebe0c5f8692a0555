"""Spell out what the voice would misread: digits of codes and telephone numbers, and signs.

The voice reads "0199" as a number, "one ninety-nine", and omits "#" and "*". It reads ordinary
numbers, years, prices, times and dates well, so those are not changed.
"""

from __future__ import annotations

import regex

_NAMES = {
    **dict(zip("01234", ("zero", "one", "two", "three", "four"), strict=True)),
    **dict(zip("56789", ("five", "six", "seven", "eight", "nine"), strict=True)),
    "*": "star",
    "#": "hash",
}

_BEFORE = r"(?<![\p{L}\p{N}_.,:/$€£¥#*-])"
_AFTER = r"(?![\p{L}\p{N}_%:/*#]|[.,]\p{N}|-\p{N})"

_GROUPS = regex.compile(
    # 555-0199, 1-800-555-0142, (555) 123-4567, +44 20 7946 0958, 4111 1111 1111 1111, 555.123.4567
    rf"{_BEFORE}(?:\+\d{{1,3}}[ .-]?)?(?:\(\d{{1,5}}\)[ -]?)?"
    rf"(?:\d{{1,4}}(?:[ -]\d{{2,4}})+|\d{{3}}\.\d{{3}}\.\d{{4}}|(?<=[+)].*)\d{{4,}}){_AFTER}"
)
_MIN_GROUPED = 7
"""Digits of the shortest telephone number."""
_DATE_OR_RANGE = regex.compile(
    r"\d{4}-\d\d-\d\d|\d\d?-\d\d?-\d{2,4}|1\d{3}[ -][12]\d{3}|20\d\d[ -]20\d\d|[\d ]* 000"
)
"""A date, two years, thousands with spaces between them."""
_CODE = regex.compile(
    # 0199 begins with a zero, 4711123 is too long, "PIN 4711" and "CA 90210" are named as codes.
    rf"{_BEFORE}(?<!\d )0\d+{_AFTER}|{_BEFORE}\d{{4,}}(?!000)\d{{3,}}{_AFTER}"
    r"|(?i:\b(?:code|pin|passcode|password|postcode|zip|extension|confirmation|reservation|booking"
    r"|tracking|order|account|card|serial)(?: code| number)?(?: is|:)?) #?\K\d{3,}"
    rf"{_AFTER}|\b\p{{Lu}}\p{{Lu}} \K\d{{5}}{_AFTER}"
)
_MIXED = regex.compile(
    rf"{_BEFORE}(?=\p{{Lu}}*\d)(?=\d*\p{{Lu}})(?!.{{0,9}}\p{{Lu}}{{4}})[\p{{Lu}}\d]{{5,}}{_AFTER}"
)
"""A code of capitals and digits: A1B2C3."""
_DIALLED = regex.compile(r"(?<![\w*#])(?:\*\d[\d*]*#?|#\d[\d*]*#)(?!\w)")
"""Codes to dial: *99#, #31#."""
_SIGNS = (
    (regex.compile(r"\b([A-GJ])#(?!\w)"), r"\1 sharp"),
    (regex.compile(r"#(?=\d)"), "number "),
    (regex.compile(r"(?<=\d) ?[*\u00d7] ?(?=\d)"), " times "),
    (regex.compile(r"(?<=\w)_(?=\w)"), " "),
    (regex.compile(r"\b([A-Z])\+\+"), r"\1 plus plus"),
)
_MARKS = regex.compile(r"[*_`#~|<>\[\]{}]+")
"""Signs that are removed last: most are unclosed Markdown."""


def speakable(text: str) -> str:
    """Return ``text`` in the form that the voice reads correctly; it is not meant to be shown."""
    text = _DIALLED.sub(lambda match: _spell(match.group()), text)
    text = _GROUPS.sub(lambda match: _spell_groups(match.group()), text)
    text = _CODE.sub(lambda match: _spell(match.group()), text)
    text = _MIXED.sub(lambda match: _spell(match.group()), text)
    for pattern, words in _SIGNS:
        text = pattern.sub(words, text)
    return str(_MARKS.sub(" ", text))


def _spell(code: str) -> str:
    return " ".join(_NAMES.get(sign, sign) for sign in code)


def _spell_groups(number: str) -> str:
    """Spell a telephone number with a pause between its groups; return anything else unchanged."""
    groups = regex.findall(r"\d+", number)
    if sum(map(len, groups)) < _MIN_GROUPED or _DATE_OR_RANGE.fullmatch(number) is not None:
        return number
    plus = "plus " if number.startswith("+") else ""
    return plus + ", ".join(map(_spell, groups))
