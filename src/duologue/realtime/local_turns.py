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
from duologue.pipeline.parts import VAD
from duologue.pipeline.turn_taking import Endpointing, Step, TurnTaking
from duologue.pipeline.voice_meter import VoiceMeter
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded

type TurnSignal = SpeechStarted | SpeechStopped | UserTranscript | UserTurnEnded

SIGNALS = Endpointing(speculate_s=0.06, vote_s=0.3, timeout_s=60.0)
"""Speech has stopped after 0.3 s without any."""

ANSWER_S = 3.0
"""A turn is over after so many seconds of silence, though nothing answers it yet."""
WORDS_S = 8.0
"""And after so many when it has no words: then it was no speech. Nova Sonic waits 2 s for the end
of a turn, and then makes its words."""

LATE_S = 3.0
"""Words may come so many seconds after the end of their turn, though another has begun; a turn that
has none by then is taken to have none."""
BURST_S = 0.25
"""Words that come within so many seconds of others, while these are late, belong with them."""

SHORT_S = 0.4
"""Seconds; a shorter turn is likely to have no words."""

_MOST_PIECES = 64
"""Pieces of words whose turn is remembered, since more of them may come."""


@dataclass(slots=True, eq=False)
class _Turn:
    item_id: str
    pieces: dict[str, str] = field(default_factory=dict)
    older: str = ""
    """Words of earlier pieces, which are not kept one by one."""
    told: str = ""
    """The words that were told last."""
    kept: str = ""
    """Words from an earlier connection, used if no others come."""
    final: bool = False
    """And they were told to be all."""
    begin: int | None = None
    end: int | None = None
    """Positions; None where it is not known."""
    stopped: float | None = None
    """When the speech ended, in s."""
    silent: float | None = None
    """Since when nothing was heard of it, neither its sound nor its first words."""
    over: float = 0.0
    """When the whole turn was over, in s."""

    @property
    def text(self) -> str:
        """All its words so far; pieces bring their own spaces."""
        return (self.older + "".join(self.pieces.values())).strip()

    def take(self, piece_id: str, text: str) -> None:
        """Add a piece, or replace a piece that is still kept by a longer one."""
        self.pieces[piece_id] = text
        while len(self.pieces) > _MOST_PIECES:
            self.older += self.pieces.pop(next(iter(self.pieces)))

    def words(self, *, final: bool) -> Sequence[UserTranscript]:
        """Its words, if that is news."""
        text = self.text or (self.kept if final else "")
        if not text or (text == self.told and (self.final or not final)):
            return ()
        self.told, self.final = text, final
        return (UserTranscript(self.item_id, text, final),)

    def no_words(self) -> Sequence[UserTranscript]:
        """It has none, if none have come: so nothing that was kept for them is needed."""
        if self.text or self.final:
            return ()
        if self.kept:
            return self.words(final=True)
        self.final = True
        return (UserTranscript(self.item_id, "", final=True),)

    def is_short(self, rate: int) -> bool:
        """Return whether the turn is so short that it is likely to have no words."""
        if self.begin is None or self.end is None:
            return False
        return self.end - self.begin < SHORT_S * rate

    def begin_again(self) -> None:
        """Reset the turn, because it will be replayed to another connection from its beginning."""
        self.kept = self.text or self.kept
        self.pieces.clear()
        self.older = ""
        self.told, self.final = "", False


