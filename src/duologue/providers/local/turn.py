"""End of turn: smart-turn v3.2 listens to the voice, and a rule looks at the last word."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from duologue.audio import Samples
from duologue.providers.local.features import RATE, log_mel
from duologue.providers.local.inference import in_thread, open_session, to_floats

WINDOW_SECONDS = 8
"""The model looks at the last 8 s, padded with silence in front."""

DANGLING_LIMIT = 0.2
"""No turn that ends in a dangling word is likelier to be over than this."""

_DANGLING = re.compile(
    r"(?<![a-z'])(?:a|about|and|any|are|as|at|because|but|by|can|could|did|do|does|every|for|from"
    r"|has|have|her|his|how|i'd|i'll|i'm|if|in|into|is|its|let's|like|maybe|my|of|on|or|our|please"
    r"|should|so|some|that's|than|the|their|then|there's|they|this|to|uh|uhm|um|was|we|were|what's"
    r"|when|where|whether|which|while|who|will|with|would|your)[^a-z']*$"
)
# Words a question may end with ("what are you looking for", "who is it with") are weak evidence,
# but the time-out bounds what a wrong guess costs, and a person cut off is worse than one waiting.


def dangles(text: str) -> bool:
    """Whether the last word of ``text`` makes one expect more ("book a table for")."""
    words = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return _DANGLING.search(words) is not None


class SmartTurn:
    """End-of-turn detection, a `TurnDetector` of 16 kHz; about 30 ms in a thread.

    ``path`` is the ONNX file of smart-turn v3.2. It is a vote, not a judge: join it with a
    time-out of 0.6 to 0.8 s.
    """

    rate = RATE

    def __init__(self, path: Path) -> None:
        self._session = open_session(str(path))
        self.predict(np.zeros(RATE, np.int16))  # the first run is twice as slow

    async def end_of_turn(self, audio: Samples, text: Callable[[], Awaitable[str]]) -> float:
        """Probability, 0 to 1, that the turn is over after int16 ``audio``, heard as ``text``."""
        probability = await in_thread(lambda: self.predict(audio))
        return min(probability, DANGLING_LIMIT) if dangles(await text()) else probability

    def predict(self, audio: Samples) -> float:
        """What the model says of the sound alone; blocks."""
        size = WINDOW_SECONDS * RATE
        window = np.zeros(size, np.float32)
        tail = to_floats(audio[-size:])
        window[size - len(tail) :] = tail
        [probability] = self._session.run(None, {"input_features": log_mel(window)[None]})
        return float(probability.reshape(-1)[0])
