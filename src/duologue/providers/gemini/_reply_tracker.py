"""Track the replies of one connection, in a protocol that does not number them."""

# Gemini's messages carry no reply id, and their order is not promised. What one turn of the server
# looks like, and where replies begin and end in it:
#
#   server   modelTurn ... outputTranscription ... generationComplete ......... turnComplete
#   reply    |<------------ one reply ------------------->|  late text          |
#                                                            |<- audio plays ->|
#
# - The server's turn ends with `turnComplete`, which the server delays until the audio would have
#   been played. The reply ends earlier: with `generationComplete`, or with a tool call, after which
#   the model's words are a reply of their own.
# - Text (`outputTranscription`) comes beside the audio: before it, during it, or after the end of
#   the reply, even after `turnComplete`. Late text is added to the reply that ended last. It must
#   not begin a reply, because a reply without audio would block the session until the next turn.
# - Early text of the next reply looks the same. It is taken for that once another reply is due: one
#   was requested, a tool result was sent, the user was transcribed, or the input audio was loud for
#   `_MIN_LOUD_S` and then silent for `_MIN_PAUSE_S`. It then waits for the first audio.
# - Everything we send in an open turn (text, results with INTERRUPT, the start of a manual turn)
#   makes the server drop the rest and report `interrupted`, exactly as for a person's barge-in.
#   `context_sent` notes it, so that only other interruptions are reported as barge-in.
# - A turn without content is reported as an empty reply: the model chose not to speak, and a
#   request would otherwise wait for ever. Unless the server announces another turn.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from duologue.audio import AudioFrame, PcmDecoder
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
"""Seconds of loud input audio after which text may belong to a reply to it."""
_MIN_AFTER_INTERRUPT_S = 0.25
"""Seconds of input audio after the user interrupted the model, after which text belongs to a reply
to that audio and no longer to the interrupted reply.
"""
_MIN_PAUSE_S = 0.1
"""Seconds of silence after which the user turn may be over; before that it has no reply."""
_LOUD_LEVEL = 600
"""Sample values above this (-35 dB of full scale) are not silence."""
_MAX_EARLY_CHARACTERS = 4096
"""Characters kept of a reply while only its text has arrived; the rest is dropped."""


