"""Whether what the recogniser wrote was said: it writes words for music, breath and silence too.

Two things tell: how sure it was of its first token, and how steady the sound is. In speech the
spectrum changes within 100 ms; a chord, a hum or a breath goes on. Chosen on 100 sounds that are
no speech, of which it believes one in fifty now, and on 144 short words with and without noise, of
which it gives up those alone that the recogniser mishears. A number is a case of its own: where
the person stops within it, the recogniser goes on by itself, either unsure or in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import regex

from duologue.audio import Samples
from duologue.pipeline.words import plain_words
from duologue.providers.local.features import HOP, WINDOW, log_mel
from duologue.providers.local.inference import to_floats

MAX_STEADINESS = 0.95
"""No short text is believed of a sound as steady as this; words of people have at most 0.91."""
UNSURE = 0.6
"""Probability of the first token, below which a caption is not believed."""
VERY_UNSURE = 0.225
"""And below which one or two words are not."""

_SHORT_WORDS = 6
"""Texts of more words than this are believed: noise has never made one."""
_LAG = 10
"""Frames of 10 ms between the spectra that are compared."""
_ACTIVE = 0.1
"""Sound this loud beside the loudest is looked at."""
_CAPTIONS = regex.compile(
    r"transcri(?:pt|bed)|subtitle|caption|thanks? (?:you )?for watching|emily beynon|amara"
)
"""What the recogniser learned to write under films and says of music."""
_FOREIGN = regex.compile(r"[\p{L}--\p{Latin}]|\N{REPLACEMENT CHARACTER}", regex.V1)
"""The model knows English: letters of other scripts are made of noise."""
_MIN_DIGITS = 3
"""Digits of a number that are believed however unsure it is of them: of two it often is."""
_UNSURE_DIGIT = 0.3
_LOOP_DIGIT = 0.6
_SPELLED = regex.compile(r" ?[^\W_]?[-,. ]*")


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a transcript and how probable the recogniser found it."""

    piece: bytes
    probability: float

    @property
    def text(self) -> str:
        """What it writes; a piece of a character is replaced."""
        return self.piece.decode("utf-8", "replace").replace("\u2581", " ")


def was_said(text: str, tokens: list[Token], samples: Samples) -> bool:
    """Return whether ``text`` was said, and not made of a sound that is no speech."""
    words = plain_words(text)
    if not words or words == ["you"]:
        # Of bursts of noise it makes a lone "You" with any probability.
        return False
    if len(words) > _SHORT_WORDS:
        return True
    if _FOREIGN.search(text) is not None:
        return False
    first = tokens[0].probability
    if first < VERY_UNSURE and len(set(words)) <= 2:
        return False
    if first < UNSURE and _CAPTIONS.search(" ".join(words)) is not None:
        return False
    return steadiness(samples) < MAX_STEADINESS


def steadiness(samples: Samples) -> float:
    """Return how alike spectra 0.1 s apart are where it is loud, up to 1; 0 for a short sound."""
    audio = to_floats(samples)
    if len(audio) < WINDOW + (_LAG + 1) * HOP:
        return 0.0
    spectra = log_mel(audio).T
    starts = np.arange(len(spectra)) * HOP
    sums = np.concatenate(([0.0], np.cumsum(np.square(audio, dtype=np.float64))))
    ends = np.minimum(starts + WINDOW, len(audio))
    levels = np.sqrt((sums[ends] - sums[starts]) / (ends - starts))
    active = levels > _ACTIVE * levels.max()
    both = active[:-_LAG] & active[_LAG:]
    if not both.any():
        return 0.0
    shapes = spectra - spectra.mean(axis=1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + 1e-6
    return float((shapes[:-_LAG] * shapes[_LAG:]).sum(axis=1)[both].mean())


def without_loop(tokens: list[Token]) -> list[Token]:
    """Return the tokens up to where a number or a spelled word at the end was made up.

    The recogniser goes on with digits that nobody said where the person stops within a number:
    "555-123" becomes "555-123-123". It is unsure of the first of them, or repeats itself.
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
        if count < _MIN_DIGITS or probability >= _LOOP_DIGIT:
            continue
        said = "".join(sign for _, sign, _ in signs[:count])
        rest = "".join(sign for _, sign, _ in signs[count:])
        if probability < _UNSURE_DIGIT or _repeats(said, rest):
            return tokens[:at]
    return tokens


def _repeats(said: str, rest: str) -> bool:
    """Whether ``rest`` says the end of ``said`` again and again."""
    if len(rest) < 2:
        return False
    for size in range(2, len(said) + 1):
        if (said[-size:] * (len(rest) // size + 1)).startswith(rest):
            return True
    return False
