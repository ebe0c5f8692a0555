"""Removes Markdown from text that will be spoken, and keeps all other signs.

A mark stands around words or at the start of a line: ``**Bold**``, ``# Rooms``. The same signs
inside a text belong to it: ``C#``, ``3 * 4``, ``my_notes_file``, ``*99#``.
"""

from __future__ import annotations

import regex

SPAN_CHARS = 100
"""Characters after an opening mark that are searched for its closing mark."""

_SPECIAL = regex.compile(r"[*_`~\[]|!(?=\[|\Z)|(?<![^\n])[ \t]*[#>*+`~]")
_LINE = regex.compile(r"[ \t]*(?:#{1,6}[ \t]+|>[ \t]+|[*+][ \t]+|(?:```+|~~~+)[ \t]*[\w+.-]*\n)")
"""A heading, a quotation, a list item or a code fence."""
_LINE_BEGUN = regex.compile(
    r"[ \t]*(?:#{1,6}[ \t]*|>[ \t]*|[*+][ \t]*|(?:```*|~~~*)[ \t]*[\w+.-]*)?"
)
_RUN = regex.compile(r"\*+|_+|`+|~+")
_LINK = regex.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?: \"[^\"\n]*\")?\)")
_LINK_BEGUN = regex.compile(r"!?\[[^\[\]\n]*(?:\](?:\([^()\n]*)?)?")
_WORD = regex.compile(r"[[\p{L}\p{N}_]--[\p{Ideographic}\p{Hiragana}\p{Katakana}]]", regex.V1)
"""A character of a word, except in scripts without spaces, where a mark may follow a word."""
_CODE_NAME = regex.compile(r"\p{Ll}[\p{Ll}\p{Nd}_]*")


class MarkupFilter:
    """Removes marks from text that comes in deltas; holds back what may still become a mark."""

    __slots__ = ("_before", "_held", "_open")

    def __init__(self) -> None:
        self._held = ""
        self._before = "\n"
        """The last character processed, marks included."""
        self._open: list[str] = []
        """Opening marks that were removed; their closing marks will be removed too."""

    def push(self, delta: str) -> str:
        """Add text; return the part of it that is certain."""
        self._held += delta
        return self._process(final=False)

    def flush(self) -> str:
        """End the text; return what was held back."""
        return self._process(final=True)

    def _process(self, *, final: bool) -> str:
        text = self._before + self._held
        pieces: list[str] = []
        at = 1
        while (special := _SPECIAL.search(text, at)) is not None:
            pieces.append(text[at : special.start()])
            at = special.start()
            taken = self._process_mark(text, at, final=final)
            if taken is None:
                break
            kept, at = taken
            pieces.append(kept)
        else:
            pieces.append(text[at:])
            at = len(text)
        self._before, self._held = text[at - 1], text[at:]
        return "".join(pieces)

    def _process_mark(self, text: str, at: int, *, final: bool) -> tuple[str, int] | None:
        """Process a possible mark at ``at``.

        Return the text to keep and the position after the mark, or None if more text is needed.
        """
        if text[at - 1] == "\n":
            line = _LINE.match(text, at)
            if line is not None and (line.end() < len(text) or line.group().endswith("\n")):
                return "", line.end()
            if not final and _LINE_BEGUN.fullmatch(text, at) is not None:
                return None
        if text[at] in "![":
            return _replace_link(text, at, final=final)
        run = _RUN.match(text, at)
        if run is None:
            return text[at], at + 1
        if run.end() == len(text) and not final:
            return None
        mark = run.group()
        if mark in self._open and _closes(text, at, mark):
            self._open.remove(mark)
            return "", run.end()
        if mark == "~" or not _opens(text, at, mark):
            return mark, run.end()
        return self._find_closing(text, at, mark, final=final)

    def _find_closing(
        self, text: str, at: int, mark: str, *, final: bool
    ) -> tuple[str, int] | None:
        """Find the end of what ``mark`` opens at ``at``; return as `_process_mark` does."""
        inside = at + len(mark)
        line_end = text.find("\n", inside)
        limit = inside + SPAN_CHARS if line_end < 0 else min(inside + SPAN_CHARS, line_end)
        for run in _RUN.finditer(text, inside, limit):
            if run.group() != mark:
                continue
            if run.end() == len(text) and not final:
                return None  # The mark may continue, or a word may follow it.
            if not _closes(text, run.start(), mark):
                continue
            within = text[inside : run.start()]
            if mark[0] == "`":
                return within, run.end()
            if not _is_marked(within, mark):
                return text[at : run.end()], run.end()
            self._open.append(mark)
            return "", inside
        if limit > len(text) and not final:
            return None
        if len(mark) > 1 and mark[0] != "`" and limit == inside + SPAN_CHARS <= len(text):
            # Doubled signs do not occur in plain text, so a long stretch counts as marked too.
            self._open.append(mark)
            return "", inside
        return mark, inside


def _opens(text: str, at: int, mark: str) -> bool:
    """Return whether ``mark`` may open: text follows at once, and no word precedes it."""
    following = text[at + len(mark) : at + len(mark) + 1]
    return bool(following) and not following.isspace() and _WORD.match(text, at - 1) is None


def _closes(text: str, at: int, mark: str) -> bool:
    """Return whether ``mark`` may close: text precedes it at once, and no word follows."""
    return not text[at - 1].isspace() and _WORD.match(text, at + len(mark)) is None


def _is_marked(within: str, mark: str) -> bool:
    """Return whether ``within`` is marked text, not a code to dial or a name in code."""
    if len(mark) == 1:
        return any(letter.isalpha() for letter in within)
    return mark != "__" or _CODE_NAME.fullmatch(within) is None


def _replace_link(text: str, at: int, *, final: bool) -> tuple[str, int] | None:
    """Replace a link or image by its name, keep other brackets; return as `_process_mark` does."""
    link = _LINK.match(text, at)
    if link is not None:
        return link.group(1), link.end()
    if text[at:] == "!":
        return ("!", at + 1) if final else None
    if not final and len(text) - at < 5 * SPAN_CHARS and _LINK_BEGUN.fullmatch(text, at):
        return None
    return text[at], at + 1
