"""What comes by ``realtimeInput``: sound, pictures, text, and signs of the person's activity."""

from __future__ import annotations

from duologue.items import Json
from duologue.simulator.fields import Object, objects_at, text_at
from duologue.simulator.gemini.answer import Emit, sound_message
from duologue.simulator.gemini.lifetime import Lifetime
from duologue.simulator.gemini.loopback import Loopback
from duologue.simulator.gemini.media import AudioInput, Image, image_of
from duologue.simulator.gemini.turns import Turns
from duologue.simulator.kept import Kept

MOST_IMAGES = 2000
"""Pictures that are kept to be looked at; the oldest go."""
MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Bytes of the images that are kept; beyond it the oldest are dropped."""


class RealtimeInput:
    """Takes the input of one session to where it belongs."""

    def __init__(self, turns: Turns, life: Lifetime, emit: Emit, *, loopback: bool) -> None:
        self._turns = turns
        self._life = life
        self._emit = emit
        self._loopback = Loopback() if loopback else None
        self._sound = AudioInput()
        self.kept: Kept[Image] = Kept(MOST_IMAGES, MAX_IMAGE_BYTES)
        self.samples = 0
        """Sound taken so far, in samples at 16 kHz."""

    def take(self, body: Object) -> None:
        """The next input. Raises `RefusedError`."""
        for name, value in body.items():
            match name:
                case "audio":
                    self._audio(value)
                case "video":
                    self._video(value)
                case "mediaChunks":
                    for blob in objects_at(body, name):
                        spoken = text_at(blob, "mimeType").startswith("audio/")
                        (self._audio if spoken else self._video)(blob)
                case "text":
                    self._turns.write(str(value))
                case "audioStreamEnd" if value is True:
                    self._turns.stream_end()
                case "activityStart":
                    self._turns.activity_start()
                case "activityEnd":
                    self._turns.activity_end()
                case _:
                    """``audioStreamEnd`` that is false."""

    def _audio(self, blob: Json) -> None:
        samples = self._sound.read(blob)
        self.samples += len(samples)
        if self._loopback is not None:
            self._emit(*sound_message(self._loopback.push(samples)))
        else:
            self._turns.push(samples)

    def _video(self, blob: Json) -> None:
        image = image_of(blob)
        self.kept.add(image, len(image.data))
        self._turns.picture()
        self._life.picture()
