"""The server's output buffer of a WebRTC call: audio in real time, and the events about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from duologue.audio import FRAME_MS, AudioFrame, Samples
from duologue.simulators._openai_protocol.dialect import Emit
from duologue.simulators._openai_protocol.reply import OutgoingReply
from duologue.simulators._openai_protocol.schema import RATE

_FRAME = RATE * FRAME_MS // 1000


@dataclass(slots=True)
class _BufferedAudio:
    reply_id: str
    item_id: str
    samples: Samples


class OutputBuffer:
    """Plays one reply after another, 20 ms a tick, with silence between them.

    Args:
        send: Sends a frame of audio, or None for silence.
        emit: Sends the client an event.
        at_once: Send audio as it comes and ignore ticks, for measurements.
    """

    def __init__(
        self, send: Callable[[AudioFrame | None], object], emit: Emit, *, at_once: bool = False
    ) -> None:
        self._send = send
        self._emit = emit
        self._closed = False
        self._at_once = at_once
        self._pieces: deque[_BufferedAudio] = deque()
        self._complete: dict[str, bool] = {}
        """Replies that have audio, and whether all of it is here."""
        self._playing: set[str] = set()
        """The replies whose audio has started to play."""
        self._cleared: set[str] = set()
        self._sent_samples: dict[str, int] = {}

    def write(self, reply: OutgoingReply, samples: Samples) -> None:
        """Append audio to the buffer."""
        if self._closed or reply.id in self._cleared:
            return
        self._complete.setdefault(reply.id, False)
        self._sent_samples.setdefault(reply.item_id, 0)
        self._pieces.append(_BufferedAudio(reply.id, reply.item_id, samples))
        while self._at_once and sum(len(piece.samples) for piece in self._pieces) >= _FRAME:
            self._send(self._next_frame(reply.id))

    def end_message(self, reply: OutgoingReply) -> None:
        """Do nothing: the message plays on."""

    def end_reply(self, reply: OutgoingReply) -> None:
        """Record that a reply has all its audio; it plays on."""
        self._cleared.discard(reply.id)
        if reply.id in self._complete:
            self._complete[reply.id] = True

    def close(self) -> None:
        """Drop all audio without sending an event."""
        self._pieces.clear()
        self._complete.clear()
        self._playing.clear()
        self._closed = True

    def clear(self) -> Sequence[tuple[str, int]]:
        """Drop the unsent audio; return each item that this cuts, and the ms sent of it."""
        cut = {
            piece.item_id: self._sent_samples[piece.item_id] * 1000 // RATE
            for piece in self._pieces
        }
        self._pieces.clear()
        for reply_id, complete in self._complete.items():
            self._emit("output_audio_buffer.cleared", {"response_id": reply_id})
            if not complete:
                self._cleared.add(reply_id)
        self._complete.clear()
        self._playing.clear()
        self._sent_samples.clear()
        return list(cut.items())

    def tick(self, _: float) -> None:
        """Send the next 20 ms."""
        if self._closed or self._at_once:
            return
        if not self._pieces:
            self._send(None)
        else:
            self._send(self._next_frame(self._pieces[0].reply_id))
        playing = self._pieces[0].reply_id if self._pieces else ""
        for reply_id, complete in [*self._complete.items()]:
            if reply_id == playing:
                return
            if complete:
                del self._complete[reply_id]
                self._playing.discard(reply_id)
                self._emit("output_audio_buffer.stopped", {"response_id": reply_id})

    def _next_frame(self, reply_id: str) -> AudioFrame:
        if reply_id not in self._playing:
            self._playing.add(reply_id)
            self._emit("output_audio_buffer.started", {"response_id": reply_id})
        parts: list[Samples] = []
        left = _FRAME
        while left and self._pieces and self._pieces[0].reply_id == reply_id:
            piece = self._pieces[0]
            part, piece.samples = piece.samples[:left], piece.samples[left:]
            parts.append(part)
            left -= len(part)
            self._sent_samples[piece.item_id] += len(part)
            if not len(piece.samples):
                self._pieces.popleft()
        parts.append(np.zeros(left, np.int16))
        return AudioFrame(np.concatenate(parts), RATE)
