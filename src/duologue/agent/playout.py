"""`Playout`: the only gate in front of the edge. It drops stale audio, paces, and measures."""

# Everything that the person may hear goes through one `Playout`. It has no task and no timer: its
# owner calls `tick` every 20 ms, and every call is synchronous, so that after `interrupt` has
# returned nothing older can reach the edge (contract C1).
#
#     write ──> track.pieces ──> _in_flight ──> the ear
#               (buffered,       (handed to     (reported by the client, or
#                one track a      the edge)      estimated by the clock)
#                speech)
#
# - *Epochs.* `interrupt(epoch)` clears the queue and the edge, and from then on `write` rejects
#   every older epoch. The model, the network and the TTS need not stop in time.
# - *Order.* Speeches play one after the other. A speech ends when its last sample was heard; only
#   then does the next one start for the observer, even if an edge that buffers has its audio.
# - *Pace.* An edge without a lead (``lead_ms`` 0) gets exactly one frame, or None, at each tick. An
#   edge that buffers gets frames up to one tick after the present (`_scheduled_until`).
# - *What was heard* is counted in samples from the start of the track (`_Track.played`). With
#   quality ``estimated``, a frame counts as heard when the clock says that it has been played, at
#   an interruption to the sample. Otherwise the client reports a total of samples
#   (`report_played`), which includes silence and frames that were cleared, as `_position` does. A
#   client that stops reporting is estimated after `_CONFIRM_TIMEOUT_S`, and so is its quality.
# - *Catching up.* What holds the gate up once would make the rest of a speech late. If the source
#   sends at the pace of speech (`CatchUp`), frames are then made of a little more than 20 ms of
#   the original (`TimeCompressor`). A track is counted in samples of the original: a frame in
#   flight knows what it stands for (`_SentFrame.original`). While held, nothing is made good.
# - *Hold* stops handing out audio. From an edge that buffers, it takes back what has not started to
#   play (`_rewind`), so that `resume` continues at the exact sample.
# - *Suspend* does the same for a connection that is dead, whatever is held: all that was not
#   reported as played is taken back, since nobody has heard it.

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from duologue._numpy import np
from duologue.agent._catch_up import CatchUp, SourcePace
from duologue.agent._time_compression import CompressedFrame, TimeCompressor
from duologue.agent.call_recorder import GuardedRecorder
from duologue.agent.speech import Speech
from duologue.audio import FRAME_MS, AudioFrame, Framer, Resampler, Samples
from duologue.clock import Clock
from duologue.edges.protocol import Edge
from duologue.quality import Quality

TICK_S = FRAME_MS / 1000
"""Seconds between two ticks."""

_CONFIRM_TIMEOUT_S = 2.0
"""Seconds without a report of played audio after which the clock decides what was played."""

_PACE_INTERVAL_S = 0.25
"""Seconds of audio after which the pace of a source is looked at again."""

_NOTHING: Samples = np.zeros(0, np.int16)

_MAX_UNCOUNTED = 4
"""Frames in flight after which a tick counts what was played without being asked to."""

_MIN_GAP_S = 0.001
"""Seconds between two frames of a speech that count as a gap; less is rounding."""


class PlayoutObserver(Protocol):
    """Gets the start and the end of speeches at the person's ear.

    A speech starts once the speech before it has ended, even if its first audio was sent earlier.
    """

    def speech_started(self, speech: Speech) -> None:
        """Called when the first audio of a speech has been handed to the edge."""

    def speech_ended(self, speech: Speech) -> None:
        """Called when a speech was heard to its end; not called for a speech that was cut."""


@dataclass(frozen=True, slots=True)
class PlayedItem:
    """How much of one of the model's items was played, of the audio received, in ms."""

    item_id: str
    played_ms: int
    total_ms: int


@dataclass(frozen=True, slots=True)
class TruncatedSpeech:
    """A speech that an interruption ended, with what was heard of each of its items."""

    speech: Speech
    items: Sequence[PlayedItem]


