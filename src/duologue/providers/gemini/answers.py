"""The replies of one connection, in a protocol that does not number them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from duologue.audio import AudioFrame
from duologue.providers.spoken import same_words
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
)

type Status = Literal["completed", "cancelled", "failed"]

_LATE_S = 0.2
"""Words that come after so much loud sound of the person's are not late: it may be answered."""
_STOPPED_S = 0.25
"""Seconds of input audio after the server was interrupted; words after that are not late, but
belong to a reply to that audio."""
_PAUSE_S = 0.1
"""Seconds of silence before which the user turn is not over, and so has no reply."""
_LOUD = 600
"""Samples above this (-35 dB) are no silence."""
_MOST_EARLY = 4096
"""Characters that are kept of a reply of which only words have come; the rest is dropped."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn ended that is not whole: Google's reason, and a line about it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A reply that was asked for; ``wanted`` is the text that it is to say, if it is scripted."""

    request_id: str
    wanted: str | None = None


@dataclass(slots=True, eq=False)
class Answer:
    """One reply."""

    id: str
    item_id: str
    asked: Asked | None
    text: str = ""
    rest: bytes = b""
    """Half a sample that the last piece of sound ended with."""
    generated: bool = False
    """All its sound has come."""
    cancelled: bool = False
    cut: bool = False
    """What was heard of it is known."""

    @property
    def wanted(self) -> str | None:
        """The text that it is to say, if it is scripted."""
        return None if self.asked is None else self.asked.wanted

    @property
    def says_what_was_wanted(self) -> bool:
        """Nothing is missing in it, and nothing is wrong."""
        return self.wanted is None or same_words(self.wanted, self.text)


