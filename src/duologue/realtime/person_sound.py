"""The way of the person's sound to the model: resampled, kept, and sent again where it was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from duologue.audio import AudioFrame, Resampler
from duologue.pipeline.parts import VAD
from duologue.pipeline.voice_meter import VoiceMeter
from duologue.realtime.commands import ClearInput, EndTurn, SendAudio
from duologue.realtime.input_sound import LOUD, InputRing, InputTurns
from duologue.realtime.local_turns import LocalTurns
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.realtime.rehearing import Rehearing, TurnSignal

_BEFORE_S = 1.0
"""Where the provider does not tell where speech began, it is taken to be so long before."""
_SILENT = 32
"""Audio without a sample above this (-60 dB) is not searched for a voice."""


class PersonSound:
    """Input audio at ``rate`` Hz for the model; keeps the newest ``keep_s`` seconds.

    ``words``: the model transcribes the person. ``keeps``: connections may be lost, so audio is
    also kept while there is one. ``vad`` measures the person's voice; with ``finds`` it also
    detects turns, for a model that does not signal them. ``lost`` counts samples
    that no connection has heard.
    """

    def __init__(
        self,
        rate: int,
        keep_s: float,
        *,
        words: bool,
        keeps: bool,
        vad: VAD | None = None,
        finds: bool = True,
    ) -> None:
        self.rate = rate
        self.lost = 0
        self._local = LocalTurns(vad, rate) if vad is not None and finds else None
        self.voice: VoiceMeter | None = None
        """Measures the person's voice; None without a VAD."""
        if self._local is not None:
            self.voice = self._local.voice
        elif vad is not None:
            self.voice = VoiceMeter(vad, rate)
        self._echoes: set[str] = set()
        self._keeps = keeps
        self._ring = InputRing(rate, keep_s)
        self._turns = InputTurns(rate, words=words)
        self._rehearing = Rehearing()
        self._answered: list[str] = []
        self._open_when_lost: list[str] = []
        """Turns that were open when their connection was lost."""
        self._dropped_turns: list[str] = []
        self._partial: dict[str, str] = {}
        """Words of the newest turn that were signalled and are not final."""
        self._resampler: Resampler | None = None
        self._base = 0
        self._from = 0
        """Position from which on the next connection has to hear."""

    @property
    def speaking(self) -> bool:
        """The person speaks, or their words are not known yet."""
        return self._turns.open

    def take(self, frame: AudioFrame, *, live: bool) -> AudioFrame | None:
        """Keep the next sound, of any rate; returns what is to be sent, None while too short."""
        if frame.rate != self.rate:
            if self._resampler is None or self._resampler.in_rate != frame.rate:
                self._resampler = Resampler(frame.rate, self.rate)
            frame = AudioFrame(self._resampler.push(frame.samples), self.rate)
        if not len(frame):
            return None
        if not live:
            self._ring.push(frame.samples)
            overflow = self._ring.start - self._from
            if overflow > 0:
                self.lost += overflow
                self._from = self._ring.start
        elif self._keeps:
            self._ring.push(frame.samples)
        return frame

    def listen(self, frame: AudioFrame, now: float) -> Sequence[TurnSignal]:
        """What is heard here of the turns, in sound that `take` has given."""
        if self._local is not None:
            return self._local.hear(frame.samples, self._ring.end, now)
        voice = self.voice
        if voice is not None and not (voice.idle and int(frame.samples.max()) <= _SILENT):
            voice.hear(frame.samples, now)
        return ()

    def found(self, signal: TurnSignal, now: float) -> Sequence[TurnSignal]:
        """The signals that follow from one of the model's."""
        return (signal,) if self._local is None else self._local.take(signal, now)

    def reply_began(self, *, asked: bool) -> Sequence[TurnSignal]:
        """The signals that follow when the model begins to speak, ``asked`` to or by itself."""
        return () if self._local is None else self._local.reply_began(asked=asked)

    def reply_done(self) -> Sequence[TurnSignal]:
        """The signals that follow when a reply has ended."""
        return () if self._local is None else self._local.reply_done()

    def end_turn(self, *, reply_follows: bool) -> Sequence[TurnSignal]:
        """The signals that follow when the program ends the turn."""
        return () if self._local is None else self._local.end_turn(reply_follows=reply_follows)

    @property
    def finds_turns(self) -> bool:
        """Whether speech is detected here, because the model does not signal it."""
        return self._local is not None

    @property
    def loud_s(self) -> float:
        """Seconds of input audio so far that are loud enough to be speech."""
        return self._ring.loud / self.rate

    @property
    def keep_s(self) -> float:
        """Seconds of sound that are kept."""
        return self._ring.seconds

    def mark(self, command: EndTurn | ClearInput) -> None:
        """The program has ended the turn, or cleared it, behind the sound so far."""
        if self._keeps:
            self._ring.mark(command)
            if isinstance(command, EndTurn):
                self._turns.marked(self._ring.end)

    def program_ends_turns(self) -> None:
        """No turn of words is over before the program, or an answer, says so."""
        if self._local is not None:
            self._local.manual = True

    @property
    def rehears(self) -> int:
        """Turns that the connection hears again though they were answered."""
        return len(self._answered)

    def answered(self) -> None:
        """The turns that have ended so far are being answered."""
        self._turns.answer_came()

    def follow(self, signal: TurnSignal, now: float) -> TurnSignal | None:
        """The model has heard something; returns what is to be told of it, None for nothing.

        Nothing is told of turns that it hears again, but their words, under their first id.
        """
        if not self._keeps:
            return signal
        turns, base, end = self._turns, self._base, self._ring.end
        if self._local is not None:
            base = 0
        match signal:
            case SpeechStarted(item_id=item_id, position=position):
                began = end - int(self.rate * _BEFORE_S) if position is None else base + position
                turns.started(item_id, began)
            case SpeechStopped(item_id=item_id, position=position):
                if position is not None:
                    turns.stopped(item_id, base + position)
            case UserTranscript(item_id=item_id, final=final):
                if final:
                    turns.worded(item_id)
                    self._partial.pop(item_id, None)
                elif self._local is None:
                    self._partial = {item_id: signal.text}
            case UserTurnEnded(item_id=item_id, position=position, empty=empty):
                at = None if position is None else base + position
                turns.ended(item_id, at, end, empty=empty)
                if signal.speech_end is None and signal.silence_s is not None:
                    ago = signal.silence_s + (0.0 if at is None else (end - at) / self.rate)
                    signal = replace(signal, speech_end=now - ago)
        self._ring.forget(turns.settled)
        if self._local is None:
            told = self._rehearing.take(signal, now)
            if isinstance(told, SpeechStarted):
                self._open_when_lost.clear()  # The new connection continues it under this id.
            return told
        if isinstance(signal, UserTranscript) and not signal.text:
            self._echoes.discard(signal.item_id)
            return None  # It has no words: that is nobody's news.
        if signal.item_id not in self._echoes:
            return signal
        match signal:
            case UserTranscript(final=True):
                self._echoes.discard(signal.item_id)
                return signal
            case _:
                return None

    def connection_lost(self) -> Sequence[str]:
        """The connection is gone; returns the turns that had ended and will come again as new."""
        unsettled = self._turns.lost()
        self._from = max(unsettled.position, self._ring.start)
        if self._local is not None and unsettled.needed is None:
            # Nobody has spoken, as far as was heard here.
            self._from = max(self._from, self._ring.end - int(self.rate * _BEFORE_S))
        if unsettled.needed is not None:
            self.lost += max(0, self._ring.start - max(unsettled.needed, unsettled.position))
        if self._local is None:
            self._open_when_lost += [
                one for one in unsettled.under_way if one not in self._rehearing
            ]
        again, others = self._rehearing.lost(unsettled.reheard)
        self._answered = again + [one for one in others if one in unsettled.answered]
        unanswered = [one for one in others if one not in unsettled.answered]
        if self._local is not None:
            self._go_on(self._local, unanswered)
        return unanswered

    def _go_on(self, local: LocalTurns, unanswered: Sequence[str]) -> None:
        """The next connection will hear turns again that are not found here once more."""
        under_way = local.lost(unanswered, self._answered)
        self._answered = list(local.echoes)
        self._echoes = set(self._answered)
        for item_id in self._answered:
            self._turns.started(item_id, self._from)
            self._turns.mark_answered(item_id)
        if under_way is not None:
            self._turns.started(under_way, self._from if local.begin is None else local.begin)

    def dropped_turns(self) -> Sequence[UserTranscript | UserTurnEnded]:
        """Return, once, the ends of turns of which nothing is replayed to the new connection.

        Words that were already signalled become final.
        """
        dropped, self._dropped_turns = self._dropped_turns, []
        ends: list[UserTranscript | UserTurnEnded] = []
        for item_id in dropped:
            words = self._partial.pop(item_id, "")
            if words:
                ends.append(UserTranscript(item_id, words, final=True))
            ends.append(UserTurnEnded(item_id, None, reply_follows=False, empty=not words))
        return ends

    def again(self, now: float) -> list[SendAudio | EndTurn | ClearInput]:
        """What a new connection has to hear first, all from where the last one is not safe."""
        self._base = self._from
        kept = self._ring.since(self._from)
        if not self._keeps:
            self._ring.forget(self._ring.end)
        position = self._from
        loud = False
        commands: list[SendAudio | EndTurn | ClearInput] = []
        for piece in kept:
            match piece:
                case EndTurn():
                    self._turns.marked(position)
                    commands.append(piece)
                case ClearInput():
                    commands.append(piece)
                case _:
                    position += len(piece)
                    commands.append(SendAudio(AudioFrame(piece, self.rate)))
            if isinstance(piece, np.ndarray) and piece.max() > LOUD:
                loud = True
        if not loud:
            self._dropped_turns, self._open_when_lost = self._open_when_lost, []
        length = position - self._from
        if self._local is None:
            self._rehearing.begin(self._answered, length, length / self.rate, now)
        return commands
