"""The output events of a prompt: content blocks, one after the other, with their ids and usage.

Source: "Handling output events with the bidirectional API" in the Amazon Nova user guides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from uuid import uuid4

import pybase64

from duologue.audio import Samples
from duologue.json_types import Json, JsonObject

type Emit = Callable[[str, JsonObject], None]
type StopReason = Literal["PARTIAL_TURN", "END_TURN", "INTERRUPTED", "TOOL_USE"]

INTERRUPTED = '{ "interrupted" : true }'
"""Text of the block that announces an interruption."""

CHUNK_MS = 100
"""Audio of one ``audioOutput``, in ms."""

SPEECH_TOKENS_PER_S = 25
"""Tokens that one second of audio counts as."""


class Blocks:
    """Sends the output of one prompt; ``rate`` is the sample rate of its audio in Hz."""

    def __init__(self, emit: Emit, prompt_name: str, rate: int) -> None:
        self._emit = emit
        self._ids: JsonObject = {
            "sessionId": str(uuid4()),
            "promptName": prompt_name,
            "completionId": str(uuid4()),
        }
        self.rate = rate
        self._completion_started = False
        self._audio_content_id = ""
        self._usage = {"input": [0, 0], "output": [0, 0]}

    @property
    def audio_open(self) -> bool:
        """Whether an audio block is open; no other block may begin until it is closed."""
        return bool(self._audio_content_id)

    def send_user_transcript(self, text: str) -> None:
        """Send the transcript of a user turn."""
        self._send_text("USER", "FINAL", text, "PARTIAL_TURN")

    def send_planned(self, text: str) -> None:
        """Send the sentence that the model is about to say."""
        self._send_text("ASSISTANT", "SPECULATIVE", text, "PARTIAL_TURN")

    def send_spoken(self, text: str, stop: StopReason) -> None:
        """Send a sentence that the model has said."""
        self._send_text("ASSISTANT", "FINAL", text, stop)

    def send_interruption(self) -> None:
        """Send the block that announces an interruption."""
        self._send_text("ASSISTANT", "FINAL", INTERRUPTED, "INTERRUPTED")

    def send_audio(self, samples: Samples) -> None:
        """Send audio in the open audio block, or in a new one; int16 at the prompt's rate."""
        self.open_audio()
        size = self.rate * CHUNK_MS // 1000
        for begin in range(0, len(samples), size):
            data = samples[begin : begin + size].astype("<i2", copy=False).tobytes()
            content = pybase64.b64encode_as_string(data)
            self._send("audioOutput", {"contentId": self._audio_content_id, "content": content})

    def open_audio(self) -> None:
        """Begin an audio block, if none is open."""
        if self._audio_content_id:
            return
        self._audio_content_id = self._start_content(
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

    def close_audio(self, stop: StopReason) -> None:
        """End the audio block, if one is open."""
        if self._audio_content_id:
            self._end_content(self._audio_content_id, "AUDIO", stop)
            self._audio_content_id = ""

    def send_tool_use(self, tool_use_id: str, name: str, content: str) -> None:
        """Send a tool call; ``content`` is JSON."""
        content_id = self._start_content(
            {
                "type": "TOOL",
                "role": "TOOL",
                "toolUseOutputConfiguration": {"mediaType": "application/json"},
            }
        )
        used: JsonObject = {
            "contentId": content_id,
            "toolName": name,
            "toolUseId": tool_use_id,
            "content": content,
        }
        self._send("toolUse", used)
        self._end_content(content_id, "TOOL", "TOOL_USE")

    def send_usage(
        self, side: Literal["input", "output"], *, speech_s: float = 0, text: str = ""
    ) -> None:
        """Add seconds of audio and characters of text to the usage, and send the counts."""
        delta = {"input": [0, 0], "output": [0, 0]}
        delta[side] = [round(speech_s * SPEECH_TOKENS_PER_S), -(-len(text) // 4)]
        for index, count in enumerate(delta[side]):
            self._usage[side][index] += count
        sums = {name: sum(counts) for name, counts in self._usage.items()}
        self._send(
            "usageEvent",
            {
                "details": {"delta": _tokens(delta), "total": _tokens(self._usage)},
                "totalInputTokens": sums["input"],
                "totalOutputTokens": sums["output"],
                "totalTokens": sums["input"] + sums["output"],
            },
        )

    def end_completion(self) -> None:
        """End the audio block and the completion, because the prompt has ended."""
        self.close_audio("END_TURN")
        if self._completion_started:
            self._send("completionEnd", {"stopReason": "END_TURN"})
            self._completion_started = False

    def _send_text(self, role: str, stage: str, text: str, stop: StopReason) -> None:
        content_id = self._start_content(
            {
                "type": "TEXT",
                "role": role,
                "additionalModelFields": f'{{"generationStage":"{stage}"}}',
                "textOutputConfiguration": {"mediaType": "text/plain"},
            }
        )
        self._send("textOutput", {"contentId": content_id, "role": role, "content": text})
        self._end_content(content_id, "TEXT", stop)

    def _start_content(self, fields: JsonObject) -> str:
        assert not self._audio_content_id  # noqa: S101 - one block after the other
        content_id = str(uuid4())
        self._send("contentStart", {"contentId": content_id, **fields})
        return content_id

    def _end_content(self, content_id: str, kind: str, stop: StopReason) -> None:
        self._send("contentEnd", {"contentId": content_id, "type": kind, "stopReason": stop})

    def _send(self, name: str, fields: JsonObject) -> None:
        if not self._completion_started:
            self._completion_started = True
            self._emit("completionStart", dict(self._ids))
        self._emit(name, {**self._ids, **fields})


def _tokens(counts: dict[str, list[int]]) -> Json:
    return {
        side: {"speechTokens": speech, "textTokens": text}
        for side, (speech, text) in counts.items()
    }
