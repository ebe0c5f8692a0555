"""Tell transcripts of speech from those that the recogniser invents for music and breath.

Two measures decide: the probability of the first token, and how steady the audio is. In speech the
spectrum changes within 100 ms; a chord, a hum or a breath lasts longer. The limits were chosen on
100 recordings without speech (two of them still pass as speech) and on 144 short words with and
without noise (only words that the recogniser mishears are rejected). Numbers need a rule of their
own: when the person stops within one, the recogniser invents further digits, either
with low probabilities or in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import regex

from duologue.audio import Samples
from duologue.providers.local._features import HOP, WINDOW, log_mel
from duologue.providers.local._inference import to_floats
from duologue.vad.words import plain_words

MAX_STEADINESS = 0.95
"""Steadiness from which a short text is rejected; spoken words have at most 0.91."""
MIN_CAPTION_PROBABILITY = 0.6
"""Probability of the first token below which a caption is rejected."""
MIN_SHORT_PROBABILITY = 0.225
"""Probability of the first token below which one or two words are rejected."""

_MAX_SHORT_WORDS = 6
"""Texts of more words than this are accepted: noise has never produced one."""
_LAG_FRAMES = 10
"""Frames of 10 ms between the spectra that are compared."""
_ACTIVE_LEVEL = 0.1
"""Level above which audio counts, as a fraction of the loudest."""
_CAPTIONS = regex.compile(
    r"transcri(?:pt|bed)|subtitle|caption|thanks? (?:you )?for watching|emily beynon|amara"
)
"""Captions of films, which the recogniser has learned to write for music."""
_FOREIGN = regex.compile(r"[\p{L}--\p{Latin}]|\N{REPLACEMENT CHARACTER}", regex.V1)
"""Letters of other scripts: the model knows English only, so they come from noise."""
_MIN_DIGITS = 3
"""Leading digits of a number that are accepted; the first two often have low probabilities."""
_MIN_DIGIT_PROBABILITY = 0.3
_MIN_LOOP_PROBABILITY = 0.6
_SPELLED = regex.compile(r" ?[^\W_]?[-,. ]*")


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a transcript and its probability."""

    piece: bytes
    probability: float

    @property
    def text(self) -> str:
        """The text of the token; an incomplete character is replaced."""
        return self.piece.decode("utf-8", "replace").replace("\u2581", " ")


def is_speech(text: str, tokens: list[Token], samples: Samples) -> bool:
    """Return whether ``text`` was spoken, rather than invented for audio without speech."""
    words = plain_words(text)
    if not words or words == ["you"]:
        # The recogniser writes a lone "You" for bursts of noise, with any probability.
        return False
    if len(words) > _MAX_SHORT_WORDS:
        return True
    if _FOREIGN.search(text) is not None:
        return False
    first = tokens[0].probability
    if first < MIN_SHORT_PROBABILITY and len(set(words)) <= 2:
        return False
    if first < MIN_CAPTION_PROBABILITY and _CAPTIONS.search(" ".join(words)) is not None:
        return False
    return steadiness(samples) < MAX_STEADINESS


def steadiness(samples: Samples) -> float:
    """Return how similar loud spectra 0.1 s apart are, at most 1; 0 if the audio is too short."""
    audio = to_floats(samples)
    if len(audio) < WINDOW + (_LAG_FRAMES + 1) * HOP:
        return 0.0
    spectra = log_mel(audio).T
    starts = np.arange(len(spectra)) * HOP
    sums = np.concatenate(([0.0], np.cumsum(np.square(audio, dtype=np.float64))))
    ends = np.minimum(starts + WINDOW, len(audio))
    levels = np.sqrt((sums[ends] - sums[starts]) / (ends - starts))
    active = levels > _ACTIVE_LEVEL * levels.max()
    both = active[:-_LAG_FRAMES] & active[_LAG_FRAMES:]
    if not both.any():
        return 0.0
    shapes = spectra - spectra.mean(axis=1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + 1e-6
    return float((shapes[:-_LAG_FRAMES] * shapes[_LAG_FRAMES:]).sum(axis=1)[both].mean())


def drop_invented_digits(tokens: list[Token]) -> list[Token]:
    """Return the tokens without invented digits or letters at the end.

    When the person stops within a number, the recogniser adds digits that were not spoken:
    "555-123" becomes "555-123-123". The first of them has a low probability, or they repeat earlier
    ones.
    """
    begin = len(tokens)
    while begin and _SPELLED.fullmatch(tokens[begin - 1].text):
        begin -= 1
    signs = [
        (at, sign, tokens[at].probability)
        for at in range(begin, len(tokens))
        if (sign := tokens[at].text.strip("-,. ")).isalnum()
    ]
    for count, (at, _, probability) in enumerate(signs):
        if count < _MIN_DIGITS or probability >= _MIN_LOOP_PROBABILITY:
            continue
        spoken = "".join(sign for _, sign, _ in signs[:count])
        rest = "".join(sign for _, sign, _ in signs[count:])
        if probability < _MIN_DIGIT_PROBABILITY or _repeats(spoken, rest):
            return tokens[:at]
    return tokens


def _repeats(spoken: str, rest: str) -> bool:
    """Return whether ``rest`` only repeats the end of ``spoken``."""
    if len(rest) < 2:
        return False
    for size in range(2, len(spoken) + 1):
        if (spoken[-size:] * (len(rest) // size + 1)).startswith(rest):
            return True
    return False
