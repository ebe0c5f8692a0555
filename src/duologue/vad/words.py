"""Finds the words of transcripts in any script: what counts as a word, and which words are new."""

from __future__ import annotations

from collections.abc import Iterator

import regex

_FILLERS = frozenset(
    word
    for words in (
        "ah ahn eh ehm em er erm euh hein heu hm huh m mh mhm oh uh uhm um äh ähm öh öhm øh",
        "э эм м хм ээм εμ χμ אה אהם ام امم اه آه हम्म अं उम",
        "嗯 呃 啊 哦 唔 额 呣 えと えっと えーと うーん んー ん んと 음 으",
    )
    for word in words.split()
)
"""Fillers of thinking and listening in the main languages; alone they make no turn.

A repeated letter stands once: "hmmm" is "hm".
"""
_FILLER_LETTERS = frozenset("".join(_FILLERS))

_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}\u200c\u200d]*(?:'[\p{L}\p{M}\p{N}]+)*'?")
_REPEATED = regex.compile(r"(\X)\1+")
_ANNOTATION = regex.compile(r"\[[^\]]*\]|<[^>]*>|\*[^*]*\*|\([^()\p{N}]*\)|[♩-♬][^♩-♬]*[♩-♬]?")
"""What recognisers write for sounds: "[Music]", "(coughs)", "*sighs*", "♪ la la ♪", "<unk>"."""
_NOTE_OR_WORD = regex.compile(f"(?:{_ANNOTATION.pattern})|(?P<word>{_WORD.pattern})")
"""Matching stops at the first word that counts, because partial transcripts come often."""
_STRAY_LETTER = regex.compile(r"[b-df-hj-np-tv-xz]")
"""A letter that is not a word in any language; spelled-out letters are capitals."""

_UNIT = regex.compile(
    # A digit, a character of a script without spaces between words, or a word of another script.
    r"\p{Nd}|(?=[\p{Ideographic}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}])\X"
    r"|(?:(?![\p{Ideographic}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}\p{Nd}])"
    r"[\p{L}\p{M}\p{N}\u200c\u200d'])+"
)
_OPENING = regex.compile(r"[\p{Ps}\p{Pi}\p{Sc}¿¡#+]")
"""A sign that belongs to the word after it."""


def plain_words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, without punctuation.

    A stretch of a script without spaces counts as one word.
    """
    return [word.strip("'") for word in _WORD.findall(_straighten(text).lower())]


def has_words(text: str) -> bool:
    """Return whether ``text`` holds a word: more than a filler ("uh"), a stray letter or a note.

    A note is what a recogniser writes for a sound, such as "[Music]".
    """
    return any(
        found["word"] is not None and _is_word(found["word"].strip("'"))
        for found in _NOTE_OR_WORD.finditer(_straighten(text))
    )


def shared_length(one: str, other: str) -> int:
    """Return the number of characters that both texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def words_after(text: str, before: str) -> str:
    """Return the part of a transcript that follows ``before``, the transcript of its first part.

    A recogniser may spell the first part differently once it has more audio, so the cut is made
    where the text before it resembles ``before`` most. It falls between words, between characters
    in scripts without spaces, and between digits, because a number may continue in the next turn.
    """
    known = "".join(unit for _, _, unit in _units(before))
    if not known:
        return text
    letters = dict.fromkeys(known, 0)
    for at, letter in enumerate(known):
        letters[letter] |= 1 << at
    everything = (1 << len(known)) - 1
    # Longest common subsequence of ``known`` and the text read so far, one bit for each letter of
    # ``known``: the number of cleared bits is its length (Hyyrö 2004). One pass finds the best cut.
    bits, read = everything, 0
    best, cut = 0.0, 0
    for _, end, unit in _units(text):
        if read > 2 * len(known) + 20:
            break
        for letter in unit:
            matched = bits & letters.get(letter, 0)
            bits = ((bits + matched) | (bits - matched)) & everything
        read += len(unit)
        common = len(known) - bits.bit_count()
        likeness = 2 * common / (len(known) + read)
        if likeness > best:
            best, cut = likeness, end
    return _from_next(text, cut)


def _is_word(word: str) -> bool:
    lower = word.lower()
    # Repeated letters are taken out only of what may be a filler, because that takes longest.
    if _FILLER_LETTERS.issuperset(lower) and _REPEATED.sub(r"\1", lower) in _FILLERS:
        return False
    return len(word) > 1 or _STRAY_LETTER.fullmatch(word) is None


def _units(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the start and end of each unit of ``text``, and the unit in the form to compare."""
    for match in _UNIT.finditer(_straighten(text)):
        yield match.start(), match.end(), match.group().casefold()


def _from_next(text: str, cut: int) -> str:
    """Return the rest of ``text`` from ``cut``, without signs that end the part before it."""
    following = _UNIT.search(text, cut)
    if following is None:
        return ""
    start = following.start()
    while start > cut and _OPENING.match(text, start - 1):
        start -= 1
    return text[start:] if cut else text


def _straighten(text: str) -> str:
    return text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