@dataclass(slots=True, eq=False)
class _Track:
    """A queued speech, in samples of the original at the edge's rate."""

    speech: Speech
    rate: int
    """Samples a second of what was received last."""
    pieces: deque[AudioFrame] = field(default_factory=deque)
    """What was received and not sent, as it came, after ``rest``."""
    rest: Samples = field(default_factory=lambda: _NOTHING)
    """What is left of a piece that was sent in part."""
    resampler: Resampler | None = None
    """None while what is received has the edge's rate."""
    received: int = 0
    sent: int = 0
    played: int = 0
    ended: bool = False
    started: bool = False
    """Whether its first audio was handed to the edge."""
    notified: bool = False
    """Whether the observer was notified of the start."""
    estimated: bool = False
    items: dict[str, int] = field(default_factory=dict)
    """Maps each item id to the sample where the item begins."""
    pace: SourcePace = field(default_factory=SourcePace)
    pace_due: int = 0
    """Samples received after which ``pace`` is told again."""

    def take(self, count: int) -> Samples:
        """Remove and return the next ``count`` samples, or all that are left."""
        rest = self.rest
        if len(rest) < count:
            parts, known = [rest], len(rest)
            while known < count and self.pieces:
                parts.append(self.pieces.popleft().samples)
                known += len(parts[-1])
            rest = np.concatenate(parts) if len(rest) or len(parts) != 2 else parts[1]
        self.rest = rest[count:]
        return rest[:count]

    def put_back(self, samples: Samples) -> None:
        """Put samples that were taken in front of the others."""
        self.rest = np.concatenate((samples, self.rest)) if len(self.rest) else samples


@dataclass(slots=True, eq=False)
class _SentFrame:
    """A frame on its way to the ear: when it is due there, and where it lies in its track.

    ``source`` are the samples of the original that it stands for, without what pads the last frame
    of a speech; ``length`` is how many samples of it the edge plays.
    """

    position: int
    due: float
    track: _Track
    offset: int
    length: int
    source: Samples
    compressed: CompressedFrame | None

    def original(self, played: int) -> int:
        """Return how many samples of ``source`` the first ``played`` samples stand for."""
        if self.compressed is not None:
            played = self.compressed.original(played)
        return min(played, len(self.source))


