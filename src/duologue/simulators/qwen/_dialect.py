"""The names of this service, which are those of OpenAI's beta protocol."""

from __future__ import annotations

from duologue.simulators._openai_protocol.dialect import Dialect

BETA = Dialect(
    text="text",
    audio="audio",
    transcript="audio_transcript",
    item_added="created",
    item_done=None,
    sends_previous_id=False,
    reply_awaits_transcript=True,
    transcript_first=True,
    item_objects=True,
)

INPUT_RATE = 16000
"""Hz at which a session processes input audio; other rates are resampled to it."""
