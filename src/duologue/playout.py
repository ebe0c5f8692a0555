"""The single gate in front of the edge: drops stale sound, paces, and knows what was heard.

`Playout` has no task and no timer of its own. Whoever owns it calls `tick` every 20 ms (the output
clock does) and every call is synchronous, so that after `interrupt` has returned nothing older can
reach the edge (contract C1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from duologue.audio import FRAME_MS, AudioFrame, Framer, Resampler, Samples
from duologue.clock import Clock
from duologue.edges.edge import Edge, Quality
from duologue.speech import Speech

PERIOD = FRAME_MS / 1000
"""Seconds between two ticks."""

_UNCONFIRMED_S = 2.0
"""A client that has not confirmed for so long has stopped confirming; the clock takes over."""


class PlayoutListener(Protocol):
    """Gets the start and the end of speeches at the person's ear.

    A speech begins once the one before it has ended, even if its first
    audio has already been sent.
    """

    def speech_started(self, speech: Speech) -> None:
        """Its first sound has been handed to the edge."""

    def speech_ended(self, speech: Speech) -> None:
        """It was heard to its end; not called for a speech that was cut."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one of the model's items: ``played_ms`` of its sound and its words."""

    item_id: str
    played_ms: int
    total_ms: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A speech that an interruption ended, with what was heard of it and of each of its items."""

    speech: Speech
    items: Sequence[Heard]


@dataclass(slots=True, eq=False)
class _Track:
    """A speech in the queue, in samples at the edge's rate."""

    speech: Speech
    framer: Framer
    frames: deque[Samples] = field(default_factory=deque)
    resampler: Resampler | None = None
    received: int = 0
    sent: int = 0
    played: int = 0
    ended: bool = False
    started: bool = False
    """Whether its first audio was handed to the edge."""
    notified: bool = False
    """Whether the listener was notified of the start."""
    estimated: bool = False
    items: dict[str, int] = field(default_factory=dict)
    """Item id to the sample where it begins."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A frame on its way: when it is due at the ear, and where it lies in its track."""

    position: int
    at: float
    track: _Track
    offset: int
    length: int
    samples: Samples


