"""Splits streamed text into clauses that can be spoken as soon as they are complete."""

from __future__ import annotations

import regex

from duologue.pipeline._abbreviations import ends_sentence

MIN_FIRST_PAUSE_CHARS = 6
"""The first clause may end at a comma after this many characters, so that audio starts sooner."""
MIN_FIRST_PHRASE_CHARS = 14
"""The first clause may end before a word that begins a phrase after this many characters."""
MAX_FIRST_CHARS = 80
"""A longer first clause is cut between two words."""
LONG_CHARS = 120
"""A longer sentence is cut at its next comma."""
MAX_CHARS = 200
"""Most characters of a clause; text without full stops is cut at the best place within."""
_WINDOW_CHARS = MAX_CHARS + 50
"""Characters that are searched for a cut."""

_CLOSING = r"""["'\p{Pe}\p{Pf}\p{Pi}]*+"""
_NO_SPACES = r"[\p{Ideographic}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]"
"""Characters of scripts without spaces between words."""
_END = regex.compile(
    # A terminator that must be followed by a space, because "3.50" and "a.m." contain it too.
    rf"[.!?…]+{_CLOSING}(?=\s|{_NO_SPACES})"
    # A terminator of a script without spaces: 。 । ؟ and all others in Unicode.
    rf"|[\p{{Sentence_Terminal}}--[.!?]][\p{{Sentence_Terminal}}…]*+{_CLOSING}(?=[\s\S])"
    r"|\n",
    regex.V1,
)
_PAUSE = regex.compile(
    r"[,;:\u2013\u2014](?=\s)"
    r"|[\p{Terminal_Punctuation}--\p{Sentence_Terminal}--[,;:]](?=[\s\S])"
    # Thai, Lao and Khmer have neither commas nor full stops, but a space between phrases.
    r"|(?<=\p{Line_Break=SA})\s(?=\p{Line_Break=SA})",
    regex.V1,
)
_PHRASE = regex.compile(
    r"\s(?=(?:and|but|or|so|because|that|which|who|when|where|while|if|is|are|was|were|can|will"
    r"|would|has|have|at|in|on|with|from|for|by|about|between|to)\s)",
    regex.IGNORECASE,
)
_SPACE = regex.compile(r"\s+(?=\S)")
_GRAPHEME = regex.compile(r"\X")


class ClauseSplitter:
    """Splits deltas into clauses, which together are the whole text.

    With ``hurry`` the first clause is as short as possible, because a language model writes hardly
    faster than the words are spoken, and the person waits for the first of them.
    """

    __slots__ = ("_first", "_held")

    def __init__(self, *, hurry: bool = True) -> None:
        self._held = ""
        self._first = hurry

    def push(self, delta: str) -> list[str]:
        """Add text; return the clauses that are complete, each with its spaces."""
        return self._split(delta, final=False)

    def flush(self) -> list[str]:
        """End the text; return what is left."""
        clauses = self._split("", final=True)
        rest, self._held = self._held, ""
        if rest.strip():
            clauses.append(rest)
        return clauses

    def _split(self, text: str, *, final: bool) -> list[str]:
        self._held += text
        clauses = []
        while (cut := self._find_cut(final=final)) is not None:
            clause, self._held = self._held[:cut], self._held[cut:]
            if clause.strip():
                clauses.append(clause)
                self._first = False
        return clauses

    def _find_cut(self, *, final: bool) -> int | None:
        end = self._sentence_end(final=final)
        before = min(len(self._held), _WINDOW_CHARS) if end is None else end
        if self._first:
            early = self._pause_end(MIN_FIRST_PAUSE_CHARS, before) or self._phrase_end(before)
            cut = early if early is not None else end
        else:
            cut = end if end is not None else self._pause_end(LONG_CHARS, before)
        longest = MAX_FIRST_CHARS if self._first else MAX_CHARS
        length = len(self._held[: before if cut is None else cut].strip())
        return self._cut_within(longest) if length > longest else cut

    def _sentence_end(self, *, final: bool) -> int | None:
        for match in _END.finditer(self._held, 0, _WINDOW_CHARS):
            if self._held[match.start()] == ".":
                over = ends_sentence(self._held, match.start(), match.end(), final=final)
                if over is None:
                    return None
                if not over:
                    continue
            return self._skip_spaces(match.end())
        return None

    def _phrase_end(self, before: int) -> int | None:
        for match in _PHRASE.finditer(self._held, 0, before):
            if match.start() >= MIN_FIRST_PHRASE_CHARS:
                return int(match.end())
        return None

    def _pause_end(self, min_chars: int, before: int) -> int | None:
        for match in _PAUSE.finditer(self._held, 0, before):
            if match.end() >= min_chars:
                return self._skip_spaces(match.end())
        return None

    def _cut_within(self, max_chars: int) -> int:
        """Return the best cut within ``max_chars`` characters: the last of the best kind."""
        start = len(self._held) - len(self._held.lstrip())
        max_chars += start
        for kind in (_PAUSE, _PHRASE, _SPACE):
            ends = [match.end() for match in kind.finditer(self._held, start, max_chars)]
            if ends and ends[-1] >= start + MIN_FIRST_PHRASE_CHARS:
                return self._skip_spaces(ends[-1])
        cut = start
        for match in _GRAPHEME.finditer(self._held, start):
            if match.end() > max_chars:
                break
            cut = match.end()
        return cut if cut > start else max_chars

    def _skip_spaces(self, end: int) -> int:
        while end < len(self._held) and self._held[end].isspace():
            end += 1
        return end