class Answers:
    """Finds where replies begin and end.

    The server's turn goes from the first content to ``turnComplete``, which it holds back until the
    sound would have been played. A reply has ended before that, with ``generationComplete`` or with
    a call of a tool. What we send in a turn that is not complete interrupts it, and is answered by
    an ``interrupted`` that is nobody's barge-in.

    The words of a reply come beside it, in no order that Google promises. While no turn is open
    they begin none: they are the last of the reply that has ended, until another one is due (it was
    asked for, a tool has its result, the person was heard, or was loud and paused). Then they
    wait for the first audio of that reply.

    ``transcribed``: the model's words come. Where they do not, scripted text is taken to be said as
    it was wanted.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_cancelled",
        "_early",
        "_ended",
        "_heard",
        "_own_interrupt",
        "_passed_s",
        "_quiet",
        "_silent_s",
        "_stopped",
        "_stopped_s",
        "current",
        "goes_on",
        "transcribed",
        "turn_open",
    )

    def __init__(self, *, transcribed: bool = True) -> None:
        self.transcribed = transcribed
        self.current: Answer | None = None
        self._ended: Answer | None = None
        """The last reply that has ended: words that come now are still its own."""
        self._early = ""
        """Words of a reply that has not begun."""
        self._answered = False
        """A tool has its result, and no reply has begun since."""
        self._heard = False
        """The person has said something since the reply began or was interrupted."""
        self._passed_s = 0.0
        """Loud sound of the person's that was sent since the last turn ended, in seconds."""
        self._stopped_s: float | None = None
        """Seconds of input audio since the person interrupted the server."""
        self._silent_s = 0.0
        """Seconds of input audio since its last loud part."""
        self._cancelled: Answer | None = None
        self._asked: Asked | None = None
        self._own_interrupt = False
        self._stopped = False
        """The turn was interrupted; only its ``turnComplete`` is still to come."""
        self._quiet = True
        """Nothing was said in this turn so far."""
        self.turn_open = False
        """The server's turn has begun, and is not complete."""
        self.goes_on = False
        """The turn is complete, and the server has said that another one follows."""

    @property
    def busy(self) -> bool:
        """The model has the word, or is about to take it: what is sent now may interrupt it."""
        return self.turn_open or self.goes_on or self._asked is not None

    def ask(self, asked: Asked) -> None:
        """A reply is being asked for."""
        self._asked = asked

    def heard(self) -> None:
        """Words of the person have come."""
        self._heard = True

    def sent_sound(self, frame: AudioFrame) -> None:
        """More sound of the person's was sent."""
        if self._stopped_s is not None:
            self._stopped_s += frame.duration
        if self.turn_open or not len(frame):
            return
        if frame.samples.max() > _LOUD:
            self._passed_s += frame.duration
            self._silent_s = 0.0
        else:
            self._silent_s += frame.duration

    def sent_context(self) -> None:
        """Something was sent that interrupts the turn."""
        self._own_interrupt = self._own_interrupt or self.turn_open

    def content(self) -> tuple[Answer, Sequence[Output]]:
        """Something of a reply has come: which one it is, and what it begins with."""
        self.turn_open = True
        self.goes_on = self._stopped = self._quiet = False
        if self.current is not None:
            return self.current, ()
        asked, self._asked = self._asked, None
        self._own_interrupt = False
        self._ended = None
        self._answered = self._heard = False
        self._stopped_s = None
        answer = self.current = Answer(uuid4().hex, uuid4().hex, asked)
        begun: list[Output] = [ReplyStarted(answer.id, None if asked is None else asked.request_id)]
        if not self.transcribed and answer.wanted is not None:
            answer.text = answer.wanted
            begun.append(ReplyText(answer.id, answer.item_id, answer.text))
        early, self._early = self._early, ""
        if early:
            answer.text += early
            begun.append(ReplyText(answer.id, answer.item_id, early))
        return answer, begun

    def words(self, text: str) -> tuple[Answer | None, Sequence[Output]]:
        """Words of a reply; after its end they are still its own, while nothing else has come.

        None for those that wait for their reply, and for blanks between two turns.
        """
        begun: Sequence[Output] = ()
        between = self.current is None and not self.turn_open
        if between and not text.strip():
            return None, ()
        due = self._asked is not None or self._answered or self._heard
        spoke = self._passed_s > _LATE_S and self._silent_s >= _PAUSE_S - 1e-9
        heard = spoke or (self._stopped_s or 0.0) > _STOPPED_S
        awaited = between and (due or heard)
        if self.current is None and self._ended is not None and not awaited:
            answer = self._ended
        elif between:
            self._early = (self._early + text)[:_MOST_EARLY]
            return None, ()
        else:
            answer, begun = self.content()
        answer.text += text
        if answer.cancelled:
            return answer, begun
        told = ReplyText(answer.id, answer.item_id, text)
        if answer is self.current and answer.generated and answer.says_what_was_wanted:
            return answer, (*begun, told, *self._end(answer))
        return answer, (*begun, told)

    def cancel(self, reply_id: str) -> None:
        """Nobody wants the rest of it."""
        if self.current is not None and self.current.id == reply_id:
            self.current.cancelled = True
            self._cancelled = self.current

    def cut(self, item_id: str) -> None:
        """What was heard of that message is known."""
        if self._cancelled is not None and self._cancelled.item_id == item_id:
            self._cancelled.cut = True

    def unheard(self) -> Sequence[str]:
        """The message of a cancelled reply that has ended, of which nobody has heard anything."""
        answer = self._cancelled
        if answer is None or answer is self.current:
            return ()
        self._cancelled = None
        return () if answer.cut else (answer.item_id,)

    def called(self, *, waits: bool) -> Sequence[Output]:
        """A tool is called: what follows is a reply of its own.

        While the model ``waits`` for results, nothing follows but words that are late.
        """
        answer = self.current
        if answer is None:
            return ()
        done = self._end(answer)
        if not waits:
            self._ended = None
        return done

    def answered(self) -> None:
        """A tool has its result: what comes now is of the next reply."""
        self._ended = None
        self._answered = True

    def generated(self) -> Sequence[Output]:
        """``generationComplete``: all sound of the reply has come."""
        answer = self.current
        if answer is None:
            return ()
        answer.generated = True
        if not answer.says_what_was_wanted and not answer.cancelled:
            return ()  # Its last words may still be on their way.
        return self._end(answer)

    def interrupted(self) -> Sequence[Output]:
        """``interrupted``: the server has given the rest of its turn up."""
        own, self._own_interrupt = self._own_interrupt, False
        stopped, self._stopped = self._stopped, True
        answer = self.current or (self._ended if self.turn_open else None)
        outputs: list[Output] = []
        if not own and not stopped:
            outputs.append(ReplyInterrupted(None if answer is None else answer.id))
            self._stopped_s = 0.0
        if self.current is not None:
            # After ``generationComplete`` no audio is missing: all of it may be played.
            status: Literal["completed", "cancelled"] = "cancelled"
            if self.current.generated:
                status = "completed"
            outputs.append(ReplyDone(self.current.id, status))
        elif self._asked is not None and not own:
            outputs += self._empty("cancelled")
        self.current, self._ended = None, answer or self._ended
        self.goes_on = self._heard = False
        return outputs

    def completed(self, failure: Failure | None, *, goes_on: bool = False) -> Sequence[Output]:
        """``turnComplete``: the next content is of the next turn.

        ``failure`` if it went wrong; ``goes_on``: the server says that there will be one.
        """
        own, self._own_interrupt = self._own_interrupt, False
        stopped, self._stopped = self._stopped, False
        quiet, self._quiet = self._quiet, True
        begun: Sequence[Output] = ()
        if self._early and quiet and not (own or stopped):
            _, begun = self.content()  # All of the turn was words.
            self._quiet = True
        answer, self.current = self.current, None
        self._ended = answer or self._ended
        self.turn_open, self.goes_on, self._passed_s = False, goes_on, 0.0
        if answer is not None:
            return (*begun, *_over(answer, failure))
        if own or stopped:
            return ()
        if failure is not None and not quiet:
            # It has been said already, all the same: not in silence.
            return (ProviderError(ErrorKind.RETRY, failure.code, failure.message),)
        if quiet and (failure is not None or not goes_on):
            # The model has decided to say nothing; whoever waits for it is to know.
            return self._empty("failed" if failure else "completed", failure)
        return ()

    def _end(self, answer: Answer) -> Sequence[Output]:
        self.current, self._ended = None, answer
        return (ReplyDone(answer.id, "cancelled" if answer.cancelled else "completed"),)

    def _empty(self, status: Status, failure: Failure | None = None) -> Sequence[Output]:
        asked, self._asked = self._asked, None
        reply_id = uuid4().hex
        started = ReplyStarted(reply_id, None if asked is None else asked.request_id)
        message = None if failure is None else failure.message
        return (started, ReplyDone(reply_id, status, message))


def _over(answer: Answer, failure: Failure | None) -> Sequence[Output]:
    """The end of a reply that had not ended before its turn."""
    if answer.cancelled:
        return (ReplyDone(answer.id, "cancelled"),)
    if failure is not None:
        return (ReplyDone(answer.id, "failed", failure.message),)
    done = ReplyDone(answer.id)
    if answer.wanted is None or answer.says_what_was_wanted:
        return (done,)
    return (SayMismatch(answer.id, answer.wanted, answer.text.strip()), done)