class Playout:
    """The gate to one edge.

    Holds at most ``limit_s`` seconds of sound; when full, the newest is refused and counted in
    ``overflowed`` (samples). ``stale`` counts samples of old epochs that were dropped, ``starved``
    ticks in which a speech had begun, had not ended, and had nothing to play.
    """

    def __init__(
        self, edge: Edge, clock: Clock, listener: PlayoutListener, *, limit_s: float = 600.0
    ) -> None:
        self._edge = edge
        self._clock = clock
        self._listener = listener
        self.rate = edge.output_rate
        self._framer = Framer(self.rate)
        self._limit = int(limit_s * self.rate)
        self._waiting: deque[_Track] = deque()
        self._tracks: dict[str, _Track] = {}
        self._way: deque[_Sent] = deque()
        self._position = 0
        self._horizon = float("-inf")
        self._held_at: float | None = None
        self._buffered = 0
        self.epoch = 0
        self.stale = 0
        self.overflowed = 0
        self.starved = 0

    @property
    def active(self) -> bool:
        """Some speech has not been heard to its end yet."""
        return bool(self._tracks)

    @property
    def current(self) -> Speech | None:
        """The oldest speech that has not been heard to its end."""
        return next((t.speech for t in self._tracks.values()), None)

    @property
    def played_s(self) -> float:
        """Seconds of `current` that were played so far; 0 if no speech is current."""
        track = next(iter(self._tracks.values()), None)
        return 0.0 if track is None else track.played / self.rate

    @property
    def speeches(self) -> tuple[Speech, ...]:
        """Speeches that have not been heard to their end, the oldest first."""
        return tuple(track.speech for track in self._tracks.values())

    @property
    def interruptible(self) -> bool:
        """No speech that has not been heard to its end is protected from the person's voice."""
        return all(track.speech.interruptible for track in self._tracks.values())

    @property
    def held(self) -> bool:
        """Sound is held back while it is decided whether the person speaks."""
        return self._held_at is not None

    def begin(self, speech: Speech) -> None:
        """Queue a speech behind the others; its sound may come later."""
        if speech.epoch < self.epoch or speech.done or speech.id in self._tracks:
            return
        track = _Track(speech, Framer(self.rate))
        self._tracks[speech.id] = track
        self._waiting.append(track)

    def withdraw(self, speech: Speech) -> None:
        """Take a speech out again of which no sound has come; `begin` queues it anew."""
        track = self._tracks.get(speech.id)
        if track is not None and not track.received:
            del self._tracks[speech.id]
            self._waiting.remove(track)

    def rename_items(self, speech: Speech, item_id: str) -> None:
        """Merge everything received of a speech into one item of the model's history."""
        track = self._tracks.get(speech.id)
        if track is not None and track.items:
            track.items = {item_id: 0}

    def write(self, speech: Speech, item_id: str, frame: AudioFrame, epoch: int) -> bool:
        """Take the next sound of a speech, at any rate; False when it was not taken."""
        track = self._tracks.get(speech.id)
        if epoch < self.epoch or track is None or track.ended:
            self.stale += len(frame)
            return False
        if self._buffered + len(frame) * self.rate // frame.rate > self._limit:
            self.overflowed += len(frame)
            return False
        track.items.setdefault(item_id, track.received)
        if track.resampler is None or track.resampler.in_rate != frame.rate:
            self._drain(track)
            track.resampler = Resampler(frame.rate, self.rate)
        speech.seconds += frame.duration
        self._push(track, track.resampler.push(frame.samples))
        if self._edge.lead_ms:
            self._pump(self._clock.now())
        return True

    def end(self, speech: Speech) -> None:
        """No more sound of this speech will come."""
        track = self._tracks.get(speech.id)
        if track is None or track.ended:
            return
        speech.whole = True
        self._drain(track)
        tail = track.framer.flush()
        if len(tail):
            padded = np.zeros(track.framer.size, np.int16)
            padded[: len(tail)] = tail
            track.frames.append(padded)
        track.ended = True
        now = self._clock.now()
        if self._edge.lead_ms:
            self._pump(now)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Hand the edge what is due at ``now`` (clock seconds); called every 20 ms."""
        if self._edge.lead_ms:
            self._pump(now)
        else:
            self._send(now, now)
        self._settle(now)

    def confirm(self, samples: int) -> None:
        """The edge says that so many samples of all it was given have been played."""
        samples = min(samples, self._position)
        while self._way:
            sent = self._way[0]
            played = samples - sent.position
            if played <= 0:
                break
            sent.track.played = max(sent.track.played, sent.offset + min(played, sent.length))
            if played < len(sent.samples):
                break
            self._way.popleft()
        self._settle(self._clock.now())

    def hold(self) -> None:
        """Stop handing out sound, without dropping any; harmless when held already."""
        if self._held_at is not None:
            return
        now = self._clock.now()
        self._held_at = now
        if self._edge.lead_ms and self._edge.quality == "estimated":
            self._rewind(now)

    def resume(self) -> int:
        """Go on where `hold` stopped; returns how long it was held, in ms."""
        if self._held_at is None:
            return 0
        now = self._clock.now()
        held_ms = int((now - self._held_at) * 1000)
        self._held_at = None
        if self._edge.lead_ms:
            self._pump(now)
        return held_ms

    def interrupt(self, epoch: int) -> list[Cut]:
        """Shut the gate to everything older than ``epoch``; returns what was cut, oldest first."""
        now = self._clock.now()
        self._settle(now)
        self.epoch = max(self.epoch, epoch)
        self._edge.clear()
        if self._edge.quality == "estimated":
            self._play_partly(now)
        cuts = [self._cut(track) for track in self._tracks.values()]
        self._tracks.clear()
        self._waiting.clear()
        self._way.clear()
        self._buffered = 0
        self._held_at = None
        self._horizon = now
        return cuts

    def _cut(self, track: _Track) -> Cut:
        track.speech.finish("cut", track.played / self.rate, self._quality(track))
        starts = [*track.items.items()]
        ends = [*(start for _, start in starts[1:]), track.received][: len(starts)]
        return Cut(
            track.speech,
            [
                Heard(
                    item_id,
                    max(0, min(track.played, end) - start) * 1000 // self.rate,
                    (end - start) * 1000 // self.rate,
                )
                for (item_id, start), end in zip(starts, ends, strict=True)
            ],
        )

    def _quality(self, track: _Track) -> Quality:
        return "estimated" if track.estimated else self._edge.quality

    def _drain(self, track: _Track) -> None:
        if track.resampler is not None:
            self._push(track, track.resampler.flush())

    def _push(self, track: _Track, samples: Samples) -> None:
        track.received += len(samples)
        self._buffered += len(samples)
        track.frames.extend(track.framer.push(samples))

    def _pump(self, now: float) -> None:
        """Keep an edge that buffers supplied until the tick after this one."""
        while self._horizon < now + PERIOD and self._held_at is None:
            if not self._send(now, max(self._horizon, now)):
                break

    def _send(self, now: float, at: float) -> bool:
        track = self._next() if self._held_at is None else None
        if track is None:
            if not self._edge.lead_ms:
                self._position += self._framer.size
                self._edge.play(None)
            return False
        samples = track.frames.popleft()
        length = min(len(samples), track.received - track.sent)
        self._way.append(_Sent(self._position, at, track, track.sent, length, samples))
        track.sent += length
        self._buffered -= length
        self._position += len(samples)
        self._horizon = at + len(samples) / self.rate
        track.started = True
        self._edge.play(AudioFrame(samples, self.rate))
        if not track.notified and next(iter(self._tracks.values())) is track:
            self._tell_started(track)
        return True

    def _tell_started(self, track: _Track) -> None:
        track.notified = True
        track.speech.state = "playing"
        self._listener.speech_started(track.speech)

    def _next(self) -> _Track | None:
        while self._waiting:
            track = self._waiting[0]
            if track.frames:
                return track
            if not track.ended:
                self.starved += track.started
                return None
            self._waiting.popleft()
        return None

    def _settle(self, now: float) -> None:
        """Take note of what has been played by ``now`` and end the speeches that are heard."""
        confirms = self._edge.quality != "estimated"
        due = now - self._edge.latency_ms / 1000 - (_UNCONFIRMED_S if confirms else 0.0)
        while self._way and self._way[0].at + len(self._way[0].samples) / self.rate <= due + 1e-9:
            sent = self._way.popleft()
            sent.track.played = max(sent.track.played, sent.offset + sent.length)
            sent.track.estimated = sent.track.estimated or confirms
        while self._tracks:
            track = next(iter(self._tracks.values()))
            if not track.ended or track.frames or track.played < track.received:
                break
            del self._tracks[track.speech.id]
            if self._waiting and self._waiting[0] is track:
                self._waiting.popleft()
            track.speech.finish("heard", track.played / self.rate, self._quality(track))
            self._listener.speech_ended(track.speech)
            following = next(iter(self._tracks.values()), None)
            if following is not None and following.started and not following.notified:
                self._tell_started(following)

    def _play_partly(self, now: float) -> None:
        for sent in self._way:
            played = min(self._samples(now - self._edge.latency_ms / 1000 - sent.at), sent.length)
            if played <= 0:
                break
            sent.track.played = max(sent.track.played, sent.offset + played)

    def _rewind(self, now: float) -> None:
        """Take back from the edge what it has not begun to play, to the very sample."""
        self._settle(now)
        self._edge.clear()
        while self._way and self._samples(now - self._way[-1].at) < self._way[-1].length:
            sent = self._way.pop()
            track = sent.track
            gone = max(0, self._samples(now - sent.at))
            rest = sent.samples[gone : sent.length]
            track.sent = sent.offset + gone
            track.frames.appendleft(rest)
            self._buffered += len(rest)
            if track not in self._waiting:
                self._waiting.appendleft(track)
            if gone:
                begun = replace(sent, length=gone, samples=sent.samples[:gone])
                self._way.append(begun)
                break
        self._horizon = now

    def _samples(self, seconds: float) -> int:
        return int(seconds * self.rate + 1e-3)
