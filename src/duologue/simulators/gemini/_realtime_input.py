"""Handles ``realtimeInput``: audio, images, text, and the start and end of the user's activity."""

from __future__ import annotations

from duologue.json_types import Json, JsonObject
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._fields import objects_at, text_at
from duologue.simulators.gemini._lifetime import Lifetime
from duologue.simulators.gemini._loopback import Loopback
from duologue.simulators.gemini._media import Image, InputAudioDecoder, decode_image
from duologue.simulators.gemini._reply import Emit, audio_message
from duologue.simulators.gemini._turns import UserTurns

MAX_IMAGES = 2000
"""Number of newest images that are kept for inspection."""
MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Bytes of the images that are kept; beyond it the oldest are dropped."""


class RealtimeInput:
    """Passes on the realtime input of one session."""

    def __init__(self, turns: UserTurns, lifetime: Lifetime, emit: Emit, *, loopback: bool) -> None:
        self._turns = turns
        self._lifetime = lifetime
        self._emit = emit
        self._loopback = Loopback() if loopback else None
        self._audio_decoder = InputAudioDecoder()
        self.images: BoundedLog[Image] = BoundedLog(MAX_IMAGES, MAX_IMAGE_BYTES)
        self.audio_samples = 0
        """Samples of input audio so far, at 16 kHz."""

    def accept(self, body: JsonObject) -> None:
        """Handle the next input. Raises `RefusedError`."""
        for name, value in body.items():
            match name:
                case "audio":
                    self._accept_audio(value)
                case "video":
                    self._accept_image(value)
                case "mediaChunks":
                    for blob in objects_at(body, name):
                        spoken = text_at(blob, "mimeType").startswith("audio/")
                        (self._accept_audio if spoken else self._accept_image)(blob)
                case "text":
                    self._turns.add_text(str(value))
                case "audioStreamEnd" if value is True:
                    self._turns.end_audio_stream()
                case "activityStart":
                    self._turns.start_activity()
                case "activityEnd":
                    self._turns.end_activity()
                case _:
                    pass  # ``audioStreamEnd: false`` has no effect

    def _accept_audio(self, blob: Json) -> None:
        samples = self._audio_decoder.decode(blob)
        self.audio_samples += len(samples)
        if self._loopback is not None:
            self._emit(*audio_message(self._loopback.push(samples)))
        else:
            self._turns.add_audio(samples)

    def _accept_image(self, blob: Json) -> None:
        image = decode_image(blob)
        self.images.add(image, len(image.data))
        self._turns.image_received()
        self._lifetime.image_received()
