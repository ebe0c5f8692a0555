"""Slice the audio of a WebRTC call into replies.

Over WebRTC a server sends one audio stream that never stops: while no reply plays, it carries
silence. Events on the data channel say which reply plays, but data channel and RTP are separate
flows through separate buffers, so an event arrives up to a few hundred ms before or after the audio
that it describes::

    events   created ------- started(r1) ---- done(r1) ---- stopped(r1)
    audio    . . . . . . # # # # # # # # # # # # # # # # # # # # # # # . . . . .
                         <---> kept by PREROLL_S              <---> at most TAIL_S

Each frame must reach the reply that it belongs to, because truncation counts the samples of every
item. The rules:

- Before ``started`` the last `PREROLL_S` are kept. The reply begins at their first loud frame.
- After ``stopped`` the reply continues until the first silent frame, and for `TAIL_S` at most.
- After ``cleared`` nothing more is played; loud frames in flight are dropped for `TAIL_S`, so that
  they do not pass for the beginning of the next reply.
- A reply that is ``started`` while another one plays waits until that one stops.
- ``response.done`` usually arrives before the audio has ended (the model is faster than real time),
  so `ReplyDone` is held back until the audio has ended, or until `MAX_SILENCE_S` of silence if none
  comes: a reply that was cut short may have no audio at all.

Sans-IO and without a clock: time is counted in received frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from duologue.audio import AudioFrame
from duologue.realtime.outputs import Output, ReplyAudio, ReplyDone, ReplyInterrupted

PREROLL_S = 0.24
"""Seconds of audio before ``started`` that may belong to the reply."""
TAIL_S = 0.2
"""Seconds of audio after ``stopped`` or ``cleared`` that may still belong to the reply."""
LOUD_LEVEL = 200
"""A frame with no sample above this level is silent: Opus turns silence into samples below it."""

MAX_SILENCE_S = 2.0
"""Seconds of silence after ``response.done`` after which no audio of the reply is expected any
more.
"""

_MAX_ENDED = 64
_MAX_QUEUED = 8
"""Maximum number of replies that wait for the one that plays; beyond it, that one is ended."""


class ReplySlicer:
    """Slices received audio into replies, and holds each `ReplyDone` back until its audio ends."""

    __slots__ = (
        "_done",
        "_draining_s",
        "_ended",
        "_expecting_audio",
        "_item_ids",
        "_last_was_loud",
        "_playing",
        "_preroll",
        "_preroll_s",
        "_queued",
        "_silent_s",
        "_tail_s",
        "dropped_samples",
    )

    def __init__(self) -> None:
        self._preroll: deque[AudioFrame] = deque()
        self._preroll_s = 0.0
        self._playing: str | None = None
        self._queued: deque[str] = deque()
        self._tail_s: float | None = None
        self._draining_s = 0.0
        self._silent_s = 0.0
        self._last_was_loud = False
        self._item_ids: dict[str, str] = {}
        self._expecting_audio: set[str] = set()
        self._ended: deque[str] = deque(maxlen=_MAX_ENDED)
        self._done: dict[str, ReplyDone] = {}
        self.dropped_samples = 0
        """Samples that belonged to no reply and were not silent."""

    @property
    def playing_reply(self) -> str | None:
        """The reply that is playing."""
        return self._playing

    def expect_audio(self, reply_id: str, item_id: str) -> None:
        """Record that a reply will have audio, from now on of the item ``item_id``."""
        self._item_ids[reply_id] = item_id
        self._expecting_audio.add(reply_id)

    def push(self, frame: AudioFrame) -> Sequence[Output]:
        """Handle the next received frame, whether silent or not."""
        loud = _is_loud(frame)
        self._last_was_loud = loud
        reply_id = self._playing
        if reply_id is None:
            self._keep_preroll(frame, loud=loud)
            return self._end_overdue(frame)
        if self._tail_s is None:
            return (self._audio(reply_id, frame),)
        if not loud:
            return self._end_playing(reply_id)
        self._tail_s -= frame.duration
        out: list[Output] = [self._audio(reply_id, frame)]
        if self._tail_s < frame.duration / 2:
            self._draining_s = 0.0
            out += self._end_playing(reply_id)
        return out

    def buffer_started(self, reply_id: str) -> Sequence[Output]:
        """Handle ``output_audio_buffer.started``: the audio of this reply begins about now.

        While another reply plays, wait until that one is stopped or cleared.
        """
        if reply_id in self._ended or reply_id == self._playing or reply_id in self._queued:
            return ()
        self._queued.append(reply_id)
        self._expecting_audio.add(reply_id)
        if self._playing is None:
            return self._start_next()
        if self._tail_s is not None or len(self._queued) > _MAX_QUEUED:
            return self._end_playing(self._playing)
        return ()

    def buffer_stopped(self, reply_id: str) -> Sequence[Output]:
        """Handle ``output_audio_buffer.stopped``: all audio was sent; some may be in flight."""
        out: list[Output] = []
        while reply_id in self._queued and self._playing is not None:
            # End the replies queued before this one, whose own ``stopped`` is missing.
            out += self._end_playing(self._playing)
        if reply_id != self._playing:
            return [*out, *self._finish(reply_id)]
        if not self._last_was_loud:
            return [*out, *self._end_playing(reply_id)]
        self._tail_s = TAIL_S
        return out

    def buffer_cleared(self, reply_id: str, *, by_client: bool) -> Sequence[Output]:
        """Handle ``output_audio_buffer.cleared``, sent ``by_client`` or by the server."""
        if reply_id in self._ended:
            return ()
        outputs: list[Output] = [] if by_client else [ReplyInterrupted(reply_id)]
        done = self._done.get(reply_id)
        if done is not None and done.status == "completed":
            self._done[reply_id] = ReplyDone(reply_id, "cancelled", done.message)
        if reply_id == self._playing:
            self._playing = None
            self._tail_s = None
            self._clear_preroll()
            # Audio in flight must not pass for the beginning of the next reply.
            self._draining_s = TAIL_S if self._last_was_loud else 0.0
            return [*outputs, *self._finish(reply_id), *self._start_next()]
        return [*outputs, *self._finish(reply_id)]

    def response_done(self, done: ReplyDone) -> Sequence[Output]:
        """Handle ``response.done``: report it now, or when the audio has ended."""
        reply_id = done.reply_id
        waits = reply_id in self._expecting_audio and reply_id not in self._ended
        if waits and done.status != "completed" and reply_id != self._playing:
            # The reply was cancelled before its audio began, so no end of it will come.
            waits = False
        self._done[reply_id] = done
        return () if waits else self._finish(reply_id)

    def _end_overdue(self, frame: AudioFrame) -> Sequence[Output]:
        """End a reply whose audio does not begin, because one that was cut short may have none."""
        self._silent_s = self._silent_s + frame.duration if self._done else 0.0
        if self._silent_s < MAX_SILENCE_S - 0.001:
            return ()
        self._silent_s = 0.0
        return self._finish(next(iter(self._done)))

    def _end_playing(self, reply_id: str) -> Sequence[Output]:
        self._playing = None
        self._tail_s = None
        return [*self._finish(reply_id), *self._start_next()]

    def _start_next(self) -> Sequence[Output]:
        """Start the next queued reply, if any."""
        if not self._queued:
            return ()
        reply_id = self._playing = self._queued.popleft()
        self._tail_s = None
        self._draining_s = self._silent_s = 0.0
        while self._preroll and not _is_loud(self._preroll[0]):
            self._preroll.popleft()
        out = [self._audio(reply_id, frame) for frame in self._preroll]
        self._clear_preroll()
        return out

    def _finish(self, reply_id: str) -> Sequence[Output]:
        """Record the end of a reply's audio, and report the reply's end if it has arrived."""
        if reply_id not in self._ended:
            self._ended.append(reply_id)
        if reply_id in self._queued:
            self._queued.remove(reply_id)
        done = self._done.pop(reply_id, None)
        if done is None:
            return ()
        self._expecting_audio.discard(reply_id)
        self._item_ids.pop(reply_id, None)
        return (done,)

    def _audio(self, reply_id: str, frame: AudioFrame) -> ReplyAudio:
        return ReplyAudio(reply_id, self._item_ids.get(reply_id, reply_id), frame)

    def _keep_preroll(self, frame: AudioFrame, *, loud: bool) -> None:
        if self._draining_s > 0:
            self._draining_s = self._draining_s - frame.duration if loud else 0.0
            return
        self._preroll.append(frame)
        self._preroll_s += frame.duration
        while self._preroll_s > PREROLL_S + 0.001:
            oldest = self._preroll.popleft()
            self._preroll_s -= oldest.duration
            if _is_loud(oldest):
                self.dropped_samples += len(oldest)

    def _clear_preroll(self) -> None:
        self._preroll.clear()
        self._preroll_s = 0.0


def _is_loud(frame: AudioFrame) -> bool:
    samples = frame.samples
    return bool(len(samples)) and (
        int(samples.max()) > LOUD_LEVEL or int(samples.min()) < -LOUD_LEVEL
    )
