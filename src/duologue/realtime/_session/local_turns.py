"""Turns of the person for a model that does not signal them: voice activity here, words from there.

Sans-IO. When the person speaks is found in their own sound, sooner than a model could tell it.
What they said comes from the model, under ids of its own and without a word on which turn it
belongs to. A turn is over when the model begins to answer it, or after a long silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from duologue.audio import Samples
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.vad.endpointing import Endpointer, Endpointing, EndpointingStep
from duologue.vad.vad import VAD
from duologue.vad.voice_meter import VoiceMeter

type TurnSignal = SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded

ENDPOINTING = Endpointing(speculate_s=0.06, vote_s=0.3, timeout_s=60.0)
"""Speech has stopped after 0.3 s without any."""

MAX_REPLY_WAIT_S = 3.0
"""A turn is over after so many seconds of silence, though nothing answers it yet."""
MAX_TRANSCRIPT_WAIT_S = 8.0
"""And after so many when it has no words: then it was no speech. Nova Sonic waits 2 s for the end
of a turn, and then makes its words."""

LATE_TRANSCRIPT_S = 3.0
"""Words may come so many seconds after the end of their turn, though another has begun; a turn that
has none by then is taken to have none."""
BURST_S = 0.25
"""Words that come within so many seconds of others, while these are late, belong with them."""

SHORT_TURN_S = 0.4
"""Seconds; a shorter turn is likely to have no words."""

_MAX_PIECES = 64
"""Pieces of words whose turn is remembered, since more of them may come."""


@dataclass(slots=True, eq=False)
class _LocalTurn:
    item_id: str
    pieces: dict[str, str] = field(default_factory=dict)
    older_text: str = ""
    """Words of earlier pieces, which are not kept one by one."""
    reported_text: str = ""
    """The words that were told last."""
    fallback_text: str = ""
    """Words from an earlier connection, used if no others come."""
    reported_final: bool = False
    """And they were told to be all."""
    start: int | None = None
    end: int | None = None
    """Positions; None where it is not known."""
    stopped_at: float | None = None
    """When the speech ended, in s."""
    silent_since: float | None = None
    """Since when nothing was heard of it, neither its sound nor its first words."""
    ended_at: float = 0.0
    """When the whole turn was over, in s."""

    @property
    def text(self) -> str:
        """All its words so far; pieces bring their own spaces."""
        return (self.older_text + "".join(self.pieces.values())).strip()

    def add_piece(self, piece_id: str, text: str) -> None:
        """Add a piece, or replace a piece that is still kept by a longer one."""
        self.pieces[piece_id] = text
        while len(self.pieces) > _MAX_PIECES:
            self.older_text += self.pieces.pop(next(iter(self.pieces)))

    def take_transcript(self, *, final: bool) -> Sequence[UserTranscript]:
        """Its words, if that is news."""
        text = self.text or (self.fallback_text if final else "")
        if not text or (text == self.reported_text and (self.reported_final or not final)):
            return ()
        self.reported_text, self.reported_final = text, final
        return (UserTranscript(self.item_id, text, final),)

    def settle_without_text(self) -> Sequence[UserTranscript]:
        """It has none, if none have come: so nothing that was kept for them is needed."""
        if self.text or self.reported_final:
            return ()
        if self.fallback_text:
            return self.take_transcript(final=True)
        self.reported_final = True
        return (UserTranscript(self.item_id, "", final=True),)

    def is_short(self, rate: int) -> bool:
        """Return whether the turn is so short that it is likely to have no words."""
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
    """Signals of one session's turns; ``rate`` is Hz of the sound that the model is sent.

    Positions are samples of the whole session's sound. A turn of which voice activity missed the
    beginning has words and an end, and no `SpeechStarted`.
    """

    __slots__ = (
        "_endpointer",
        "_frame_s",
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
        "voice_meter",
    )

    def __init__(self, vad: VAD, rate: int, config: Endpointing = ENDPOINTING) -> None:
        self.manual = False
        """The program ends turns: with words, none is over only because it is silent."""
        self._rate = rate
        self.voice_meter = VoiceMeter(vad, rate)
        self._frame_s = vad.frame_samples / vad.rate
        self._endpointer = Endpointer(config)
        self._turn: _LocalTurn | None = None
        self._last_turn: _LocalTurn | None = None
        self._turn_of_piece: dict[str, _LocalTurn] = {}
        self._replayed: list[_LocalTurn] = []
        self._without_text: list[_LocalTurn] = []
        """Turns before the last one that have no words yet; late words may belong to them."""
        self._late_turn: _LocalTurn | None = None
        """The turn that the latest late words belonged to."""
        self._late_at = float("-inf")
        self._now = float("-inf")
        self._replying = False

    @property
    def replayed_ids(self) -> Sequence[str]:
        """Turns that were answered, and that the model hears again for their words only."""
        return [turn.item_id for turn in self._replayed]

    def detect(self, samples: Samples, position: int, now: float) -> Sequence[TurnSignal]:
        """The next sound of the person, which ends ``now`` (s) and at ``position``."""
        self._now = now
        told: list[TurnSignal] = []
        while self._without_text and now - self._without_text[0].ended_at > LATE_TRANSCRIPT_S:
            told += self._without_text.pop(0).settle_without_text()
        if self._last_turn is not None and now - self._last_turn.ended_at > LATE_TRANSCRIPT_S:
            told += self._last_turn.settle_without_text()
        for activity, at in self.voice_meter.push(samples, now):
            for step in self._endpointer.push(activity, self._frame_s, at):
                told += self._handle_step(step, position, now)
        turn = self._turn
        if turn is not None and turn.silent_since is not None:
            words = bool(turn.text or turn.fallback_text)
            held = words and self.manual
            if not held and now - turn.silent_since >= (
                MAX_REPLY_WAIT_S if words else MAX_TRANSCRIPT_WAIT_S
            ):
                told += self._end_turn(reply_follows=words, empty=not words)
        return told

    def translate(self, signal: TurnSignal, now: float) -> Sequence[TurnSignal]:
        """Something that the model told of the person: words of theirs, or that a turn is over."""
        match signal:
            case UserTranscript(item_id=piece_id, text=text):
                return self._add_transcript(piece_id, text, now)
            case UserTurnEnded(reply_follows=reply_follows):
                return self._end_turn(reply_follows=reply_follows)
            case SpeechStarted() | SpeechStopped():
                return (signal,)

    def reply_started(self, *, requested: bool) -> Sequence[TurnSignal]:
        """The model begins to speak; ``asked`` when something else than the person made it."""
        self._replying = True
        if requested:
            return ()
        if self._replayed:
            before = self._retire_last_turn()
            turn = self._last_turn = self._replayed.pop(0)
            turn.ended_at = self._now
            self._turn_of_piece.clear()
            words = turn.take_transcript(final=True) if turn.text else ()
            return (*before, *words, UserTurnEnded(turn.item_id))
        turn_ = self._turn
        if turn_ is None or (self._endpointer.is_speaking and not turn_.text):
            return ()
        return self._end_turn(reply_follows=True)

    def reply_done(self) -> Sequence[TurnSignal]:
        """A reply has ended: the turn that it answered has all its words now."""
        self._replying = False
        return self._finish_last_turn()

    def end_turn(self, *, reply_follows: bool) -> Sequence[TurnSignal]:
        """The program has ended the turn."""
        if self._turn is None:
            self._turn = _LocalTurn(uuid4().hex)
        return self._end_turn(reply_follows=reply_follows)

    def connection_lost(self, unanswered: Sequence[str], answered: Sequence[str]) -> str | None:
        """The connection is gone, and the words of these turns with it: the next will tell them.

        It will also answer them, the ``answered`` ones once more. Returns the turn that is under
        way, if there is one.
        """
        last, self._last_turn = self._last_turn, None
        turns = [*self._without_text, *self._replayed, *filter(None, (last, self._turn))]
        for turn in turns:
            turn.reset_for_replay()
        known = {turn.item_id: turn for turn in turns}
        if self._turn is None and last is not None and last.item_id in unanswered:
            self._turn = last
        # Turns that were just answered come before those that already wait for their words.
        again = dict.fromkeys([*answered, *self.replayed_ids])
        self._replayed = [known.get(item_id) or _LocalTurn(item_id) for item_id in again]
        self._without_text.clear()
        self._turn_of_piece.clear()
        self._late_turn = None
        self._replying = False
        return None if self._turn is None else self._turn.item_id

    @property
    def turn_start(self) -> int | None:
        """Where the turn that is under way began."""
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
                    # The answer to it is running already.
                    self._last_turn = home
                    home.ended_at = now
                    ended = (UserTurnEnded(home.item_id, reply_follows=False),)
                else:
                    self._turn = home
                    home.silent_since = now
            self._turn_of_piece[piece_id] = home
            if len(self._turn_of_piece) > _MAX_PIECES:
                del self._turn_of_piece[next(iter(self._turn_of_piece))]
        if home is self._last_turn or home in self._without_text:
            self._late_turn, self._late_at = home, now
        home.add_piece(piece_id, text)
        # Once it was answered to the end, nothing comes any more that would make them final.
        over = home in self._without_text or (home is self._last_turn and not self._replying)
        return (*home.take_transcript(final=over), *ended)

    def _find_turn(self, now: float) -> _LocalTurn | None:
        """The turn that words belong to which have come now."""
        if self._late_turn is not None and now - self._late_at <= BURST_S:
            return self._late_turn
        last = self._last_turn
        # The person speaks again before the words of the earlier turn have come: those come first.
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
        """Make room for another last turn; keep the old one while its words may still come."""
        last, self._last_turn = self._last_turn, None
        if last is None or last.reported_final:
            return ()
        if last.text:
            return last.take_transcript(final=True)
        self._without_text.append(last)
        return ()

    def _finish_last_turn(self) -> Sequence[TurnSignal]:
        """Words that came after the end of the last turn are all of them, if any came."""
        last = self._last_turn
        if last is None or not last.text:
            return ()
        if not self._replying:
            self._last_turn = None
        return last.take_transcript(final=True)