class Playout:
    """The gate to one edge: a queue of speeches.

    It has no task and no timer: its owner calls `tick` every 20 ms. It buffers at most ``limit_s``
    seconds of audio; when full, it rejects new audio.

    Attributes:
        rate: Samples a second of the edge.
        epoch: Audio of older epochs is dropped.
        stale_samples, stale_s: Samples, and seconds, of older epochs that were dropped.
        overflowed_samples, overflowed_s: Samples, and seconds, that were rejected because the
            buffer was full.
        starved_ticks: Ticks in which a speech had started, was not complete, and had no audio to
            play.
        caught_up_samples: Samples by which audio that was late has been shortened.
    """

    __slots__ = (
        "_buffered",
        "_buffers_ahead",
        "_catch_up",
        "_clock",
        "_compressor",
        "_edge",
        "_ended_tracks",
        "_frame_size",
        "_held_at",
        "_in_flight",
        "_max_buffered",
        "_now",
        "_observer",
        "_position",
        "_recorder",
        "_scheduled_until",
        "_suspended",
        "_tracks",
        "_waiting",
        "caught_up_samples",
        "epoch",
        "overflowed_s",
        "overflowed_samples",
        "rate",
        "stale_s",
        "stale_samples",
        "starved_ticks",
    )

    def __init__(
        self,
        edge: Edge,
        clock: Clock,
        observer: PlayoutObserver,
        *,
        limit_s: float = 600.0,
        recorder: GuardedRecorder | None = None,
    ) -> None:
        self._edge = edge
        self._recorder = recorder if recorder is not None and recorder.is_on else None
        self._clock = clock
        self._observer = observer
        self.rate = edge.output_rate
        self._buffers_ahead = edge.lead_ms > 0
        self._frame_size = Framer(self.rate).size
        self._max_buffered = int(limit_s * self.rate)
        self._waiting: deque[_Track] = deque()
        self._tracks: dict[str, _Track] = {}
        self._in_flight: deque[_SentFrame] = deque()
        self._position = 0
        self._scheduled_until = float("-inf")
        self._held_at: float | None = None
        self._suspended = False
        self._buffered = 0
        self._ended_tracks = 0
        """Speeches whose audio is complete, and which have not been heard to their end."""
        self._now = clock.now
        self.epoch = 0
        self.stale_samples = 0
        self.stale_s = 0.0
        self.overflowed_samples = 0
        self.overflowed_s = 0.0
        self.starved_ticks = 0
        self.caught_up_samples = 0
        self._catch_up = CatchUp()
        self._compressor: TimeCompressor | None = None

    @property
    def active(self) -> bool:
        """Whether some speech has not been heard to its end yet."""
        return bool(self._tracks)

    @property
    def current(self) -> Speech | None:
        """The oldest speech that has not been heard to its end; None without one."""
        return next((t.speech for t in self._tracks.values()), None)

    @property
    def played_s(self) -> float:
        """Seconds of `current` that were played when it was last counted; 0 without one."""
        track = next(iter(self._tracks.values()), None)
        return 0.0 if track is None else track.played / self.rate

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that wait and were not handed to the edge."""
        return self._buffered / self.rate

    @property
    def caught_up_s(self) -> float:
        """Seconds by which audio that was late has been shortened."""
        return self.caught_up_samples / self.rate

    @property
    def speeches(self) -> tuple[Speech, ...]:
        """Speeches that have not been heard to their end, oldest first."""
        return tuple(track.speech for track in self._tracks.values())

    @property
    def interruptible(self) -> bool:
        """Whether the person may interrupt all speeches that have not been heard to their end."""
        return all(track.speech.interruptible for track in self._tracks.values())

    @property
    def held(self) -> bool:
        """Whether audio is held back until it is decided whether the person speaks."""
        return self._held_at is not None

    def begin(self, speech: Speech) -> None:
        """Queue a speech behind the others; its audio may come later."""
        if speech.epoch < self.epoch or speech.done or speech.id in self._tracks:
            return
        track = _Track(speech, self.rate)
        self._tracks[speech.id] = track
        self._waiting.append(track)

    def remove(self, speech: Speech) -> None:
        """Remove a speech that has no audio yet; `begin` queues it again."""
        track = self._tracks.get(speech.id)
        if track is not None and not track.received:
            del self._tracks[speech.id]
            self._waiting.remove(track)
            self._ended_tracks -= track.ended

    def rename_items(self, speech: Speech, item_id: str) -> None:
        """Merge everything received of a speech into one item of the model's history."""
        track = self._tracks.get(speech.id)
        if track is not None and track.items:
            track.items = {item_id: 0}

    def write(self, speech: Speech, item_id: str, frame: AudioFrame, epoch: int) -> bool:
        """Queue the next audio of a speech, at any rate; return False if it was rejected."""
        track = self._tracks.get(speech.id)
        if track is None or epoch < self.epoch or track.ended:
            self.stale_samples += len(frame)
            self.stale_s += frame.duration
            return False
        if self._hand_through(track, item_id, frame):
            return True
        count, rate = len(frame.samples), frame.rate
        if self._buffered + count * self.rate // rate > self._max_buffered:
            self.overflowed_samples += count
            self.overflowed_s += count / rate
            return False
        if item_id not in track.items:
            track.items[item_id] = track.received
        speech.seconds += count / rate
        if self._buffers_ahead and self._catch_up.watches:
            self._observe_waiting(self._now())
        if rate != track.rate:
            self._flush_resampler(track)
            track.resampler = Resampler(rate, self.rate) if rate != self.rate else None
            track.rate = rate
        if track.resampler is not None:
            frame = AudioFrame(track.resampler.push(frame.samples), self.rate)
        track.received += len(frame.samples)
        if track.received >= track.pace_due:
            self._observe_pace(track, count / rate)
        self._append(track, frame)
        if self._buffers_ahead:
            self._pump(self._now())
        return True

    def end(self, speech: Speech) -> None:
        """Record that no more audio of a speech will come."""
        track = self._tracks.get(speech.id)
        if track is None or track.ended:
            return
        speech.complete = True
        self._flush_resampler(track)
        track.ended = True
        self._ended_tracks += 1
        now = self._clock.now()
        if self._buffers_ahead:
            self._pump(now)
        self._finish_played(now)

    def tick(self, now: float) -> None:
        """Hand the edge the audio that is due at ``now`` (clock seconds); called every 20 ms."""
        if not self._buffers_ahead:
            if self._catch_up.late_s:
                self._observe_waiting(now)
            self._send(now)
        else:
            if self._catch_up.watches:
                self._observe_waiting(now)
            if self._buffered:
                self._pump(now)
        if self._scheduled_until <= now and self._waiting and not self._paused:
            self.starved_ticks += self._waiting[0].started
        if (
            self._ended_tracks
            or len(self._in_flight) > _MAX_UNCOUNTED
            or self._edge.quality != "estimated"
        ):
            self._finish_played(now)

    def count_played(self) -> None:
        """Count what has been played until now, so that `played_s` has it."""
        self._count_played(self._now())

    def report_played(self, samples: int) -> None:
        """Record the edge's report that ``samples`` of everything it was given have been played."""
        samples = min(samples, self._position)
        while self._in_flight:
            sent = self._in_flight[0]
            played = samples - sent.position
            if played <= 0:
                break
            heard = sent.original(min(played, sent.length))
            sent.track.played = max(sent.track.played, sent.offset + heard)
            if played < sent.length:
                break
            self._in_flight.popleft()
        self._finish_played(self._clock.now())

    def hold(self) -> None:
        """Stop handing out audio without dropping any; do nothing if it is held already."""
        if self._held_at is not None:
            return
        now = self._clock.now()
        self._held_at = now
        if self._buffers_ahead and self._edge.quality == "estimated":
            self._rewind(now)

    def resume(self) -> int:
        """Continue where `hold` stopped; return how long the audio was held, in ms."""
        if self._held_at is None:
            return 0
        now = self._clock.now()
        held_ms = int((now - self._held_at) * 1000)
        self._held_at = None
        if self._buffers_ahead:
            self._pump(now)
        return held_ms

    def suspend(self) -> None:
        """Stop handing out audio, and take back all that was not reported as played.

        It is independent of `hold`; `unsuspend` ends it.
        """
        if self._suspended:
            return
        self._suspended = True
        now = self._clock.now()
        self._clear_edge(now)
        while self._in_flight:
            sent = self._in_flight.pop()
            heard = max(0, sent.track.played - sent.offset)
            if heard < len(sent.source):
                self._take_back(sent, heard, min(heard, sent.length))
        self._scheduled_until = now

    def unsuspend(self) -> None:
        """Continue with the first sample that was not reported as played."""
        if self._suspended:
            self._suspended = False
            if self._buffers_ahead:
                self._pump(self._clock.now())

    @property
    def _paused(self) -> bool:
        """Whether nothing may be handed out."""
        return self._suspended or self._held_at is not None

    def interrupt(self, epoch: int) -> list[TruncatedSpeech]:
        """Drop everything older than ``epoch``; return the speeches that this cut, oldest first."""
        now = self._clock.now()
        self._finish_played(now)
        self.epoch = max(self.epoch, epoch)
        self._clear_edge(now)
        if self._edge.quality == "estimated":
            self._count_partly_played(now)
        cuts = [self._truncate(track) for track in self._tracks.values()]
        self._tracks.clear()
        self._ended_tracks = 0
        self._waiting.clear()
        self._in_flight.clear()
        self._buffered = 0
        self._held_at = None
        self._scheduled_until = now
        self._catch_up.reset()
        return cuts

    def _clear_edge(self, now: float) -> None:
        self._edge.clear()
        if self._recorder is not None:
            self._recorder.agent_cleared(now)

    def _truncate(self, track: _Track) -> TruncatedSpeech:
        track.speech.finish("cut", track.played / self.rate, self._quality(track))
        starts = [*track.items.items()]
        ends = [*(start for _, start in starts[1:]), track.received][: len(starts)]
        return TruncatedSpeech(
            track.speech,
            [
                PlayedItem(
                    item_id,
                    max(0, min(track.played, end) - start) * 1000 // self.rate,
                    (end - start) * 1000 // self.rate,
                )
                for (item_id, start), end in zip(starts, ends, strict=True)
            ],
        )

    def _quality(self, track: _Track) -> Quality:
        return "estimated" if track.estimated else self._edge.quality

    def _flush_resampler(self, track: _Track) -> None:
        if track.resampler is not None:
            tail = AudioFrame(track.resampler.flush(), self.rate)
            track.received += len(tail)
            self._append(track, tail)

    def _append(self, track: _Track, piece: AudioFrame) -> None:
        """Let audio wait that was received."""
        count = len(piece.samples)
        if count:
            self._buffered += count
            track.pieces.append(piece)

    def _pump(self, now: float) -> None:
        """Keep a buffering edge supplied until the tick after this one."""
        while self._buffered and self._scheduled_until < now + TICK_S and not self._paused:
            if not self._send(max(self._scheduled_until, now)):
                break

    def _send(self, at: float) -> bool:
        """Hand the edge the next frame, to be played ``at`` that time; return whether there is one.

        An edge that does not buffer is handed None if there is none.
        """
        track = self._next_track() if not self._paused else None
        size = self._frame_size
        if track is None:
            if not self._buffers_ahead:
                self._position += size
                self._edge.play(None)
            return False
        compressed = None
        if self._catch_up.allowed_s and track.pace.steady:
            source, compressed = self._take_late(track)
            frame = AudioFrame(source if compressed is None else compressed.samples, self.rate)
        elif track.pieces and not len(track.rest) and len(track.pieces[0].samples) == size:
            frame = track.pieces.popleft()
            source = frame.samples
        else:
            source = track.take(size)
            frame = AudioFrame(source, self.rate)
        length = len(frame.samples)
        if length < size and compressed is None:
            padding = np.zeros(size - length, np.int16)
            frame = AudioFrame(np.concatenate((source, padding)), self.rate)
        self._buffered -= len(source)
        self._hand_over(track, frame, at, source, compressed)
        return True

    def _hand_through(self, track: _Track, item_id: str, frame: AudioFrame) -> bool:
        """Hand an edge that buffers the frame that has just arrived, if it is due.

        Else change nothing, and return False. This has the effect of all that `write` does, which
        takes more than twice the time. It is the rule for audio that comes at the pace of speech:
        a whole frame of the edge's rate, of an item that is known, while nothing waits.
        """
        samples = frame.samples
        size = self._frame_size
        if (
            not self._buffers_ahead
            or self._buffered
            or frame.rate != self.rate
            or len(samples) != size
            or track.resampler is not None
            or item_id not in track.items
            or self._waiting[0] is not track
            or self._held_at is not None
            or self._suspended
            or self._catch_up.watches
        ):
            return False
        now = self._now()
        at = self._scheduled_until
        if at < now:
            at = now
        elif at >= now + TICK_S:
            return False
        track.received += size
        track.speech.seconds += TICK_S
        if track.received >= track.pace_due:
            self._observe_pace(track, TICK_S)
        self._hand_over(track, frame, at, samples, None)
        return True

    def _hand_over(
        self,
        track: _Track,
        frame: AudioFrame,
        at: float,
        source: Samples,
        compressed: CompressedFrame | None,
    ) -> None:
        """Hand the edge a frame to be played ``at`` that time, which stands for ``source``."""
        if at - self._scheduled_until > _MIN_GAP_S:
            self._record_gap(track, at)
        length = len(frame.samples)
        self._in_flight.append(
            _SentFrame(self._position, at, track, track.sent, length, source, compressed)
        )
        track.sent += len(source)
        self._position += length
        self._scheduled_until = at + length / self.rate
        track.started = True
        self._edge.play(frame)
        if self._recorder is not None:
            self._recorder.agent_audio(frame, at)
        if not track.notified and next(iter(self._tracks.values())) is track:
            self._notify_started(track)

    def _record_gap(self, track: _Track, at: float) -> None:
        """Record that nothing was played until ``at``; within a speech, that makes it late."""
        if track.started:
            self._catch_up.gap(at, at - self._scheduled_until)
        else:
            self._catch_up.reset()

    def _take_late(self, track: _Track) -> tuple[Samples, CompressedFrame | None]:
        """Take a frame of audio that is late: what it stands for, and how it is played."""
        if self._compressor is None:
            self._compressor = TimeCompressor(self.rate)
        source = track.take(self._compressor.reach)
        max_skip = int(self._catch_up.allowed_s * self.rate)
        if not self._buffers_ahead:
            max_skip = min(max_skip, len(source) - self._frame_size)
        compressed = self._compressor.compress(source, max_skip)
        count = self._frame_size
        if compressed is not None:
            count = len(compressed.samples) + compressed.skipped
            self._record_caught_up(compressed.skipped)
        track.put_back(source[count:])
        return source[:count], compressed

    def _record_caught_up(self, samples: int) -> None:
        self.caught_up_samples += samples
        self._catch_up.caught_up(samples / self.rate)

    def _observe_pace(self, track: _Track, piece_s: float) -> None:
        """Let a track's `SourcePace` know what has arrived."""
        track.pace_due = track.received + int(_PACE_INTERVAL_S * self.rate)
        now = self._clock.now()
        lead_s = (track.received - track.sent) / self.rate
        if track.started:
            lead_s += self._scheduled_until - now - self._catch_up.late_s
        track.pace.received(now, piece_s, track.received / self.rate, lead_s)

    def _observe_waiting(self, now: float) -> None:
        """Let `CatchUp` know how much later the next audio could come without a gap."""
        track = self._waiting[0] if self._waiting and not self._paused else None
        if track is not None and track.started:
            waiting_s = (track.received - track.sent) / self.rate + self._scheduled_until - now
            if not self._buffers_ahead:
                waiting_s -= TICK_S
            self._catch_up.observe(now, waiting_s, track.pace.max_piece_s)

    def _notify_started(self, track: _Track) -> None:
        track.notified = True
        track.speech.state = "playing"
        self._observer.speech_started(track.speech)

    def _next_track(self) -> _Track | None:
        while self._waiting:
            track = self._waiting[0]
            unsent = track.received - track.sent
            if unsent >= self._frame_size or (unsent and track.ended):
                return track
            if not track.ended:
                return None
            self._waiting.popleft()
        return None

    def _finish_played(self, now: float) -> None:
        """Count what has been played by ``now``, and end the speeches that were heard."""
        self._count_played(now)
        if self._ended_tracks:
            self._end_heard()

    def _count_played(self, now: float) -> None:
        """Count what has been played by ``now``, by the clock or for want of the edge's reports."""
        in_flight = self._in_flight
        if not in_flight or in_flight[0].due >= now:
            return
        confirms = self._edge.quality != "estimated"
        due = now - self._edge.latency_ms / 1000 - (_CONFIRM_TIMEOUT_S if confirms else 0.0)
        due += 1e-9
        rate = self.rate
        while in_flight:
            sent = in_flight[0]
            if sent.due + sent.length / rate > due:
                break
            in_flight.popleft()
            track = sent.track
            end = sent.offset + len(sent.source)
            if end > track.played:
                track.played = end
            if confirms:
                track.estimated = True

    def _end_heard(self) -> None:
        """End the speeches that were heard to their end, and start the one after them."""
        while self._tracks:
            track = next(iter(self._tracks.values()))
            if not track.ended or track.played < track.received:
                break
            del self._tracks[track.speech.id]
            self._ended_tracks -= 1
            if self._waiting and self._waiting[0] is track:
                self._waiting.popleft()
            track.speech.finish("heard", track.played / self.rate, self._quality(track))
            self._observer.speech_ended(track.speech)
            following = next(iter(self._tracks.values()), None)
            if following is not None and following.started and not following.notified:
                self._notify_started(following)

    def _count_partly_played(self, now: float) -> None:
        for sent in self._in_flight:
            played = min(
                self._to_samples(now - self._edge.latency_ms / 1000 - sent.due), sent.length
            )
            if played <= 0:
                break
            sent.track.played = max(sent.track.played, sent.offset + sent.original(played))

    def _rewind(self, now: float) -> None:
        """Take back from the edge what it has not started to play, exact to the sample."""
        self._finish_played(now)
        self._clear_edge(now)
        while (
            self._in_flight
            and self._to_samples(now - self._in_flight[-1].due) < self._in_flight[-1].length
        ):
            sent = self._in_flight.pop()
            played = max(0, self._to_samples(now - sent.due))
            heard = sent.original(played)
            self._take_back(sent, heard, played)
            if played:
                sent.length, sent.source = played, sent.source[:heard]
                self._in_flight.append(sent)
                break
        self._scheduled_until = now

    def _take_back(self, sent: _SentFrame, heard: int, played: int) -> None:
        """Let a frame wait again, from sample ``heard`` of its source on."""
        track = sent.track
        rest = sent.source[heard:]
        skipped = len(rest) - (sent.length - played)
        if sent.compressed is not None:
            self._record_caught_up(-skipped)
        track.sent = sent.offset + heard
        track.put_back(rest)
        self._buffered += len(rest)
        if track not in self._waiting:
            self._waiting.appendleft(track)

    def _to_samples(self, seconds: float) -> int:
        return int(seconds * self.rate + 1e-3)
