"""The echo provider's other way to answer: OpenAI's turns of a conversation.

It finds the person's turns by loudness, commits and transcribes each, and replies with a second of
audio in a burst. Events have the fields and the size of the service's.
"""

from __future__ import annotations

import orjson
import pybase64

from benchmarks.wire_formats import Event

TICK_MS = 20
END_MS = 600
"""Silence after which a turn is over."""
REPLY_FRAMES = 50
WORDS = "and so my fellow americans ask not what your country can do for you"
_FRAME = pybase64.b64encode(bytes(960)).decode()


class Turns:
    """The service's side of one session; ``transcripts`` says whether it tells the words."""

    def __init__(self, *, transcripts: bool) -> None:
        self._transcripts = transcripts
        self._now_ms = 0
        self._loud_ms = 0
        self._item = ""
        self._before: str | None = None
        self._count = 0

    def hear(self, *, loud: bool) -> list[bytes]:
        """Return the events that follow 20 ms of the person's audio."""
        self._now_ms += TICK_MS
        if loud:
            self._loud_ms = self._now_ms
            if not self._item:
                self._item = self._id("item")
                start = {"audio_start_ms": self._now_ms - TICK_MS, "item_id": self._item}
                return [self._event("input_audio_buffer.speech_started", start)]
        elif self._item and self._now_ms - self._loud_ms >= END_MS:
            return [*self._end_turn(), *self._reply()]
        return []

    def _end_turn(self) -> list[bytes]:
        item_id, self._item = self._item, ""
        stopped = {"audio_end_ms": self._now_ms, "item_id": item_id}
        content = [{"type": "input_audio", "transcript": None}]
        events = [
            self._event("input_audio_buffer.speech_stopped", stopped),
            self._event(
                "input_audio_buffer.committed",
                {"previous_item_id": self._before, "item_id": item_id},
            ),
            *self._add_item(item_id, "user", "completed", content),
        ]
        if self._transcripts:
            words = {"item_id": item_id, "content_index": 0, "transcript": WORDS}
            kind = "conversation.item.input_audio_transcription.completed"
            events.append(self._event(kind, words))
        return events

    def _reply(self) -> list[bytes]:
        reply, item_id = self._id("resp"), self._id("item")
        place = {"response_id": reply, "item_id": item_id, "output_index": 0, "content_index": 0}
        response: Event = {"id": reply, "object": "realtime.response", "status": "in_progress"}
        item = self._item_object(item_id, "assistant", "in_progress", [])
        output = {"response_id": reply, "output_index": 0, "item": item}
        content = [{"type": "output_audio", "transcript": WORDS}]
        said = self._item_object(item_id, "assistant", "completed", content)
        part = {**place, "part": {"type": "audio", "transcript": ""}}
        return [
            self._event("response.created", {"response": response}),
            self._event("response.output_item.added", output),
            *self._add_item(item_id, "assistant", "in_progress", []),
            self._event("response.content_part.added", part),
            self._event("response.output_audio_transcript.delta", {**place, "delta": WORDS}),
            *(
                self._event("response.output_audio.delta", {**place, "delta": _FRAME})
                for _ in range(REPLY_FRAMES)
            ),
            self._event("response.output_audio.done", place),
            self._event("response.output_audio_transcript.done", {**place, "transcript": WORDS}),
            self._event("response.output_item.done", {**output, "item": said}),
            self._event(
                "response.done",
                {"response": {**response, "status": "completed", "output": [said]}},
            ),
        ]

    def _add_item(
        self, item_id: str, role: str, status: str, content: list[dict[str, str | None]]
    ) -> list[bytes]:
        item = self._item_object(item_id, role, status, content)
        fields: Event = {"previous_item_id": self._before, "item": item}
        self._before = item_id
        kinds = ("conversation.item.added", "conversation.item.done")
        return [self._event(kind, fields) for kind in kinds[: 2 if status == "completed" else 1]]

    @staticmethod
    def _item_object(
        item_id: str, role: str, status: str, content: list[dict[str, str | None]]
    ) -> Event:
        kind = {"id": item_id, "object": "realtime.item", "type": "message"}
        return {**kind, "status": status, "role": role, "content": content}

    def _id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count:021d}"

    def _event(self, kind: str, fields: Event) -> bytes:
        return orjson.dumps({"type": kind, "event_id": self._id("event"), **fields})
