"""Words of transcripts: which count as words, and which are new."""

from __future__ import annotations

from difflib import SequenceMatcher

_FILLERS = frozenset(["ah", "eh", "er", "erm", "hm", "hmm", "huh", "mhm", "mm", "oh", "uh", "um"])


def plain_words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


def has_words(text: str) -> bool:
    """Whether there is a word in it that is more than a filler such as "uh" or a stray letter."""
    return any(
        word not in _FILLERS and (len(word) > 1 or word in "aio" or word.isdigit())
        for word in plain_words(text)
    )


def words_after(text: str, before: str) -> str:
    """The part of a transcript that follows ``before``, the transcript of its first part.

    A recogniser may write the first part otherwise once it has heard more, so the cut is where
    what stands before it is most like ``before``.
    """
    words = text.split()
    plain = [" ".join(plain_words(word)) for word in words]
    known = plain_words(before)
    if not known:
        return text
    last = min(len(words), 2 * len(known) + 2)

    def likeness(cut: int) -> float:
        return SequenceMatcher(None, " ".join(plain[:cut]), " ".join(known), False).ratio()

    best = max(range(last + 1), key=likeness)
    return " ".join(words[best:])
