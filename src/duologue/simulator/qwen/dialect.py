"""The names of this service: those of OpenAI's beta protocol."""

from __future__ import annotations

from duologue.simulator.openai.dialect import Dialect

BETA = Dialect(
    text="text",
    audio="audio",
    transcript="audio_transcript",
    item="created",
    item_done=None,
    previous=False,
    words_first=True,
    transcript_first=True,
    objects=True,
)

HEARD_RATE = 16000
"""Hz at which a session hears; other input is brought to it."""
