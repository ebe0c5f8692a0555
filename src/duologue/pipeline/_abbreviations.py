"""Distinguishes the full stop of a sentence from that of an abbreviation by the words around it."""

from __future__ import annotations

import regex


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_BEFORE_NAME = _words(
    "mr mrs ms mx dr prof st ste vs gen rep gov capt sgt lt col rev hon pres messrs e.g i.e cf"
    " mme mlle hr fr bzw z.b d.h u.a sra sr dra ud uds dott sig p.ej डॉ"
)
"""Abbreviations before a name or an explanation: no sentence ends after them."""
_BEFORE_NUMBER = _words("no nos nr fig vol sec art p pp pg núm pág n стр")
"""Abbreviations before a number: no sentence ends between the two."""
_ANYWHERE = _words(
    "approx etc inc ltd co corp llc jr est dept univ ave blvd rd hwy min max hrs mins secs temp"
    " avg tel ext ft lb lbs oz sq ca usw ggf inkl env"
    " jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat"
    " sun"
)
"""Abbreviations that end a sentence only if the next word begins with a capital."""
_MONTHS = _words(
    "januar februar märz april mai juni juli august september oktober november dezember"
)
"""Capitalised words that may follow a German ordinal ("3. Mai")."""
_DAYS = _words(
    "mon tue tues wed thu thur thurs fri sat sun monday tuesday wednesday thursday friday saturday"
    " sunday january february march april may june july august september october november december"
    " jan feb mar apr jun jul aug sep sept oct nov dec eastern pacific central mountain"
)
"""Capitalised words that may follow a time of day."""
_STARTERS = _words(
    "i we you he she it they this that these those the a an there here then now so but and or if"
    " when what where why how who which our your my his her their its in on at for from to as after"
    " before please would could can do does did is are was will let yes no okay also however"
    " because while once just not all some many most every each it's i'm i'll that's there's let's"
    " we're you're they're"
)
"""Words that often begin a sentence and are hardly ever a name."""

_TOKEN = regex.compile(r"[^\s\p{Ps}\p{Pi}\"']*$")
_NEXT = regex.compile(r"[\s\"'\p{Ps}\p{Pi}]*([^\s\p{Ps}\p{Pi}.,;:!?\"]*)")
_INITIALS = regex.compile(r"\p{L}\p{M}*(?:\.\p{L}\p{M}*)+")


def ends_sentence(text: str, dot: int, end: int, *, final: bool) -> bool | None:
    """Return whether the sentence ends at ``end``, with its full stop at ``dot``.

    Return None if that depends on text still to come; with ``final``, none will come. A word that
    is not an abbreviation ends its sentence at once.
    """
    if text.startswith("..", dot):
        return True
    word = _word_before(text, dot)
    lower = word.lower()
    initial = len(word) == 1 and word.isalpha() and word.isupper() and lower != "i"
    initials = _INITIALS.fullmatch(word) is not None
    if lower in _BEFORE_NAME:
        return False
    number = word.isdigit()
    if number and not text[: dot - len(word)].strip():
        return False  # "1. Rooms" is a list item.
    if not (number or initial or initials or lower in _BEFORE_NUMBER or lower in _ANYWHERE):
        return True
    match = _NEXT.match(text, end)
    following = match.group(1) if match is not None else ""
    if match is None or (match.end() == len(text) and not final):
        return None
    if not following:
        return True
    plain = following.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    capital = following[0].isupper()
    if number:
        return not following[0].islower() and plain not in _MONTHS
    if lower in _BEFORE_NUMBER:
        return not following[0].isdigit()
    if lower in ("a.m", "p.m"):
        return capital and plain not in _DAYS and not (len(following) > 1 and following.isupper())
    if lower in _ANYWHERE:
        return capital
    return capital and plain in _STARTERS


def _word_before(text: str, dot: int) -> str:
    """Return the word before the full stop at ``dot``."""
    match = _TOKEN.search(text[max(0, dot - 40) : dot])
    return "" if match is None else match.group()
