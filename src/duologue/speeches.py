"""The model's replies as speeches at the person's ear, and both in the conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from duologue.carried import Carried
from duologue.clock import Clock
from duologue.conversation import Conversation
from duologue.edges.edge import Quality
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
)
from duologue.items import AgentItem, Item
from duologue.playout import Cut, Playout
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.errors import ErrorKind, SessionError
from duologue.realtime.outputs import ReplyAudio, ReplyDone, ReplyStarted, ReplyText
from duologue.speech import Speech
from duologue.turn_metrics import TurnMetrics

_MOST_RECENT = 4
"""Replies that have ended and whose words may still be coming."""


@dataclass(slots=True)
class _Reply:
    """A reply of the model, and the speech that speaks it."""

    speech: Speech
    called_tools: bool = False


class Speeches:
    """Which speech speaks which reply, which item of the model's it is, and what was heard of it.

    A reply that only called tools has no sound: its speech is carried on to the reply that follows
    their results.
    """

    def __init__(
        self,
        *,
        playout: Playout,
        conversation: Conversation,
        metrics: TurnMetrics,
        rate: Callable[[], int],
        emit: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._playout = playout
        self._conversation = conversation
        self._metrics = metrics
        self._rate = rate
        self._emit = emit
        self._clock = clock
        self._asked: dict[str, Speech] = {}
        self._replies: dict[str, _Reply] = {}
        self._recent: dict[str, Speech] = {}
        self._cut_plans: dict[str, tuple[Speech, str]] = {}
        self._carried = Carried(playout)
        self._items: dict[str, str] = {}
        self._too_long: set[str] = set()

    @property
    def asked_may_be_interrupted(self) -> bool:
        """Nothing that was asked for and has not begun is protected from interruptions."""
        return all(speech.interruptible for speech in (*self._asked.values(), *self._carried))

    def expect(self, request_id: str, speech: Speech) -> None:
        """This speech will speak the reply to that request."""
        self._asked[request_id] = speech

    def forget(self, quality: Quality) -> None:
        """Whatever is being replied is stale, and was cut."""
        speeches = {key: reply.speech for key, reply in self._replies.items()}
        for reply_id, speech in {**self._recent, **speeches}.items():
            if speech.state == "cut" and speech.planned:
                self._cut_plans[reply_id] = speech, speech.heard_text
        while len(self._cut_plans) > _MOST_RECENT:
            del self._cut_plans[next(iter(self._cut_plans))]
        self._replies.clear()
        self._recent.clear()
        self._carried.cut(quality)

    def close(self, quality: Quality) -> None:
        """Nothing more will be heard."""
        self.forget(quality)
        for speech in self._asked.values():
            speech.finish("cut", 0.0, quality)
        self._asked.clear()

    def fail(self, error: Exception, quality: Quality) -> None:
        """The model is gone: what it has said so far may still be heard."""
        for _ in [*self._carried]:
            self._carried.fail(error)
        for reply in self._replies.values():
            reply.speech.fail_at_end(error)
            self._playout.end(reply.speech)
        self.forget(quality)

    def speech_of(self, reply_id: str) -> str | None:
        """The id of the speech that speaks a reply; None for one that was not lately."""
        reply = self._replies.get(reply_id)
        speech = self._recent.get(reply_id) if reply is None else reply.speech
        return None if speech is None else speech.id

    def spoken(self) -> dict[str, str]:
        """What has come so far of the speeches that are not over, by the id of their item."""
        speech = self._playout.current
        if speech is None or not speech.seconds:
            return {}
        return {self._items.get(speech.id, speech.id): speech.words_received()}

    def said(self, reply_id: str) -> str | None:
        """The words of a reply whose sound has come; None when none has."""
        reply = self._replies.get(reply_id)
        if reply is None or not reply.speech.seconds:
            return None
        return reply.speech.words_received()

    def lost(self, reply_id: str, request_id: str | None) -> None:
        """A reply ended with its connection: the reply to that request speaks on for it.

        Without a request, a speech of which nothing has come waits for the next reply.
        """
        reply = self._replies.pop(reply_id, None)
        if reply is None:
            return
        speech = reply.speech
        if not speech.seconds:
            speech.forget_words()
        if request_id is not None:
            self._asked[request_id] = speech
        elif not speech.seconds:
            self._carried.carry(speech)
        else:
            self._playout.end(speech)

    def called_tools(self, reply_id: str) -> None:
        """A reply called a tool."""
        reply = self._replies.get(reply_id)
        if reply is not None:
            reply.called_tools = True

    def ended(self, request_id: str, error: Exception | None, quality: Quality) -> None:
        """A request has ended without a reply."""
        speech = self._asked.pop(request_id, None)
        if speech is None:
            if error is not None:
                self._carried.fail(error)
        elif error is None:
            speech.finish("cut", 0.0, quality)
        elif speech.seconds:
            speech.fail_at_end(error)
            self._playout.end(speech)
        else:
            speech.fail(error)
            self._playout.end(speech)

    def nothing_follows(self, epoch: int) -> None:
        """The model says nothing after its tools."""
        self._carried.end(epoch)

    def begin(self, started: ReplyStarted, epoch: int) -> None:
        """The model began a reply."""
        speech = self._asked.pop(started.request_id or "", None)
        if speech is None:
            speech = self._carried.next() or Speech(epoch)
        self._replies[started.reply_id] = _Reply(speech)
        self._playout.begin(speech)

    def sound(self, audio: ReplyAudio, epoch: int) -> None:
        """The next sound of a reply."""
        reply = self._replies.get(audio.reply_id)
        if reply is None:
            return
        speech = reply.speech
        self._items.setdefault(speech.id, audio.item_id)
        speech.begin_item(audio.item_id)
        self._metrics.audio(self._clock.now())
        if not self._playout.write(speech, audio.item_id, audio.frame, epoch) and not speech.done:
            self._tell_too_long(speech)

    def words(self, words: ReplyText) -> None:
        """The next words of a reply; they may come after its sound, and after its end."""
        reply = self._replies.get(words.reply_id)
        speech = self._recent.get(words.reply_id) if reply is None else reply.speech
        if speech is None:
            return
        if speech.done:
            self._add_late(speech, words)
            return
        self._items.setdefault(speech.id, words.item_id)
        self._metrics.text(self._clock.now())
        if words.planned:
            speech.plan_text(words.text, words.item_id)
            return
        start = None
        if words.start is not None:
            offset = speech.begin_item(words.item_id)
            start = offset + words.start / self._rate()
        speech.add_text(words.text, start, words.item_id)
        self._emit(AgentTranscriptEvent(words.text, False, speech.id))

    def said_anyway(self, words: ReplyText) -> None:
        """What the model takes itself to have said of a speech that was cut: the less counts."""
        cut = self._cut_plans.get(words.reply_id)
        if cut is None:
            return
        speech, heard = cut
        speech.add_text(words.text, None, words.item_id)
        said = speech.said
        less = said if said and heard.startswith(said) else heard
        item = next((one for one in self._conversation if _is_of(one, speech)), None)
        if item is not None and less != speech.heard_text:
            speech.heard_text = less
            self._conversation.put(replace(item, text=less))
            self._emit(AgentTranscriptEvent(less, True, speech.id))

    def _add_late(self, speech: Speech, words: ReplyText) -> None:
        """Words of a speech that was heard to its end before they came."""
        item = self._conversation.get(words.item_id)
        if speech.state != "heard" or not isinstance(item, AgentItem):
            return
        speech.add_text(words.text, None, words.item_id)
        speech.heard_text = speech.text.rstrip()
        self._conversation.put(replace(item, text=speech.heard_text))
        self._emit(AgentTranscriptEvent(speech.heard_text, True, speech.id))

    def done(self, done: ReplyDone) -> None:
        """A reply was made to its end, or has failed."""
        reply = self._replies.pop(done.reply_id, None)
        if reply is None:
            return
        self._recent[done.reply_id] = reply.speech
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        if done.status == "failed":
            message = done.message or "the model failed to reply"
            self._emit(ErrorEvent("model", message))
            reply.speech.fail_at_end(SessionError(message, kind=ErrorKind.RETRY))
            self._playout.end(reply.speech)
        elif reply.called_tools and not reply.speech.seconds:
            self._carried.carry(reply.speech)
        else:
            self._playout.end(reply.speech)

    def started(self, speech: Speech) -> None:
        """The first sound of a speech is on its way."""
        item_id = self._items.get(speech.id, speech.id)
        self._conversation.put(AgentItem(item_id, "", "speaking", 0, speech.id))
        self._emit(AgentTurnStartedEvent(speech.id))
        metrics = self._metrics.played(speech.id, self._clock.now())
        if metrics is not None:
            self._emit(metrics)

    def heard(self, speech: Speech) -> None:
        """A speech was heard to its end."""
        item_id = self._items.pop(speech.id, speech.id)
        if self._conversation.get(item_id) is not None:
            state: Literal["heard", "cut"] = "heard" if speech.state == "heard" else "cut"
            self._conversation.put(
                AgentItem(item_id, speech.heard_text, state, speech.played_ms, speech.id)
            )
            self._emit(AgentTranscriptEvent(speech.heard_text, True, speech.id))
            self._emit(AgentTurnEndedEvent(speech.id, interrupted=False))

    def cut(self, cut: Cut) -> list[Truncate | DeleteItem]:
        """A speech was cut: tell what was heard, and how the model's history is to be cut."""
        speech = cut.speech
        item_id = self._items.pop(speech.id, speech.id)
        if speech.played_ms:
            text, played_ms = speech.heard_text, speech.played_ms
            self._conversation.put(AgentItem(item_id, text, "cut", played_ms, speech.id))
            self._emit(AgentTranscriptEvent(text, True, speech.id))
            self._emit(AgentTurnEndedEvent(speech.id, interrupted=True))
        elif self._conversation.get(item_id) is not None:
            self._conversation.remove(item_id)
            self._emit(AgentTranscriptEvent("", True, speech.id))
            self._emit(AgentTurnEndedEvent(speech.id, interrupted=True))
        changes: list[Truncate | DeleteItem] = []
        if not cut.items and item_id != speech.id:
            changes.append(DeleteItem(item_id))
        for index, heard in enumerate(cut.items):
            if heard.item_id == speech.id:
                continue  # Spoken by the agent's own TTS: the model does not know it yet.
            if heard.played_ms == heard.total_ms and index + 1 < len(cut.items):
                continue  # Heard to its end, and another came after it.
            if not heard.played_ms:
                changes.append(DeleteItem(heard.item_id))
            else:
                text = speech.words_until(speech.played_ms / 1000, heard.item_id)
                changes.append(Truncate(heard.item_id, heard.played_ms, text))
        return changes

    def _tell_too_long(self, speech: Speech) -> None:
        if speech.id not in self._too_long:
            self._too_long.add(speech.id)
            message = "a reply is longer than ten minutes: the rest was dropped"
            self._emit(ErrorEvent("model", message))


def _is_of(item: Item, speech: Speech) -> TypeGuard[AgentItem]:
    return isinstance(item, AgentItem) and item.speech_id == speech.id
