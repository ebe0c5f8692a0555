"""What the service tells: blocks of content, one after the other, with their ids and usage.

From "Handling output events with the bidirectional API" in the Amazon Nova user guides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from uuid import uuid4

import pybase64

from duologue.audio import Samples
from duologue.items import Json
from duologue.simulator.fields import Object

type Emit = Callable[[str, Object], None]
type Stop = Literal["PARTIAL_TURN", "END_TURN", "INTERRUPTED", "TOOL_USE"]

INTERRUPTED = '{ "interrupted" : true }'
"""The words of the block that tells an interruption."""

CHUNK_MS = 100
"""Sound of one ``audioOutput``, in ms."""

SPEECH_TOKENS = 25
"""Tokens of a second of sound."""


class Blocks:
    """Tells the output of one prompt; ``rate`` is Hz of its sound."""

    def __init__(self, emit: Emit, prompt_name: str, rate: int) -> None:
        self._emit = emit
        self._ids: Object = {
            "sessionId": str(uuid4()),
            "promptName": prompt_name,
            "completionId": str(uuid4()),
        }
        self.rate = rate
        self._begun = False
        self._audio = ""
        self._usage = {"input": [0, 0], "output": [0, 0]}

    @property
    def audio_open(self) -> bool:
        """A block of sound is open: no other may begin."""
        return bool(self._audio)

    def user(self, text: str) -> None:
        """What the person said."""
        self._text("USER", "FINAL", text, "PARTIAL_TURN")

    def planned(self, text: str) -> None:
        """What the model is about to say."""
        self._text("ASSISTANT", "SPECULATIVE", text, "PARTIAL_TURN")

    def said(self, text: str, stop: Stop) -> None:
        """What the model has said."""
        self._text("ASSISTANT", "FINAL", text, stop)

    def interrupted(self) -> None:
        """The person has cut the model short."""
        self._text("ASSISTANT", "FINAL", INTERRUPTED, "INTERRUPTED")

    def audio(self, samples: Samples) -> None:
        """Sound, in the block that is open or begins with it; int16 at the prompt's rate."""
        self.open_audio()
        size = self.rate * CHUNK_MS // 1000
        for begin in range(0, len(samples), size):
            data = samples[begin : begin + size].astype("<i2", copy=False).tobytes()
            content = pybase64.b64encode_as_string(data)
            self._tell("audioOutput", {"contentId": self._audio, "content": content})

    def open_audio(self) -> None:
        """Begin a block of sound, if none is open."""
        if self._audio:
            return
        self._audio = self._start(
            {
                "type": "AUDIO",
                "role": "ASSISTANT",
                "audioOutputConfiguration": {
                    "mediaType": "audio/lpcm",
                    "sampleRateHertz": self.rate,
                    "sampleSizeBits": 16,
                    "encoding": "base64",
                    "channelCount": 1,
                },
            }
        )

    def close_audio(self, stop: Stop) -> None:
        """End the block of sound, if one is open."""
        if self._audio:
            self._end(self._audio, "AUDIO", stop)
            self._audio = ""

    def tool_use(self, tool_use_id: str, name: str, content: str) -> None:
        """The model calls a tool; ``content`` is JSON."""
        content_id = self._start(
            {
                "type": "TOOL",
                "role": "TOOL",
                "toolUseOutputConfiguration": {"mediaType": "application/json"},
            }
        )
        used: Object = {
            "contentId": content_id,
            "toolName": name,
            "toolUseId": tool_use_id,
            "content": content,
        }
        self._tell("toolUse", used)
        self._end(content_id, "TOOL", "TOOL_USE")

    def used(
        self, side: Literal["input", "output"], *, speech_s: float = 0, text: str = ""
    ) -> None:
        """Count seconds of sound and words, and tell the counts."""
        delta = {"input": [0, 0], "output": [0, 0]}
        delta[side] = [round(speech_s * SPEECH_TOKENS), -(-len(text) // 4)]
        for index, count in enumerate(delta[side]):
            self._usage[side][index] += count
        sums = {name: sum(counts) for name, counts in self._usage.items()}
        self._tell(
            "usageEvent",
            {
                "details": {"delta": _tokens(delta), "total": _tokens(self._usage)},
                "totalInputTokens": sums["input"],
                "totalOutputTokens": sums["output"],
                "totalTokens": sums["input"] + sums["output"],
            },
        )

    def end(self) -> None:
        """The prompt is over, and all that it made."""
        self.close_audio("END_TURN")
        if self._begun:
            self._tell("completionEnd", {"stopReason": "END_TURN"})
            self._begun = False

    def _text(self, role: str, stage: str, text: str, stop: Stop) -> None:
        content_id = self._start(
            {
                "type": "TEXT",
                "role": role,
                "additionalModelFields": f'{{"generationStage":"{stage}"}}',
                "textOutputConfiguration": {"mediaType": "text/plain"},
            }
        )
        self._tell("textOutput", {"contentId": content_id, "role": role, "content": text})
        self._end(content_id, "TEXT", stop)

    def _start(self, fields: Object) -> str:
        assert not self._audio  # noqa: S101 - one block after the other
        content_id = str(uuid4())
        self._tell("contentStart", {"contentId": content_id, **fields})
        return content_id

    def _end(self, content_id: str, kind: str, stop: Stop) -> None:
        self._tell("contentEnd", {"contentId": content_id, "type": kind, "stopReason": stop})

    def _tell(self, name: str, fields: Object) -> None:
        if not self._begun:
            self._begun = True
            self._emit("completionStart", dict(self._ids))
        self._emit(name, {**self._ids, **fields})


def _tokens(counts: dict[str, list[int]]) -> Json:
    return {
        side: {"speechTokens": speech, "textTokens": text}
        for side, (speech, text) in counts.items()
    }
