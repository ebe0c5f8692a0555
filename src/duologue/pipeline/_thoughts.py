"""Removes a model's thoughts: text between tags such as ``<think>`` and ``</think>``.

A reasoning model behind a plain chat endpoint writes its thoughts into its reply. They must not be
spoken, shown or kept.
"""

from __future__ import annotations

import re

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "scratchpad")

_OPEN: dict[str, tuple[str, ...]] = {
    **{f"<{name}>": (f"</{name}>",) for name in _NAMES},
    "<seed:think>": ("</seed:think>",),
    "[think]": ("[/think]",),
    "\N{WHITE LEFT-POINTING TRIANGLE}think\N{WHITE RIGHT-POINTING TRIANGLE}": (
        "\N{WHITE LEFT-POINTING TRIANGLE}/think\N{WHITE RIGHT-POINTING TRIANGLE}",
    ),
    "<|begin_of_thought|>": ("<|end_of_thought|>",),
    # The channels of gpt-oss, where the server does not separate them, and of Gemma 4.
    "<|channel|>analysis": ("<|end|>", "<|channel|>final<|message|>"),
    "<|channel|>commentary": ("<|end|>", "<|call|>", "<|channel|>final<|message|>"),
    "<|channel>thought": ("<channel|>",),
}
"""The closing tags of each opening tag, in lower case."""
_STRAY_TAGS = frozenset(
    # A thought that begins in the prompt has a closing tag only.
    [close for closes in _OPEN.values() for close in closes]
    + ["<|start|>assistant", "<|channel|>final<|message|>", "<|message|>", "<|return|>"]
)
"""Tags that are removed wherever they stand; they open no thought."""


def _tokens(texts: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=lambda text: -len(text))
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


_OUTSIDE = frozenset(_OPEN) | _STRAY_TAGS
_OUTSIDE_TOKEN = _tokens(_OUTSIDE)
_TAG_BEGIN = re.compile("|".join({re.escape(tag[0]) for tag in _OUTSIDE}))
_INSIDE_TOKEN = {opening: _tokens(frozenset(closes)) for opening, closes in _OPEN.items()}


class ThoughtFilter:
    """Removes thoughts from a reply that comes in deltas; a tag may be split over several.

    Only text that may become a tag is held back. A thought that is never closed lasts until the end
    of the reply.
    """

    __slots__ = ("_held", "_opening", "_started")

    def __init__(self) -> None:
        self._held = ""
        self._opening: str | None = None
        self._started = False

    def push(self, delta: str) -> str:
        """Add text; return the part of it that certainly belongs to the reply."""
        self._held += delta
        reply = []
        while True:
            token = _OUTSIDE_TOKEN if self._opening is None else _INSIDE_TOKEN[self._opening]
            match = token.search(self._held)
            if match is None:
                break
            if self._opening is None:
                reply.append(self._held[: match.start()])
                opening = match.group().lower()
                self._opening = opening if opening in _OPEN else None
            else:
                self._opening = None
            self._held = self._held[match.end() :]
        texts = _OUTSIDE if self._opening is None else frozenset(_OPEN[self._opening])
        kept = _unfinished(self._held, texts)
        rest, self._held = (
            self._held[: len(self._held) - kept],
            self._held[len(self._held) - kept :],
        )
        if self._opening is None:
            reply.append(rest)
        return self._strip_start("".join(reply))

    def flush(self) -> str:
        """End the reply; return the text that was held back and is not a tag."""
        rest, self._held = self._held, ""
        return self._strip_start(rest) if self._opening is None else ""

    def _strip_start(self, text: str) -> str:
        """Strip the empty lines between a thought and the reply."""
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        return text


def _unfinished(text: str, tokens: frozenset[str]) -> int:
    """Return how many characters at the end of ``text`` may begin one of ``tokens``."""
    longest = max(map(len, tokens)) - 1
    for begin in _TAG_BEGIN.finditer(text, max(0, len(text) - longest)):
        tail = text[begin.start() :].lower()
        if any(token.startswith(tail) for token in tokens):
            return len(text) - begin.start()
    return 0
