"""Turns of the person, for a model that does not signal them (sans-IO).

Gemini Live and Nova Sonic send the person's transcript in pieces, under ids of their own, and don't
say when speech begins or ends nor which turn a piece belongs to. This puts together what other
services send by themselves, from three sources:

    VAD on the input audio       when speech starts and stops, sooner than a service could signal it
    transcript pieces            what was said, late, and without a turn
    the start of a reply         the turn before it is over

A turn goes through these states; one of each may exist at a time, and several ``without text``:

    open ---reply starts, or silence---> last ---another turn ends, text missing---> without text
      text arrives: partial               text arrives: final once the reply is done

A piece of text belongs, in this order, to:

    1. the late turn that got a piece at most `BURST_S` ago
    2. a turn that ended at most `LATE_TRANSCRIPT_S` ago and has no text yet; the last one first,
       unless it is so short that it may be a cough
    3. the first replayed turn, after a reconnect
    4. the open turn, else the last one

A turn without text is no speech (a cough): it ends as empty after `MAX_TRANSCRIPT_WAIT_S`, and gets
no reply. With text it ends after `MAX_REPLY_WAIT_S` of silence even if no reply starts, because the
model may choose not to reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from duologue._bounded_dict import BoundedDict
from duologue.audio import Samples
from duologue.realtime.border import Measure
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.vad.endpointing import Endpointer, Endpointing, EndpointingStep
from duologue.vad.vad import VAD
from duologue.vad.voice_meter import VoiceMeter

type TurnSignal = SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded

ENDPOINTING = Endpointing(speculate_s=0.06, vote_s=0.3, timeout_s=60.0)
"""Speech has stopped after 0.3 s of silence."""

MAX_REPLY_WAIT_S = 3.0
"""Seconds of silence after which a turn with text is over, although no reply has started."""
MAX_TRANSCRIPT_WAIT_S = 8.0
"""The same without text, after which the turn was no speech. Nova Sonic waits 2 s for the end of a
turn before it transcribes it.
"""

LATE_TRANSCRIPT_S = 3.0
"""Seconds after the end of a turn in which its transcript may still arrive, even if another turn
has begun. A turn without text by then has none.
"""
BURST_S = 0.25
"""Seconds within which a piece of a late transcript belongs to the same turn as the piece before
it.
"""

SHORT_TURN_S = 0.4
"""Seconds; a shorter turn is likely to have no text."""

_MAX_PIECES = 64
"""Transcript pieces that are remembered with their turn, because longer versions may follow."""


@dataclass(slots=True, eq=False)
class _LocalTurn:
    item_id: str
    pieces: dict[str, str] = field(default_factory=dict)
    older_text: str = ""
    """Text of earlier pieces, which are not kept one by one."""
    reported_text: str = ""
    """The text that was reported last."""
    fallback_text: str = ""
    """Text from an earlier connection, used if no other arrives."""
    reported_final: bool = False
    """Whether the reported text was final."""
    start: int | None = None
    end: int | None = None
    """Positions; None where unknown."""
    stopped_at: float | None = None
    """When the speech ended, in clock seconds."""
    silent_since: float | None = None
    """Since when it has had neither speech nor a first transcript."""
    ended_at: float = 0.0
    """When the whole turn was over, in clock seconds."""

    @property
    def text(self) -> str:
        """All its text so far; pieces contain their own spaces."""
        return (self.older_text + "".join(self.pieces.values())).strip()

    def add_piece(self, piece_id: str, text: str) -> None:
        """Add a piece, or replace a piece that is still kept by a longer version."""
        self.pieces[piece_id] = text
        while len(self.pieces) > _MAX_PIECES:
            self.older_text += self.pieces.pop(next(iter(self.pieces)))

    def take_transcript(self, *, final: bool) -> Sequence[UserTranscript]:
        """Return its transcript if that has changed since the last call."""
        text = self.text or (self.fallback_text if final else "")
        if not text or (text == self.reported_text and (self.reported_final or not final)):
            return ()
        self.reported_text, self.reported_final = text, final
        return (UserTranscript(self.item_id, text, final),)

    def settle_without_text(self) -> Sequence[UserTranscript]:
        """Give up waiting for text; return an empty final transcript unless there is text."""
        if self.text or self.reported_final:
            return ()
        if self.fallback_text:
            return self.take_transcript(final=True)
        self.reported_final = True
        return (UserTranscript(self.item_id, "", final=True),)

    def is_short(self, rate: int) -> bool:
        """Return whether the turn is so short that it is likely to have no text."""
        if self.start is None or self.end is None:
            return False
        return self.end - self.start < SHORT_TURN_S * rate

    def reset_for_replay(self) -> None:
        """Reset the turn, because it will be replayed to another connection from its beginning."""
        self.fallback_text = self.text or self.fallback_text
        self.pieces.clear()
        self.older_text = ""
        self.reported_text, self.reported_final = "", False


class LocalTurns:
    """Makes the turn signals of one session.

    Positions are samples since the session began. A turn whose beginning the VAD missed has a
    transcript and an end, and no `SpeechStarted`.

    Args:
        vad: detects speech.
        rate: rate of the audio that the model is sent, in Hz.
        config: when speech has started and stopped.
    """

    __slots__ = (
        "_endpointer",
        "_last_turn",
        "_late_at",
        "_late_turn",
        "_now",
        "_rate",
        "_replayed",
        "_replying",
        "_turn",
        "_turn_of_piece",
        "_without_text",
        "manual",
        "measure",
        "voice_meter",
    )

    def __init__(self, vad: VAD, rate: int, config: Endpointing = ENDPOINTING) -> None:
        self.manual = False
        """Whether the program ends turns: silence then ends only turns without text."""
        self._rate = rate
        self.voice_meter = VoiceMeter(vad, rate)
        self.measure: Measure = self.voice_meter.push
        self._endpointer = Endpointer(config)
        self._turn: _LocalTurn | None = None
        self._last_turn: _LocalTurn | None = None
        self._turn_of_piece: BoundedDict[str, _LocalTurn] = BoundedDict(_MAX_PIECES)
        self._replayed: list[_LocalTurn] = []
        self._without_text: list[_LocalTurn] = []
        """Turns before the last one that have no text yet; a late transcript may belong to them."""
        self._late_turn: _LocalTurn | None = None
        """The turn that the latest late transcript belonged to."""
        self._late_at = float("-inf")
        self._now = float("-inf")
        self._replying = False

    @property
    def replayed_ids(self) -> Sequence[str]:
        """Turns that have a reply and are replayed for their transcript only."""
        return [turn.item_id for turn in self._replayed]

    def detect(
        self, samples: Samples, position: int, now: float, peak: int | None = None
    ) -> Sequence[TurnSignal]:
        """Return the signals in the next audio, which ends at ``now`` and at ``position``.

        ``peak`` is its highest sample, if that is known.
        """
        self._now = now
        signals: list[TurnSignal] = []
        while self._without_text and now - self._without_text[0].ended_at > LATE_TRANSCRIPT_S:
            signals += self._without_text.pop(0).settle_without_text()
        if self._last_turn is not None and now - self._last_turn.ended_at > LATE_TRANSCRIPT_S:
            signals += self._last_turn.settle_without_text()
        for activity, seconds, at in self.measure(samples, now, peak):
            for step in self._endpointer.push(activity, seconds, at):
                signals += self._handle_step(step, position, now)
        turn = self._turn
        if turn is not None and turn.silent_since is not None:
            has_text = bool(turn.text or turn.fallback_text)
            waits = has_text and self.manual
            if not waits and now - turn.silent_since >= (
                MAX_REPLY_WAIT_S if has_text else MAX_TRANSCRIPT_WAIT_S
            ):
                signals += self._end_turn(reply_follows=has_text, empty=not has_text)
        return signals

    def translate(self, signal: TurnSignal, now: float) -> Sequence[TurnSignal]:
        """Return the signals that follow from one of the model's."""
        match signal:
            case UserTranscript(item_id=piece_id, text=text):
                return self._add_transcript(piece_id, text, now)
            case UserTurnEnded(reply_follows=reply_follows):
                return self._end_turn(reply_follows=reply_follows)
            case SpeechStarted() | SpeechStopped():
                return (signal,)

    def reply_started(self, *, requested: bool) -> Sequence[TurnSignal]:
        """Return the signals that follow when a reply starts.

        It ends the open turn, unless it was ``requested`` by something other than the person.
        """
        self._replying = True
        if requested:
            return ()
        if self._replayed:
            before = self._retire_last_turn()
            turn = self._last_turn = self._replayed.pop(0)
            turn.ended_at = self._now
            self._turn_of_piece.clear()
            transcript = turn.take_transcript(final=True) if turn.text else ()
            return (*before, *transcript, UserTurnEnded(turn.item_id))
        turn_ = self._turn
        if turn_ is None or (self._endpointer.is_speaking and not turn_.text):
            return ()
        return self._end_turn(reply_follows=True)

    def reply_done(self) -> Sequence[TurnSignal]:
        """Return the signals that follow when a reply has ended: the final transcript."""
        self._replying = False
        return self._finish_last_turn()

    def end_turn(self, *, reply_follows: bool) -> Sequence[TurnSignal]:
        """End the turn, because the program says so."""
        if self._turn is None:
            self._turn = _LocalTurn(uuid4().hex)
        return self._end_turn(reply_follows=reply_follows)

    def connection_lost(self, unanswered: Sequence[str], answered: Sequence[str]) -> str | None:
        """Drop the transcripts of the lost connection, which come again from the next one.

        The next connection also replies to these turns, to the ``answered`` ones a second time.

        Returns:
            The id of the open turn, if there is one.
        """
        last, self._last_turn = self._last_turn, None
        turns = [*self._without_text, *self._replayed, *filter(None, (last, self._turn))]
        for turn in turns:
            turn.reset_for_replay()
        known = {turn.item_id: turn for turn in turns}
        if self._turn is None and last is not None and last.item_id in unanswered:
            self._turn = last
        # Turns that just got their reply come before those that already wait for their transcript.
        again = dict.fromkeys([*answered, *self.replayed_ids])
        self._replayed = [known.get(item_id) or _LocalTurn(item_id) for item_id in again]
        self._without_text.clear()
        self._turn_of_piece.clear()
        self._late_turn = None
        self._replying = False
        return None if self._turn is None else self._turn.item_id

    @property
    def turn_start(self) -> int | None:
        """Where the open turn began; None if there is none, or where that is unknown."""
        return None if self._turn is None else self._turn.start

    def _handle_step(
        self, step: EndpointingStep, position: int, now: float
    ) -> Sequence[TurnSignal]:
        taking, turn = self._endpointer, self._turn
        match step:
            case EndpointingStep.STARTED:
                settled = self._finish_last_turn()
                turn = turn or _LocalTurn(uuid4().hex)
                self._turn = turn
                turn.silent_since = None
                if turn.start is None:
                    turn.start = position - round((now - taking.speech_start) * self._rate)
                return (*settled, SpeechStarted(turn.item_id, taking.speech_start, turn.start))
            case EndpointingStep.RESUMED if turn is not None:
                turn.end = turn.stopped_at = turn.silent_since = None
                return (SpeechStarted(turn.item_id, None, turn.start),)
            case EndpointingStep.VOTE if turn is not None:
                turn.stopped_at = turn.silent_since = taking.speech_end
                turn.end = position - round((now - taking.speech_end) * self._rate)
                return (SpeechStopped(turn.item_id, turn.stopped_at, turn.end),)
            case _:
                return ()

    def _add_transcript(self, piece_id: str, text: str, now: float) -> Sequence[TurnSignal]:
        home = self._turn_of_piece.get(piece_id)
        ended: Sequence[TurnSignal] = ()
        if home is None:
            home = self._find_turn(now)
            if home is None:
                home = _LocalTurn(uuid4().hex)
                if self._replying:
                    # The reply to this turn is already running.
                    self._last_turn = home
                    home.ended_at = now
                    ended = (UserTurnEnded(home.item_id, reply_follows=False),)
                else:
                    self._turn = home
                    home.silent_since = now
            self._turn_of_piece[piece_id] = home
        if home is self._last_turn or home in self._without_text:
            self._late_turn, self._late_at = home, now
        home.add_piece(piece_id, text)
        # After the end of its reply, nothing else would make the transcript final.
        over = home in self._without_text or (home is self._last_turn and not self._replying)
        return (*home.take_transcript(final=over), *ended)

    def _find_turn(self, now: float) -> _LocalTurn | None:
        """Return the turn that a transcript piece belongs to which arrives now."""
        if self._late_turn is not None and now - self._late_at <= BURST_S:
            return self._late_turn
        last = self._last_turn
        # If the person speaks again before the transcript of the earlier turn, that transcript
        # comes first.
        waiting = list(self._without_text) if last is None else [*self._without_text, last]
        waiting = [
            one for one in waiting if not one.text and now - one.ended_at <= LATE_TRANSCRIPT_S
        ]
        # Of several turns, prefer the last, unless it is so short that it may be a cough.
        waiting.sort(key=lambda one: (one.is_short(self._rate), one is not last))
        if waiting:
            return waiting[0]
        return self._replayed[0] if self._replayed else self._turn or last

    def _end_turn(self, *, reply_follows: bool, empty: bool = False) -> Sequence[TurnSignal]:
        turn, self._turn = self._turn, None
        self._endpointer.end()
        if turn is None:
            return ()
        before = self._retire_last_turn()
        self._last_turn = None if empty else turn
        turn.ended_at = self._now
        self._late_turn = None
        ended = UserTurnEnded(turn.item_id, turn.stopped_at, reply_follows, empty, turn.end)
        return (*before, *turn.take_transcript(final=True), ended)

    def _retire_last_turn(self) -> Sequence[UserTranscript]:
        """Make room for another last turn; keep the old one while it may still get text."""
        last, self._last_turn = self._last_turn, None
        if last is None or last.reported_final:
            return ()
        if last.text:
            return last.take_transcript(final=True)
        self._without_text.append(last)
        return ()

    def _finish_last_turn(self) -> Sequence[TurnSignal]:
        """Report the transcript of the last turn as final, if it has one."""
        last = self._last_turn
        if last is None or not last.text:
            return ()
        if not self._replying:
            self._last_turn = None
        return last.take_transcript(final=True)
