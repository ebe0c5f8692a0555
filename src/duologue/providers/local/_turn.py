"""Detect the end of a turn: smart-turn v3.2 judges the voice, and rules judge the last words."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from duologue.audio import Samples
from duologue.providers.local._features import RATE, log_mel
from duologue.providers.local._inference import open_session, run_in_thread, to_floats

WINDOW_SECONDS = 8
"""Seconds of audio that the model takes, the last ones, padded with silence in front."""

DANGLING_LIMIT = 0.2
"""Highest probability for a turn that ends in a dangling word."""

UNFINISHED_LIMIT = 0.35
"""Highest probability for a turn that ends with a comma, or inside a number spoken in groups."""

_DANGLING = re.compile(
    r"(?<![\w'])(?:a|about|and|any|are|as|at|because|but|by|can|could|did|do|does|every|for|from"
    r"|has|have|her|his|how|i'd|i'll|i'm|if|in|into|is|its|let's|like|maybe|my|of|on|or|our|please"
    r"|should|so|some|that's|than|the|their|then|there's|they|this|to|uh|uhm|um|was|we|were|what's"
    r"|when|where|whether|which|while|who|will|with|would|your)[^\w']*$"
)
_COMPLETE = re.compile(
    r"""
    # "I think so."
    (?:think|hope|guess|suppose|believe|said|say|do|did|not|even)\ so\W*$
    # "Yes, it is.", "I do."
    | ^\W*(?:yes|yeah|no|nope|oh|well|sure|okay)\W+(?:\w+\W+)?(?:is|are|was|were|has|have)\W*$
    | ^\W*(?:\w+\W+)?(?:i|you|he|she|it|we|they)\ (?:do|does|did|can|could|should|will|would)\W*$
    # "Could you repeat that, please?", but "Could you please"
    | ^\W*please\W*$ | (?<!\byou)(?<!\band)(?<!\bi)(?<!\bwe)\W+please\W*$
    # "What are you looking for?", "Who am I speaking to?", "Why?"
    | ^\W*(?:what|who|which|where|how)\ .*\w\ (?:about|at|for|from|in|into|like|of|on|with)\W*$
    | (?:speaking|talking|listening|going|belong)\ to\W*$
    | ^\W*(?:what|who|where|why|how|when|which)\W*$
    # "Do you know what time it is?", but "What I need is"
    | \b(?:explain|guess|idea|know|remember|say|see|show|sure|tell|understand|wonder)\b.*
      \ (?:what|who|where|how|when|which)\ (?:\S+\ )+(?:is|are|was|were)\W*$
    """,
    re.VERBOSE,
)
"""Last sentences that are complete although they end with a dangling word."""
_SENTENCE_END = re.compile(r"[.!?]+\s+")
_NUMBER = re.compile(
    r"(?<!room )(?<!table )(?<!gate )(?:number|phone|telephone|mobile|cell)(?: number)?"
    r"(?: is|'s|:)?\W*(?P<digits>\d[\d\W]*)$"
    r"|\b(?:call|reach|ring|text) (?:me|us|him|her|them)(?: back)? (?:at|on)\W*"
    r"(?P<more>\d[\d\W]*)$"
)
MIN_NUMBER_DIGITS = 7
"""Digits of the shortest telephone number."""


def ends_dangling(text: str) -> bool:
    """Return whether the last word of ``text`` demands a continuation ("book a table for")."""
    last = _SENTENCE_END.split(_plain(text))[-1]
    return _DANGLING.search(last) is not None and _COMPLETE.search(last) is None


def is_within_number(text: str) -> bool:
    """Return whether ``text`` ends with the first digits of a number that is spoken in groups."""
    match = _NUMBER.search(_plain(text))
    if match is None:
        return False
    digits = re.sub(r"\D", "", match["digits"] or match["more"])
    return len(digits) < MIN_NUMBER_DIGITS


def _plain(text: str) -> str:
    return text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


class SmartTurn:
    """End-of-turn detection, a `TurnDetector` at 16 kHz; takes about 30 ms in a thread.

    ``path`` is the ONNX file of smart-turn v3.2. Its probability is one hint among others: combine
    it with a time-out (`Endpointing`).
    """

    rate = RATE

    def __init__(self, path: Path) -> None:
        self._session = open_session(str(path))
        self.predict(np.zeros(RATE, np.int16))  # the first run is twice as slow

    async def end_of_turn(self, audio: Samples, text: Callable[[], Awaitable[str]]) -> float:
        """Return the probability, 0 to 1, that the turn is over.

        Args:
            audio: int16 samples of the turn.
            text: Returns the transcript of ``audio``.
        """
        probability = await run_in_thread(lambda: self.predict(audio))
        transcript = await text()
        if ends_dangling(transcript):
            return min(probability, DANGLING_LIMIT)
        # The recogniser writes a comma or a full stop according to the voice.
        is_unfinished = transcript.endswith(",") or is_within_number(transcript)
        return min(probability, UNFINISHED_LIMIT) if is_unfinished else probability

    def predict(self, audio: Samples) -> float:
        """Return the model's probability, from the audio alone; blocks."""
        size = WINDOW_SECONDS * RATE
        window = np.zeros(size, np.float32)
        tail = to_floats(audio[-size:])
        window[size - len(tail) :] = tail
        [probability] = self._session.run(None, {"input_features": log_mel(window)[None]})
        return float(probability.reshape(-1)[0])
