"""The replies of one connection, in a protocol that does not number them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.providers._verbatim import same_words
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
)

type ReplyStatus = Literal["completed", "cancelled", "failed"]

_MIN_LOUD_S = 0.2
"""Words that come after so much loud sound of the person's are not late: it may be answered."""
_MIN_AFTER_INTERRUPT_S = 0.25
"""Seconds of input audio after the server was interrupted; words after that are not late, but
belong to a reply to that audio."""
_MIN_PAUSE_S = 0.1
"""Seconds of silence before which the user turn is not over, and so has no reply."""
_LOUD_LEVEL = 600
"""Samples above this (-35 dB) are no silence."""
_MAX_EARLY_CHARACTERS = 4096
"""Characters that are kept of a reply of which only words have come; the rest is dropped."""


@dataclass(frozen=True, slots=True)
class TurnFailure:
    """Why a turn ended that is not whole: Google's reason, and a line about it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """A reply that was asked for; ``wanted`` is the text that it is to say, if it is scripted."""

    request_id: str
    scripted_text: str | None = None


@dataclass(slots=True, eq=False)
class TrackedReply:
    """One reply."""

    id: str
    item_id: str
    request: ReplyRequest | None
    text: str = ""
    half_sample: bytes = b""
    """Half a sample that the last piece of sound ended with."""
    audio_complete: bool = False
    """All its sound has come."""
    cancelled: bool = False
    truncated: bool = False
    """What was heard of it is known."""

    @property
    def scripted_text(self) -> str | None:
        """The text that it is to say, if it is scripted."""
        return None if self.request is None else self.request.scripted_text

    @property
    def matches_script(self) -> bool:
        """Nothing is missing in it, and nothing is wrong."""
        return self.scripted_text is None or same_words(self.scripted_text, self.text)


class ReplyTracker:
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
        "_cancelled_reply",
        "_early_text",
        "_ended_reply",
        "_loud_s",
        "_own_interrupt_sent",
        "_request",
        "_silence_s",
        "_since_interrupt_s",
        "_tool_result_sent",
        "_turn_is_empty",
        "_turn_was_interrupted",
        "_user_transcribed",
        "current",
        "has_transcript",
        "turn_follows",
        "turn_open",
    )

    def __init__(self, *, has_transcript: bool = True) -> None:
        self.has_transcript = has_transcript
        self.current: TrackedReply | None = None
        self._ended_reply: TrackedReply | None = None
        """The last reply that has ended: words that come now are still its own."""
        self._early_text = ""
        """Words of a reply that has not begun."""
        self._tool_result_sent = False
        """A tool has its result, and no reply has begun since."""
        self._user_transcribed = False
        """The person has said something since the reply began or was interrupted."""
        self._loud_s = 0.0
        """Loud sound of the person's that was sent since the last turn ended, in seconds."""
        self._since_interrupt_s: float | None = None
        """Seconds of input audio since the person interrupted the server."""
        self._silence_s = 0.0
        """Seconds of input audio since its last loud part."""
        self._cancelled_reply: TrackedReply | None = None
        self._request: ReplyRequest | None = None
        self._own_interrupt_sent = False
        self._turn_was_interrupted = False
        """The turn was interrupted; only its ``turnComplete`` is still to come."""
        self._turn_is_empty = True
        """Nothing was said in this turn so far."""
        self.turn_open = False
        """The server's turn has begun, and is not complete."""
        self.turn_follows = False
        """The turn is complete, and the server has said that another one follows."""

    @property
    def model_has_turn(self) -> bool:
        """The model has the word, or is about to take it: what is sent now may interrupt it."""
        return self.turn_open or self.turn_follows or self._request is not None

    def expect_reply(self, asked: ReplyRequest) -> None:
        """A reply is being asked for."""
        self._request = asked

    def user_transcribed(self) -> None:
        """Words of the person have come."""
        self._user_transcribed = True

    def audio_sent(self, frame: AudioFrame) -> None:
        """More sound of the person's was sent."""
        if self._since_interrupt_s is not None:
            self._since_interrupt_s += frame.duration
        if self.turn_open or not len(frame):
            return
        if frame.samples.max() > _LOUD_LEVEL:
            self._loud_s += frame.duration
            self._silence_s = 0.0
        else:
            self._silence_s += frame.duration

    def context_sent(self) -> None:
        """Something was sent that interrupts the turn."""
        self._own_interrupt_sent = self._own_interrupt_sent or self.turn_open

    def content_received(self) -> tuple[TrackedReply, Sequence[Output]]:
        """Something of a reply has come: which one it is, and what it begins with."""
        self.turn_open = True
        self.turn_follows = self._turn_was_interrupted = self._turn_is_empty = False
        if self.current is not None:
            return self.current, ()
        asked, self._request = self._request, None
        self._own_interrupt_sent = False
        self._ended_reply = None
        self._tool_result_sent = self._user_transcribed = False
        self._since_interrupt_s = None
        answer = self.current = TrackedReply(uuid4().hex, uuid4().hex, asked)
        begun: list[Output] = [ReplyStarted(answer.id, None if asked is None else asked.request_id)]
        if not self.has_transcript and answer.scripted_text is not None:
            answer.text = answer.scripted_text
            begun.append(ReplyText(answer.id, answer.item_id, answer.text))
        early, self._early_text = self._early_text, ""
        if early:
            answer.text += early
            begun.append(ReplyText(answer.id, answer.item_id, early))
        return answer, begun

    def text_received(self, text: str) -> tuple[TrackedReply | None, Sequence[Output]]:
        """Words of a reply; after its end they are still its own, while nothing else has come.

        None for those that wait for their reply, and for blanks between two turns.
        """
        begun: Sequence[Output] = ()
        between = self.current is None and not self.turn_open
        if between and not text.strip():
            return None, ()
        due = self._request is not None or self._tool_result_sent or self._user_transcribed
        spoke = self._loud_s > _MIN_LOUD_S and self._silence_s >= _MIN_PAUSE_S - 1e-9
        heard = spoke or (self._since_interrupt_s or 0.0) > _MIN_AFTER_INTERRUPT_S
        awaited = between and (due or heard)
        if self.current is None and self._ended_reply is not None and not awaited:
            answer = self._ended_reply
        elif between:
            self._early_text = (self._early_text + text)[:_MAX_EARLY_CHARACTERS]
            return None, ()
        else:
            answer, begun = self.content_received()
        answer.text += text
        if answer.cancelled:
            return answer, begun
        told = ReplyText(answer.id, answer.item_id, text)
        if answer is self.current and answer.audio_complete and answer.matches_script:
            return answer, (*begun, told, *self._finish(answer))
        return answer, (*begun, told)

    def cancel(self, reply_id: str) -> None:
        """Nobody wants the rest of it."""
        if self.current is not None and self.current.id == reply_id:
            self.current.cancelled = True
            self._cancelled_reply = self.current

    def mark_truncated(self, item_id: str) -> None:
        """What was heard of that message is known."""
        if self._cancelled_reply is not None and self._cancelled_reply.item_id == item_id:
            self._cancelled_reply.truncated = True

    def take_unheard(self) -> Sequence[str]:
        """The message of a cancelled reply that has ended, of which nobody has heard anything."""
        answer = self._cancelled_reply
        if answer is None or answer is self.current:
            return ()
        self._cancelled_reply = None
        return () if answer.truncated else (answer.item_id,)

    def tool_called(self, *, model_waits: bool) -> Sequence[Output]:
        """A tool is called: what follows is a reply of its own.

        While the model ``waits`` for results, nothing follows but words that are late.
        """
        answer = self.current
        if answer is None:
            return ()
        done = self._finish(answer)
        if not model_waits:
            self._ended_reply = None
        return done

    def tool_result_sent(self) -> None:
        """A tool has its result: what comes now is of the next reply."""
        self._ended_reply = None
        self._tool_result_sent = True

    def generation_completed(self) -> Sequence[Output]:
        """``generationComplete``: all sound of the reply has come."""
        answer = self.current
        if answer is None:
            return ()
        answer.audio_complete = True
        if not answer.matches_script and not answer.cancelled:
            return ()  # Its last words may still be on their way.
        return self._finish(answer)

    def turn_interrupted(self) -> Sequence[Output]:
        """``interrupted``: the server has given the rest of its turn up."""
        own, self._own_interrupt_sent = self._own_interrupt_sent, False
        stopped, self._turn_was_interrupted = self._turn_was_interrupted, True
        answer = self.current or (self._ended_reply if self.turn_open else None)
        outputs: list[Output] = []
        if not own and not stopped:
            outputs.append(ReplyInterrupted(None if answer is None else answer.id))
            self._since_interrupt_s = 0.0
        if self.current is not None:
            # After ``generationComplete`` no audio is missing: all of it may be played.
            status: Literal["completed", "cancelled"] = "cancelled"
            if self.current.audio_complete:
                status = "completed"
            outputs.append(ReplyDone(self.current.id, status))
        elif self._request is not None and not own:
            outputs += self._empty_reply("cancelled")
        self.current, self._ended_reply = None, answer or self._ended_reply
        self.turn_follows = self._user_transcribed = False
        return outputs

    def turn_completed(
        self, failure: TurnFailure | None, *, turn_follows: bool = False
    ) -> Sequence[Output]:
        """``turnComplete``: the next content is of the next turn.

        ``failure`` if it went wrong; ``goes_on``: the server says that there will be one.
        """
        own, self._own_interrupt_sent = self._own_interrupt_sent, False
        stopped, self._turn_was_interrupted = self._turn_was_interrupted, False
        quiet, self._turn_is_empty = self._turn_is_empty, True
        begun: Sequence[Output] = ()
        if self._early_text and quiet and not (own or stopped):
            _, begun = self.content_received()  # All of the turn was words.
            self._turn_is_empty = True
        answer, self.current = self.current, None
        self._ended_reply = answer or self._ended_reply
        self.turn_open, self.turn_follows, self._loud_s = False, turn_follows, 0.0
        if answer is not None:
            return (*begun, *_finish_with_turn(answer, failure))
        if own or stopped:
            return ()
        if failure is not None and not quiet:
            # It has been said already, all the same: not in silence.
            return (ProviderError(ErrorKind.RETRY, failure.code, failure.message),)
        if quiet and (failure is not None or not turn_follows):
            # The model has decided to say nothing; whoever waits for it is to know.
            return self._empty_reply("failed" if failure else "completed", failure)
        return ()

    def _finish(self, answer: TrackedReply) -> Sequence[Output]:
        self.current, self._ended_reply = None, answer
        return (ReplyDone(answer.id, "cancelled" if answer.cancelled else "completed"),)

    def _empty_reply(
        self, status: ReplyStatus, failure: TurnFailure | None = None
    ) -> Sequence[Output]:
        asked, self._request = self._request, None
        reply_id = uuid4().hex
        started = ReplyStarted(reply_id, None if asked is None else asked.request_id)
        message = None if failure is None else failure.message
        return (started, ReplyDone(reply_id, status, message))


def _finish_with_turn(answer: TrackedReply, failure: TurnFailure | None) -> Sequence[Output]:
    """The end of a reply that had not ended before its turn."""
    if answer.cancelled:
        return (ReplyDone(answer.id, "cancelled"),)
    if failure is not None:
        return (ReplyDone(answer.id, "failed", failure.message),)
    done = ReplyDone(answer.id)
    if answer.scripted_text is None or answer.matches_script:
        return (done,)
    return (SayMismatch(answer.id, answer.scripted_text, answer.text.strip()), done)