class LocalTurns:
    """Signals of one session's turns; ``rate`` is Hz of the sound that the model is sent.

    Positions are samples of the whole session's sound. A turn of which voice activity missed the
    beginning has words and an end, and no `SpeechStarted`.
    """

    __slots__ = (
        "_echoes",
        "_homes",
        "_last",
        "_late",
        "_late_at",
        "_now",
        "_rate",
        "_replying",
        "_seconds",
        "_taking",
        "_turn",
        "_without_words",
        "manual",
        "voice",
    )

    def __init__(self, vad: VAD, rate: int, config: Endpointing = SIGNALS) -> None:
        self.manual = False
        """The program ends turns: with words, none is over only because it is silent."""
        self._rate = rate
        self.voice = VoiceMeter(vad, rate)
        self._seconds = vad.frame_samples / vad.rate
        self._taking = TurnTaking(config)
        self._turn: _Turn | None = None
        self._last: _Turn | None = None
        self._homes: dict[str, _Turn] = {}
        self._echoes: list[_Turn] = []
        self._without_words: list[_Turn] = []
        """Turns before the last one that have no words yet; late words may belong to them."""
        self._late: _Turn | None = None
        """The turn that the latest late words belonged to."""
        self._late_at = float("-inf")
        self._now = float("-inf")
        self._replying = False

    @property
    def echoes(self) -> Sequence[str]:
        """Turns that were answered, and that the model hears again for their words only."""
        return [turn.item_id for turn in self._echoes]

    def hear(self, samples: Samples, position: int, now: float) -> Sequence[TurnSignal]:
        """The next sound of the person, which ends ``now`` (s) and at ``position``."""
        self._now = now
        told: list[TurnSignal] = []
        while self._without_words and now - self._without_words[0].over > LATE_S:
            told += self._without_words.pop(0).no_words()
        if self._last is not None and now - self._last.over > LATE_S:
            told += self._last.no_words()
        for activity, at in self.voice.hear(samples, now):
            for step in self._taking.push(activity, self._seconds, at):
                told += self._step(step, position, now)
        turn = self._turn
        if turn is not None and turn.silent is not None:
            words = bool(turn.text or turn.kept)
            held = words and self.manual
            if not held and now - turn.silent >= (ANSWER_S if words else WORDS_S):
                told += self._over(reply_follows=words, empty=not words)
        return told

    def take(self, signal: TurnSignal, now: float) -> Sequence[TurnSignal]:
        """Something that the model told of the person: words of theirs, or that a turn is over."""
        match signal:
            case UserTranscript(item_id=piece_id, text=text):
                return self._worded(piece_id, text, now)
            case UserTurnEnded(reply_follows=reply_follows):
                return self._over(reply_follows=reply_follows)
            case SpeechStarted() | SpeechStopped():
                return (signal,)

    def reply_began(self, *, asked: bool) -> Sequence[TurnSignal]:
        """The model begins to speak; ``asked`` when something else than the person made it."""
        self._replying = True
        if asked:
            return ()
        if self._echoes:
            before = self._leave_last()
            turn = self._last = self._echoes.pop(0)
            turn.over = self._now
            self._homes.clear()
            words = turn.words(final=True) if turn.text else ()
            return (*before, *words, UserTurnEnded(turn.item_id))
        turn_ = self._turn
        if turn_ is None or (self._taking.speaking and not turn_.text):
            return ()
        return self._over(reply_follows=True)

    def reply_done(self) -> Sequence[TurnSignal]:
        """A reply has ended: the turn that it answered has all its words now."""
        self._replying = False
        return self._settle()

    def end_turn(self, *, reply_follows: bool) -> Sequence[TurnSignal]:
        """The program has ended the turn."""
        if self._turn is None:
            self._turn = _Turn(uuid4().hex)
        return self._over(reply_follows=reply_follows)

    def lost(self, unanswered: Sequence[str], answered: Sequence[str]) -> str | None:
        """The connection is gone, and the words of these turns with it: the next will tell them.

        It will also answer them, the ``answered`` ones once more. Returns the turn that is under
        way, if there is one.
        """
        last, self._last = self._last, None
        turns = [*self._without_words, *self._echoes, *filter(None, (last, self._turn))]
        for turn in turns:
            turn.begin_again()
        known = {turn.item_id: turn for turn in turns}
        if self._turn is None and last is not None and last.item_id in unanswered:
            self._turn = last
        # Turns that were just answered come before those that already wait for their words.
        again = dict.fromkeys([*answered, *self.echoes])
        self._echoes = [known.get(item_id) or _Turn(item_id) for item_id in again]
        self._without_words.clear()
        self._homes.clear()
        self._late = None
        self._replying = False
        return None if self._turn is None else self._turn.item_id

    @property
    def begin(self) -> int | None:
        """Where the turn that is under way began."""
        return None if self._turn is None else self._turn.begin

    def _step(self, step: Step, position: int, now: float) -> Sequence[TurnSignal]:
        taking, turn = self._taking, self._turn
        match step:
            case Step.STARTED:
                settled = self._settle()
                turn = turn or _Turn(uuid4().hex)
                self._turn = turn
                turn.silent = None
                if turn.begin is None:
                    turn.begin = position - round((now - taking.speech_start) * self._rate)
                return (*settled, SpeechStarted(turn.item_id, taking.speech_start, turn.begin))
            case Step.RESUMED if turn is not None:
                turn.end = turn.stopped = turn.silent = None
                return (SpeechStarted(turn.item_id, None, turn.begin),)
            case Step.VOTE if turn is not None:
                turn.stopped = turn.silent = taking.speech_end
                turn.end = position - round((now - taking.speech_end) * self._rate)
                return (SpeechStopped(turn.item_id, turn.stopped, turn.end),)
            case _:
                return ()

    def _worded(self, piece_id: str, text: str, now: float) -> Sequence[TurnSignal]:
        home = self._homes.get(piece_id)
        ended: Sequence[TurnSignal] = ()
        if home is None:
            home = self._home(now)
            if home is None:
                home = _Turn(uuid4().hex)
                if self._replying:
                    # The answer to it is running already.
                    self._last = home
                    home.over = now
                    ended = (UserTurnEnded(home.item_id, reply_follows=False),)
                else:
                    self._turn = home
                    home.silent = now
            self._homes[piece_id] = home
            if len(self._homes) > _MOST_PIECES:
                del self._homes[next(iter(self._homes))]
        if home is self._last or home in self._without_words:
            self._late, self._late_at = home, now
        home.take(piece_id, text)
        # Once it was answered to the end, nothing comes any more that would make them final.
        over = home in self._without_words or (home is self._last and not self._replying)
        return (*home.words(final=over), *ended)

    def _home(self, now: float) -> _Turn | None:
        """The turn that words belong to which have come now."""
        if self._late is not None and now - self._late_at <= BURST_S:
            return self._late
        last = self._last
        # The person speaks again before the words of the earlier turn have come: those come first.
        waiting = list(self._without_words) if last is None else [*self._without_words, last]
        waiting = [one for one in waiting if not one.text and now - one.over <= LATE_S]
        # Of several turns, prefer the last, unless it is so short that it may be a cough.
        waiting.sort(key=lambda one: (one.is_short(self._rate), one is not last))
        if waiting:
            return waiting[0]
        return self._echoes[0] if self._echoes else self._turn or last

    def _over(self, *, reply_follows: bool, empty: bool = False) -> Sequence[TurnSignal]:
        turn, self._turn = self._turn, None
        self._taking.end()
        if turn is None:
            return ()
        before = self._leave_last()
        self._last = None if empty else turn
        turn.over = self._now
        self._late = None
        ended = UserTurnEnded(turn.item_id, turn.stopped, reply_follows, empty, turn.end)
        return (*before, *turn.words(final=True), ended)

    def _leave_last(self) -> Sequence[UserTranscript]:
        """Make room for another last turn; keep the old one while its words may still come."""
        last, self._last = self._last, None
        if last is None or last.final:
            return ()
        if last.text:
            return last.words(final=True)
        self._without_words.append(last)
        return ()

    def _settle(self) -> Sequence[TurnSignal]:
        """Words that came after the end of the last turn are all of them, if any came."""
        last = self._last
        if last is None or not last.text:
            return ()
        if not self._replying:
            self._last = None
        return last.words(final=True)