@dataclass(frozen=True, slots=True)
class TurnFailure:
    """Why the server ended a turn early: Google's reason, and a sentence about it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """A requested reply; ``scripted_text`` is set if the model is to say exactly that."""

    request_id: str
    scripted_text: str | None = None


@dataclass(slots=True, eq=False)
class TrackedReply:
    """One reply of the model."""

    id: str
    item_id: str
    request: ReplyRequest | None
    text: str = ""
    pcm_decoder: PcmDecoder = field(default_factory=PcmDecoder)
    audio_complete: bool = False
    """Whether all of its audio has arrived."""
    cancelled: bool = False
    truncated: bool = False
    """Whether the session has recorded how much of it the person heard."""

    @property
    def scripted_text(self) -> str | None:
        """The text that the model is to say, if the reply is scripted."""
        return None if self.request is None else self.request.scripted_text

    @property
    def matches_script(self) -> bool:
        """Whether the model said the scripted text completely and without changes."""
        return self.scripted_text is None or same_words(self.scripted_text, self.text)


class ReplyTracker:
    """Decides to which reply each message of the server belongs (see the comment at the top).

    Args:
        has_transcript: The server sends the text of replies. If not, a scripted reply is assumed to
            say exactly its text.
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
        """The reply that ended last; late text is still added to it."""
        self._early_text = ""
        """Text of a reply that has not begun."""
        self._tool_result_sent = False
        """A tool result was sent, and no reply has begun since."""
        self._user_transcribed = False
        """The user was transcribed since the reply began or was interrupted."""
        self._loud_s = 0.0
        """Seconds of loud input audio that were sent since the last turn ended."""
        self._since_interrupt_s: float | None = None
        """Seconds of input audio that were sent since the user interrupted the model."""
        self._silence_s = 0.0
        """Seconds of input audio since its last loud part."""
        self._cancelled_reply: TrackedReply | None = None
        self._request: ReplyRequest | None = None
        self._own_interrupt_sent = False
        self._turn_was_interrupted = False
        """The server's turn was interrupted; only its ``turnComplete`` is still to come."""
        self._turn_is_empty = True
        """The server's turn has no content so far."""
        self.turn_open = False
        """The server's turn has begun and is not complete."""
        self.turn_follows = False
        """The turn is complete, and the server has announced another one."""

    @property
    def model_has_turn(self) -> bool:
        """Whether the model speaks or is about to, so that sending anything may interrupt it."""
        return self.turn_open or self.turn_follows or self._request is not None

    def expect_reply(self, request: ReplyRequest) -> None:
        """Expect the reply to ``request``, which is being sent."""
        self._request = request

    def user_transcribed(self) -> None:
        """Record that the server transcribed speech of the user."""
        self._user_transcribed = True

    def audio_sent(self, frame: AudioFrame) -> None:
        """Measure a frame of input audio that was sent."""
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
        """Record that a message was sent which interrupts the server's turn."""
        self._own_interrupt_sent = self._own_interrupt_sent or self.turn_open

    def content_received(self) -> tuple[TrackedReply, Sequence[Output]]:
        """Return the reply that new content belongs to, and the outputs that begin it."""
        self.turn_open = True
        self.turn_follows = self._turn_was_interrupted = self._turn_is_empty = False
        if self.current is not None:
            return self.current, ()
        request, self._request = self._request, None
        self._own_interrupt_sent = False
        self._ended_reply = None
        self._tool_result_sent = self._user_transcribed = False
        self._since_interrupt_s = None
        reply = self.current = TrackedReply(uuid4().hex, uuid4().hex, request)
        request_id = None if request is None else request.request_id
        outputs: list[Output] = [ReplyStarted(reply.id, request_id)]
        if not self.has_transcript and reply.scripted_text is not None:
            reply.text = reply.scripted_text
            outputs.append(ReplyText(reply.id, reply.item_id, reply.text))
        early_text, self._early_text = self._early_text, ""
        if early_text:
            reply.text += early_text
            outputs.append(ReplyText(reply.id, reply.item_id, early_text))
        return reply, outputs

    def text_received(self, text: str) -> tuple[TrackedReply | None, Sequence[Output]]:
        """Add text to its reply; return that reply, and the outputs.

        Late text belongs to the reply that ended last, as long as no other reply is due. The reply
        is None for text that waits for its reply to begin, and for whitespace between two turns.
        """
        outputs: Sequence[Output] = ()
        between = self.current is None and not self.turn_open
        if between and not text.strip():
            return None, ()
        due = self._request is not None or self._tool_result_sent or self._user_transcribed
        spoke = self._loud_s > _MIN_LOUD_S and self._silence_s >= _MIN_PAUSE_S - 1e-9
        user_spoke = spoke or (self._since_interrupt_s or 0.0) > _MIN_AFTER_INTERRUPT_S
        awaited = between and (due or user_spoke)
        if self.current is None and self._ended_reply is not None and not awaited:
            reply = self._ended_reply
        elif between:
            self._early_text = (self._early_text + text)[:_MAX_EARLY_CHARACTERS]
            return None, ()
        else:
            reply, outputs = self.content_received()
        reply.text += text
        if reply.cancelled:
            return reply, outputs
        output = ReplyText(reply.id, reply.item_id, text)
        if reply is self.current and reply.audio_complete and reply.matches_script:
            return reply, (*outputs, output, *self._finish(reply))
        return reply, (*outputs, output)

    def cancel(self, reply_id: str) -> None:
        """Stop reporting the rest of the reply, because it is no longer wanted."""
        if self.current is not None and self.current.id == reply_id:
            self.current.cancelled = True
            self._cancelled_reply = self.current

    def mark_truncated(self, item_id: str) -> None:
        """Record that the session knows how much of the message was heard."""
        if self._cancelled_reply is not None and self._cancelled_reply.item_id == item_id:
            self._cancelled_reply.truncated = True

    def take_unheard(self) -> Sequence[str]:
        """Return the message of a cancelled reply that has ended unheard, once."""
        reply = self._cancelled_reply
        if reply is None or reply is self.current:
            return ()
        self._cancelled_reply = None
        return () if reply.truncated else (reply.item_id,)

    def tool_called(self, *, model_waits: bool) -> Sequence[Output]:
        """End the reply that called a tool; what follows is a reply of its own.

        While the model waits for results (``model_waits``), only late text can follow.
        """
        reply = self.current
        if reply is None:
            return ()
        done = self._finish(reply)
        if not model_waits:
            self._ended_reply = None
        return done

    def tool_result_sent(self) -> None:
        """Record that a tool result was sent, which the next reply answers."""
        self._ended_reply = None
        self._tool_result_sent = True

    def generation_completed(self) -> Sequence[Output]:
        """Handle ``generationComplete``: all audio of the reply has arrived."""
        reply = self.current
        if reply is None:
            return ()
        reply.audio_complete = True
        if not reply.matches_script and not reply.cancelled:
            return ()  # Its last text may still be on its way.
        return self._finish(reply)

    def turn_interrupted(self) -> Sequence[Output]:
        """Handle ``interrupted``: the server has dropped the rest of its turn."""
        own, self._own_interrupt_sent = self._own_interrupt_sent, False
        was_interrupted, self._turn_was_interrupted = self._turn_was_interrupted, True
        reply = self.current or (self._ended_reply if self.turn_open else None)
        outputs: list[Output] = []
        if not own and not was_interrupted:
            outputs.append(ReplyInterrupted(None if reply is None else reply.id))
            self._since_interrupt_s = 0.0
        if self.current is not None:
            # After ``generationComplete`` no audio is missing: all of it may be played.
            status: Literal["completed", "cancelled"] = "cancelled"
            if self.current.audio_complete:
                status = "completed"
            outputs.append(ReplyDone(self.current.id, status))
        elif self._request is not None and not own:
            outputs += self._empty_reply("cancelled")
        self.current, self._ended_reply = None, reply or self._ended_reply
        self.turn_follows = self._user_transcribed = False
        return outputs

    def turn_completed(
        self, failure: TurnFailure | None, *, turn_follows: bool = False
    ) -> Sequence[Output]:
        """Handle ``turnComplete``: the next content belongs to the next turn.

        Args:
            failure: Why the turn went wrong, if it did.
            turn_follows: The server has announced another turn.
        """
        own, self._own_interrupt_sent = self._own_interrupt_sent, False
        was_interrupted, self._turn_was_interrupted = self._turn_was_interrupted, False
        is_empty, self._turn_is_empty = self._turn_is_empty, True
        outputs: Sequence[Output] = ()
        if self._early_text and is_empty and not (own or was_interrupted):
            _, outputs = self.content_received()  # The turn consisted of text only.
            self._turn_is_empty = True
        reply, self.current = self.current, None
        self._ended_reply = reply or self._ended_reply
        self.turn_open, self.turn_follows, self._loud_s = False, turn_follows, 0.0
        if reply is not None:
            return (*outputs, *_finish_with_turn(reply, failure))
        if own or was_interrupted:
            return ()
        if failure is not None and not is_empty:
            # The reply was complete before the turn failed, so only report the failure.
            return (ProviderError(ErrorKind.RETRY, failure.code, failure.message),)
        if is_empty and (failure is not None or not turn_follows):
            # The model decided to say nothing; end a request with an empty reply.
            return self._empty_reply("failed" if failure else "completed", failure)
        return ()

    def _finish(self, reply: TrackedReply) -> Sequence[Output]:
        self.current, self._ended_reply = None, reply
        return (ReplyDone(reply.id, "cancelled" if reply.cancelled else "completed"),)

    def _empty_reply(
        self, status: ReplyStatus, failure: TurnFailure | None = None
    ) -> Sequence[Output]:
        request, self._request = self._request, None
        reply_id = uuid4().hex
        started = ReplyStarted(reply_id, None if request is None else request.request_id)
        message = None if failure is None else failure.message
        return (started, ReplyDone(reply_id, status, message))


def _finish_with_turn(reply: TrackedReply, failure: TurnFailure | None) -> Sequence[Output]:
    """End a reply that had not ended before its turn."""
    if reply.cancelled:
        return (ReplyDone(reply.id, "cancelled"),)
    if failure is not None:
        return (ReplyDone(reply.id, "failed", failure.message),)
    done = ReplyDone(reply.id)
    if reply.scripted_text is None or reply.matches_script:
        return (done,)
    return (SayMismatch(reply.id, reply.scripted_text, reply.text.strip()), done)
