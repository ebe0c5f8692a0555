"""The replies of one connection, in a protocol that does not number them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from duologue.providers.openai.spoken import same_words
from duologue.realtime.outputs import (
    Output,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
)

type Status = Literal["completed", "cancelled", "failed"]


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
    cancelled: bool = False
    cut: bool = False
    """What was heard of it is known."""


class Answers:
    """Finds where replies begin and end.

    The server's turn goes from the first content to ``turnComplete``, which it holds back until the
    sound would have been played. A reply has ended before that, with ``generationComplete`` or with
    a call of a tool. What we send in a turn that is not complete interrupts it, and is answered by
    an ``interrupted`` that is nobody's barge-in.
    """

    __slots__ = (
        "_asked",
        "_cancelled",
        "_ended",
        "_own_interrupt",
        "_quiet",
        "current",
        "turn_open",
    )

    def __init__(self) -> None:
        self.current: Answer | None = None
        self._ended: Answer | None = None
        self._cancelled: Answer | None = None
        self._asked: Asked | None = None
        self._own_interrupt = False
        self._quiet = True
        """Nothing was said in this turn so far."""
        self.turn_open = False
        """The server's turn has begun, and is not complete."""

    def ask(self, asked: Asked) -> None:
        """A reply is being asked for."""
        self._asked = asked

    def sent_context(self) -> None:
        """Something was sent that interrupts the turn."""
        self._own_interrupt = self._own_interrupt or self.turn_open

    def content(self) -> tuple[Answer, Sequence[Output]]:
        """Something of a reply has come: which one it is, and what it begins with."""
        self.turn_open = True
        self._quiet = False
        if self.current is not None:
            return self.current, ()
        asked, self._asked = self._asked, None
        self._own_interrupt = False
        answer = self.current = Answer(uuid4().hex, uuid4().hex, asked)
        return answer, (ReplyStarted(answer.id, None if asked is None else asked.request_id),)

    def words(self, text: str) -> tuple[Answer, Sequence[Output]]:
        """Words of a reply; after its end they are still its own, while nothing else has come."""
        if self.current is None and self._ended is not None and self.turn_open:
            answer = self._ended
            begun: Sequence[Output] = ()
        else:
            answer, begun = self.content()
        answer.text += text
        if answer.cancelled:
            return answer, begun
        return answer, (*begun, ReplyText(answer.id, answer.item_id, text))

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

    def called(self) -> Sequence[Output]:
        """A tool is called: what follows is a reply of its own."""
        answer, self.current = self.current, None
        self._ended = None
        if answer is None:
            return ()
        return (ReplyDone(answer.id, "cancelled" if answer.cancelled else "completed"),)

    def generated(self) -> Sequence[Output]:
        """``generationComplete``: all sound of the reply has come."""
        answer, self.current = self.current, None
        if answer is None:
            return ()
        self._ended = answer
        if answer.asked is not None and answer.asked.wanted is not None and not _said(answer):
            # Its last words may still be on their way.
            self.current, self._ended = answer, None
            return ()
        return (ReplyDone(answer.id, "cancelled" if answer.cancelled else "completed"),)

    def interrupted(self) -> Sequence[Output]:
        """``interrupted``: the server has given the rest of its turn up."""
        own, self._own_interrupt = self._own_interrupt, False
        answer = self.current or self._ended
        outputs: list[Output] = []
        if not own:
            outputs.append(ReplyInterrupted(None if answer is None else answer.id))
        if self.current is not None:
            outputs.append(ReplyDone(self.current.id, "cancelled"))
        elif self._asked is not None and not own:
            outputs += self._empty("cancelled")
        self.current = self._ended = None
        self._quiet = False
        return outputs

    def completed(self, failure: str | None) -> Sequence[Output]:
        """``turnComplete``: the next content is of the next turn; ``failure`` if it went wrong."""
        own, self._own_interrupt = self._own_interrupt, False
        answer, self.current = self.current, None
        quiet, self._quiet = self._quiet, True
        self._ended = None
        self.turn_open = False
        if answer is not None:
            return _over(answer, failure)
        if quiet and not own:
            # The model has decided to say nothing; whoever waits for it is to know.
            return self._empty("failed" if failure else "completed", failure)
        return ()

    def _empty(self, status: Status, message: str | None = None) -> Sequence[Output]:
        asked, self._asked = self._asked, None
        reply_id = uuid4().hex
        started = ReplyStarted(reply_id, None if asked is None else asked.request_id)
        return (started, ReplyDone(reply_id, status, message))


def _said(answer: Answer) -> bool:
    asked = answer.asked
    return asked is None or asked.wanted is None or same_words(asked.wanted, answer.text)


def _over(answer: Answer, failure: str | None) -> Sequence[Output]:
    """The end of a reply that had not ended before its turn."""
    asked = answer.asked
    if answer.cancelled:
        return (ReplyDone(answer.id, "cancelled"),)
    if failure is not None:
        return (ReplyDone(answer.id, "failed", failure),)
    done = ReplyDone(answer.id)
    if asked is None or asked.wanted is None or _said(answer):
        return (done,)
    return (SayMismatch(answer.id, asked.wanted, answer.text.strip()), done)
