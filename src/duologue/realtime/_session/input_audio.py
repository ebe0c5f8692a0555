"""The way of the person's audio to the model: resample, keep, replay after a lost connection.

A lost connection takes with it the audio that the model has not transcribed yet. So the newest
seconds of audio are kept, and `InputTurnTracker` knows up to which position everything is safe,
which means that it is in the history as text:

    position   0 ............. settled ................ end
    audio      |  turn A (text)   |  turn B (no text)  |
    replayed                      |<------------------>|

The next connection gets the audio from ``settled`` on, as fast as the wire takes it. What happens
to turn B depends on whether the model had already replied to it:

    not replied   The turn comes again, under another id, and gets its reply. The observer is told
                  to forget the first one (`SessionObserver.turns_replayed`).
    replied       Only its text is missing. Its signals are not passed on, its second reply is
                  cancelled (``replayed_turns`` counts them), and the text comes under the first id.

Providers differ in who finds the turns. Where the service signals them, `ReplayedTurns` recognises
replayed ones in its signals. Where it does not, `LocalTurns` detects them here, and knows which are
replayed, because it is not given their audio a second time.

All positions are samples at the model's rate since the session began. A service counts from the
start of its own connection; ``_connection_start`` is the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from duologue._numpy import np
from duologue.audio import AudioFrame, Resampler
from duologue.realtime._session.local_turns import LocalTurns
from duologue.realtime._session.replay_buffer import InputTurnTracker, ReplayBuffer
from duologue.realtime._session.replayed_turns import ReplayedTurns, TurnSignal
from duologue.realtime.border import Measure
from duologue.realtime.commands import ClearInput, EndTurn, SendAudio
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.vad.vad import VAD
from duologue.vad.voice_meter import VoiceMeter

_LOUD_PEAK = 600
"""Peak (-35 dB) above which samples may be speech."""

_SPEECH_LEAD_S = 1.0
"""Seconds from the start of speech to its signal, if the provider does not report the position."""


class InputAudio:
    """Input audio for the model; keeps the newest seconds of it.

    Args:
        rate: the model's input rate, in Hz.
        keep_s: seconds of audio to keep.
        transcribes: whether the model transcribes the person.
        reconnects: whether connections may be lost; audio is then also kept while there is one.
        vad: measures the person's voice.
        detects_turns: whether ``vad`` also detects turns, for a model that does not signal them.

    `lost_samples` counts audio that reached no connection.
    """

    __slots__ = (
        "_answered",
        "_buffer",
        "_connection_start",
        "_dropped_turns",
        "_local_turns",
        "_measure",
        "_open_when_lost",
        "_partial_text",
        "_peak",
        "_reconnects",
        "_replay_from",
        "_replayed",
        "_replayed_ids",
        "_resampler",
        "_tracker",
        "lost_samples",
        "loud_samples",
        "rate",
        "voice_meter",
    )

    def __init__(
        self,
        rate: int,
        keep_s: float,
        *,
        transcribes: bool,
        reconnects: bool,
        vad: VAD | None = None,
        detects_turns: bool = True,
    ) -> None:
        self.rate = rate
        self.lost_samples = 0
        self._local_turns = LocalTurns(vad, rate) if vad is not None and detects_turns else None
        self.voice_meter: VoiceMeter | None = None
        """Measures the person's voice; None without a VAD."""
        if self._local_turns is not None:
            self.voice_meter = self._local_turns.voice_meter
        elif vad is not None:
            self.voice_meter = VoiceMeter(vad, rate)
        self._measure: Measure | None = None
        """Measures the person's voice where no turns are detected."""
        if self._local_turns is None and self.voice_meter is not None:
            self._measure = self.voice_meter.push
        self._replayed_ids: dict[str, set[type]] = {}
        """Detected turns that are replayed, with the kinds of final signals seen so far."""
        self._reconnects = reconnects
        self._buffer = ReplayBuffer(rate, keep_s)
        self._tracker = InputTurnTracker(rate, transcribes=transcribes)
        self._replayed = ReplayedTurns()
        self._answered: list[str] = []
        self._open_when_lost: list[str] = []
        """Turns that were open when their connection was lost."""
        self._dropped_turns: list[str] = []
        self._partial_text: dict[str, str] = {}
        """Partial transcript of the newest turn, until it is final."""
        self._resampler: Resampler | None = None
        self._peak = 0
        """The highest sample of the newest frame."""
        self.loud_samples = 0
        """Samples so far in frames loud enough to be speech: their peak is above `_LOUD_PEAK`."""
        self._connection_start = 0
        self._replay_from = 0
        """Position from which the next connection gets the audio."""

    @property
    def speaking(self) -> bool:
        """Whether a user turn is open, or its transcript is still missing."""
        return self._tracker.is_open

    def kept(self) -> Sequence[AudioFrame]:
        """Return the audio that is kept, in pieces of up to 0.1 s."""
        pieces = self._buffer.read_from(self._buffer.start)
        return [AudioFrame(piece, self.rate) for piece in pieces if isinstance(piece, np.ndarray)]

    def wrap_measure(self, wrap: Callable[[Measure], Measure]) -> None:
        """Measure the person's voice by what ``wrap`` returns for the present way to do it."""
        if self._local_turns is not None:
            self._local_turns.measure = wrap(self._local_turns.measure)
        elif self._measure is not None:
            self._measure = wrap(self._measure)

    def resample(self, frame: AudioFrame) -> AudioFrame | None:
        """Return the next frame, of any rate, at the model's rate; None while it is too short."""
        if frame.rate != self.rate:
            if self._resampler is None or self._resampler.in_rate != frame.rate:
                self._resampler = Resampler(frame.rate, self.rate)
            frame = AudioFrame(self._resampler.push(frame.samples), self.rate)
        return frame if len(frame.samples) else None

    def accept(self, frame: AudioFrame, *, live: bool) -> AudioFrame | None:
        """Keep the next frame, of any rate; return the audio to send, None while too short."""
        resampled = self.resample(frame)
        if resampled is None:
            return None
        frame, samples = resampled, resampled.samples
        length = len(samples)
        self._peak = peak = int(np.maximum.reduce(samples))
        if peak > _LOUD_PEAK:
            self.loud_samples += length
        if live:
            if self._reconnects:
                self._buffer.push(samples)
        else:
            self._buffer.push(samples, pack=False)
            overflow = self._buffer.start - self._replay_from
            if overflow > 0:
                self.lost_samples += overflow
                self._replay_from = self._buffer.start
        return frame

    def detect(self, frame: AudioFrame, now: float) -> Sequence[TurnSignal]:
        """Return the signals that are detected here in audio that `accept` has returned."""
        if self._local_turns is not None:
            return self._local_turns.detect(frame.samples, self._buffer.end, now, self._peak)
        if self._measure is not None:
            self._measure(frame.samples, now, self._peak)
        return ()

    def translate(self, signal: TurnSignal, now: float) -> Sequence[TurnSignal]:
        """Return the signals that follow from one of the model's."""
        return (signal,) if self._local_turns is None else self._local_turns.translate(signal, now)

    def reply_started(self, *, requested: bool) -> Sequence[TurnSignal]:
        """Return the signals that follow when a reply starts, ``requested`` or automatic."""
        return (
            ()
            if self._local_turns is None
            else self._local_turns.reply_started(requested=requested)
        )

    def reply_done(self) -> Sequence[TurnSignal]:
        """Return the signals that follow when a reply has ended."""
        return () if self._local_turns is None else self._local_turns.reply_done()

    def end_turn(self, *, reply_follows: bool) -> Sequence[TurnSignal]:
        """Return the signals that follow when the program ends the turn."""
        return (
            ()
            if self._local_turns is None
            else self._local_turns.end_turn(reply_follows=reply_follows)
        )

    @property
    def detects_turns(self) -> bool:
        """Whether turns are detected here, because the model does not signal them."""
        return self._local_turns is not None

    @property
    def loud_s(self) -> float:
        """Seconds of input audio so far that are loud enough to be speech."""
        return self.loud_samples / self.rate

    @property
    def keep_s(self) -> float:
        """Seconds of audio that are kept."""
        return self._buffer.seconds

    def mark_boundary(self, command: EndTurn | ClearInput) -> None:
        """Record that the program ended or cleared the turn behind the audio so far."""
        if self._reconnects:
            self._buffer.mark(command)
            if isinstance(command, EndTurn):
                self._tracker.mark_boundary(self._buffer.end)

    def use_manual_turns(self) -> None:
        """End a turn that has text only when the program, or a reply, ends it."""
        if self._local_turns is not None:
            self._local_turns.manual = True

    @property
    def replayed_turns(self) -> int:
        """Number of turns that are replayed although they already have a reply."""
        return len(self._answered)

    def mark_answered(self) -> None:
        """Record that the turns that have ended so far are getting their reply."""
        self._tracker.mark_ended_answered()

    def track(self, signal: TurnSignal, now: float) -> TurnSignal | None:
        """Follow the turns by a signal; return the signal to pass on, or None.

        Pass on nothing of replayed turns but their transcript, under its first id.
        """
        if not self._reconnects:
            return signal
        turns, base, end = self._tracker, self._connection_start, self._buffer.end
        if self._local_turns is not None:
            base = 0
        match signal:
            case SpeechStarted(item_id=item_id, position=position):
                began = (
                    end - int(self.rate * _SPEECH_LEAD_S) if position is None else base + position
                )
                turns.speech_started(item_id, began)
            case SpeechStopped(item_id=item_id, position=position):
                if position is not None:
                    turns.speech_stopped(item_id, base + position)
            case UserTranscript(item_id=item_id, final=final):
                if final:
                    turns.transcript_final(item_id)
                    self._partial_text.pop(item_id, None)
                elif self._local_turns is None:
                    self._partial_text = {item_id: signal.text}
            case UserTurnEnded(item_id=item_id, position=position, empty=empty):
                at = None if position is None else base + position
                turns.turn_ended(item_id, at, end, empty=empty)
                if signal.speech_end is None and signal.silence_s is not None:
                    ago = signal.silence_s + (0.0 if at is None else (end - at) / self.rate)
                    signal = replace(signal, speech_end=now - ago)
        self._buffer.discard_before(turns.settled)
        if self._local_turns is None:
            passed = self._replayed.translate(signal, now)
            if isinstance(passed, SpeechStarted):
                self._open_when_lost.clear()  # The new connection continues the turn under this id.
            return passed
        seen = self._replayed_ids.get(signal.item_id)
        is_transcript = isinstance(signal, UserTranscript) and signal.final
        if seen is not None and (is_transcript or isinstance(signal, UserTurnEnded)):
            # Its second end and its final transcript come in any order.
            seen.add(type(signal))
            if len(seen) == 2:
                del self._replayed_ids[signal.item_id]
        if isinstance(signal, UserTranscript) and not signal.text:
            return None  # The turn has no text, which changes nothing.
        return signal if seen is None or is_transcript else None

    def connection_lost(self) -> Sequence[str]:
        """Choose what to replay; return the ended turns that come again as new ones."""
        unsettled = self._tracker.connection_lost()
        self._replay_from = max(unsettled.position, self._buffer.start)
        if self._local_turns is not None and unsettled.speech_start is None:
            # No speech was detected here.
            self._replay_from = max(
                self._replay_from, self._buffer.end - int(self.rate * _SPEECH_LEAD_S)
            )
        if unsettled.speech_start is not None:
            self.lost_samples += max(
                0, self._buffer.start - max(unsettled.speech_start, unsettled.position)
            )
        if self._local_turns is None:
            self._open_when_lost += [
                one for one in unsettled.open_turns if one not in self._replayed
            ]
        again, others = self._replayed.connection_lost(unsettled.replayed)
        self._answered = again + [one for one in others if one in unsettled.answered]
        unanswered = [one for one in others if one not in unsettled.answered]
        if self._local_turns is not None:
            self._carry_over_turns(self._local_turns, unanswered)
        return unanswered

    def _carry_over_turns(self, local: LocalTurns, unanswered: Sequence[str]) -> None:
        """Prepare ``local`` for the next connection, whose replay it does not get."""
        under_way = local.connection_lost(unanswered, self._answered)
        self._answered = list(local.replayed_ids)
        self._replayed_ids = {item_id: set() for item_id in self._answered}
        for item_id in self._answered:
            self._tracker.speech_started(item_id, self._replay_from)
            self._tracker.mark_answered(item_id)
        if under_way is not None:
            self._tracker.speech_started(
                under_way, self._replay_from if local.turn_start is None else local.turn_start
            )

    def take_dropped_turns(self) -> Sequence[UserTranscript | UserTurnEnded]:
        """Return, once, the ends of turns that are not replayed to the new connection.

        A partial transcript that was already reported becomes final.
        """
        dropped, self._dropped_turns = self._dropped_turns, []
        ends: list[UserTranscript | UserTurnEnded] = []
        for item_id in dropped:
            text = self._partial_text.pop(item_id, "")
            if text:
                ends.append(UserTranscript(item_id, text, final=True))
            ends.append(UserTurnEnded(item_id, None, reply_follows=False, empty=not text))
        return ends

    def replay(self, now: float) -> list[SendAudio | EndTurn | ClearInput]:
        """Return what to send first on a new connection: the audio that is not settled."""
        self._connection_start = self._replay_from
        kept = self._buffer.read_from(self._replay_from)
        if not self._reconnects:
            self._buffer.discard_before(self._buffer.end)
        position = self._replay_from
        loud = False
        commands: list[SendAudio | EndTurn | ClearInput] = []
        for piece in kept:
            match piece:
                case EndTurn():
                    self._tracker.mark_boundary(position)
                    commands.append(piece)
                case ClearInput():
                    commands.append(piece)
                case _:
                    position += len(piece)
                    commands.append(SendAudio(AudioFrame(piece, self.rate)))
            if isinstance(piece, np.ndarray) and piece.max() > _LOUD_PEAK:
                loud = True
        if not loud:
            self._dropped_turns, self._open_when_lost = self._open_when_lost, []
        length = position - self._replay_from
        if self._local_turns is None:
            self._replayed.begin(self._answered, length, length / self.rate, now)
        return commands
