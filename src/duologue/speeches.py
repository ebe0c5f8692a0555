"""The model's replies as speeches at the person's ear, and both in the conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import uuid4

from duologue.carried import Carried
from duologue.clock import Clock, Timer
from duologue.conversation import Conversation
from duologue.edges.edge import Quality
from duologue.events import (
    AgentHeardEvent,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
)
from duologue.items import AgentItem
from duologue.playout import Cut, Playout
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.errors import ErrorKind, SessionError
from duologue.realtime.outputs import ReplyAudio, ReplyDone, ReplyStarted, ReplyText
from duologue.speech import Speech
from duologue.turn_metrics import TurnMetrics

_MOST_RECENT = 4
"""Replies that have ended and whose words may still be coming."""

_MAX_ITEMS = 1024
"""Item ids that are remembered, to notice a model that uses one again."""

_SETTLES_S = 1.5
"""Seconds after the end of a speech in which the model may report which planned words it said."""

_SHOWN = 40
"""Characters of a speech that an error message shows."""


@dataclass(slots=True)
class _Reply:
    """A reply of the model, and the speech that speaks it."""

    speech: Speech
    number: int
    names: dict[str, str] = field(default_factory=dict)
    """Ids of items here, by the model's own ids."""
    called_tools: bool = False


@dataclass(slots=True)
class _Spoken:
    """A speech in the conversation: its item, and what the model knows of it."""

    item_id: str
    begun: bool = False
    """Whether the start of its turn was reported."""
    known_words: str | None = None
    """Its words that a connection got which took over while it was playing; None if none did."""


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
        self._recent: dict[str, _Reply] = {}
        self._cut_plans: dict[str, tuple[_Reply, str]] = {}
        self._carried = Carried(playout)
        self._spoken: dict[str, _Spoken] = {}
        self._ended: dict[str, _Spoken] = {}
        """Speeches that ended recently; words of them may still come."""
        self._count = 0
        self._used: dict[str, int] = {}
        """The number of the reply that each of the model's item ids belongs to."""
        self._originals: dict[str, str] = {}
        """The model's own ids of items that have another id here."""
        self._heard_so_far = ("", "")
        """The speech that was played last, and its words that were reported as heard."""
        self._unsettled: dict[str, tuple[Speech, Timer]] = {}
        """Speeches that are over, and whose final words are not reported yet."""

    @property
    def asked_may_be_interrupted(self) -> bool:
        """Nothing that was asked for and has not begun is protected from interruptions."""
        return all(speech.interruptible for speech in (*self._asked.values(), *self._carried))

    def expect(self, request_id: str, speech: Speech) -> None:
        """This speech will speak the reply to that request."""
        self._asked[request_id] = speech

    def forget(self, quality: Quality) -> None:
        """Whatever is being replied is stale, and was cut."""
        for reply_id, reply in {**self._recent, **self._replies}.items():
            if reply.speech.state == "cut" and reply.speech.planned:
                self._cut_plans[reply_id] = reply, reply.speech.heard_text
        while len(self._cut_plans) > _MOST_RECENT:
            del self._cut_plans[next(iter(self._cut_plans))]
        self._replies.clear()
        self._recent.clear()
        self._carried.cut(quality)
        sounding = {speech.id for speech in self._playout.speeches}
        self._spoken = {key: one for key, one in self._spoken.items() if key in sounding}

    def close(self, quality: Quality) -> None:
        """Nothing more will be heard."""
        self.forget(quality)
        for speech in self._asked.values():
            speech.finish("cut", 0.0, quality)
        self._asked.clear()
        for speech, _ in [*self._unsettled.values()]:
            self._tell_final(speech)

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
        reply = self._replies.get(reply_id) or self._recent.get(reply_id)
        return None if reply is None else reply.speech.id

    def spoken(self) -> dict[str, str]:
        """Return the words that the audio so far says of speeches that are not over, by item id."""
        return {
            self._known(speech).item_id: speech.words_received()
            for speech in self._playout.speeches
            if speech.seconds
        }

    def connected(self) -> None:
        """Record that another connection has taken over, which got `spoken` as its items."""
        self._originals.clear()
        for speech in self._playout.speeches:
            if speech.seconds:
                known = self._known(speech)
                known.known_words = speech.words_received()
                speech.merge_items(known.item_id)
                self._playout.rename_items(speech, known.item_id)

    def known_words(self, speech: Speech) -> str | None:
        """Return what the model knows of a speech that it has not made; None if nothing."""
        known = self._spoken.get(speech.id) or self._ended.get(speech.id)
        return None if known is None else known.known_words

    def said(self, reply_id: str) -> str | None:
        """The words of a reply whose sound has come; None when none has."""
        reply = self._replies.get(reply_id)
        return None if reply is None else reply.speech.passage_received()

    def lost(self, reply_id: str, request_id: str | None) -> None:
        """A reply ended with its connection: the reply to that request speaks on for it.

        Without a request, a speech of which nothing has come waits for the next reply.
        """
        reply = self._replies.pop(reply_id, None)
        if reply is None:
            return
        speech = reply.speech
        speech.break_off(goes_on=True)
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
        speech.resume()
        self._count += 1
        self._replies[started.reply_id] = _Reply(speech, self._count)
        self._playout.begin(speech)

    def sound(self, audio: ReplyAudio, epoch: int) -> None:
        """The next sound of a reply."""
        reply = self._replies.get(audio.reply_id)
        if reply is None:
            return
        speech = reply.speech
        if speech.clipped_at is not None:
            speech.clip(audio.frame.duration)
            return
        item_id = self._name(reply, audio.item_id)
        if speech.id not in self._spoken:
            self._spoken[speech.id] = _Spoken(item_id)
        speech.begin_item(item_id)
        self._metrics.audio(self._clock.now())
        if not self._playout.write(speech, item_id, audio.frame, epoch) and not speech.done:
            self.too_long(speech, audio.frame.duration)

    def words(self, words: ReplyText) -> None:
        """The next words of a reply; they may come after its sound, and after its end."""
        reply = self._replies.get(words.reply_id) or self._recent.get(words.reply_id)
        if reply is None:
            return
        speech = reply.speech
        item_id = self._name(reply, words.item_id)
        if speech.done:
            self._add_late(speech, words, item_id)
            return
        if speech.broken_off:
            return
        if speech.id not in self._spoken:
            self._spoken[speech.id] = _Spoken(item_id)
        self._metrics.text(self._clock.now())
        if words.planned:
            speech.plan_text(words.text, item_id)
            return
        start = None
        if words.start is not None:
            offset = speech.begin_item(item_id)
            start = offset + words.start / self._rate()
        speech.add_text(words.text, start, item_id)
        self._emit(AgentTranscriptEvent(words.text, False, speech.id))

    def said_anyway(self, words: ReplyText) -> None:
        """What the model takes itself to have said of a speech that was cut: the less counts."""
        cut = self._cut_plans.get(words.reply_id)
        if cut is None:
            return
        reply, heard = cut
        speech = reply.speech
        speech.add_text(words.text, None, self._name(reply, words.item_id))
        said = speech.said
        less = said if said and heard.startswith(said) else heard
        item = self._item(speech)
        if item is not None and less != speech.heard_text:
            speech.heard_text = less
            self._conversation.put(replace(item, text=less))

    def _add_late(self, speech: Speech, words: ReplyText, item_id: str) -> None:
        """Words of a speech that was heard to its end before they came."""
        item = self._item(speech)
        if speech.state != "heard" or item is None:
            return
        speech.add_text(words.text, None, item_id)
        speech.heard_text = speech.text.rstrip()
        self._conversation.put(replace(item, text=speech.heard_text))
        self._emit(AgentTranscriptEvent(words.text, False, speech.id))
        if not speech.planned:
            self._tell_final(speech)

    def done(self, done: ReplyDone) -> None:
        """A reply was made to its end, or has failed."""
        reply = self._replies.pop(done.reply_id, None)
        if reply is None:
            return
        self._recent[done.reply_id] = reply
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        if done.status == "failed":
            message = done.message or "the model failed to reply"
            self._emit(ErrorEvent("model", message))
            reply.speech.fail_at_end(SessionError(message, kind=ErrorKind.RETRY))
            self._playout.end(reply.speech)
        elif reply.called_tools and not reply.speech.seconds:
            reply.speech.break_off()
            self._carried.carry(reply.speech)
        else:
            if done.status == "cancelled" and not reply.speech.planned:
                # The model has stopped by itself: its words were ahead of its audio.
                reply.speech.break_off(goes_on=True)
            self._playout.end(reply.speech)

    def started(self, speech: Speech) -> None:
        """The first sound of a speech is on its way."""
        known = self._known(speech)
        known.begun = True
        self._conversation.put(AgentItem(known.item_id, "", "speaking", 0, speech.id))
        self._emit(AgentTurnStartedEvent(speech.id))
        metrics = self._metrics.played(speech.id, self._clock.now())
        if metrics is not None:
            self._emit(metrics)

    def tell_heard(self) -> None:
        """Report the words of the current speech that were heard since the last call."""
        speech = self._playout.current
        if speech is None or not self._playout.played_s:
            return
        speech_id, before = self._heard_so_far
        if speech_id != speech.id:
            before = ""
        heard = speech.words_until(self._playout.played_s)
        # Words that replace planned ones may differ from those that were reported.
        if len(heard) > len(before) and heard.startswith(before):
            self._heard_so_far = speech.id, heard
            self._emit(AgentHeardEvent(heard[len(before) :], speech.id))

    def heard(self, speech: Speech) -> Sequence[Truncate | DeleteItem]:
        """Record that a speech was heard to its end; return how to correct the model's history."""
        known = self._over(speech)
        last = speech.last_item()
        if known.begun:
            state: Literal["heard", "cut"] = "heard" if speech.state == "heard" else "cut"
            self._conversation.put(
                AgentItem(known.item_id, speech.heard_text, state, speech.played_ms, speech.id)
            )
            self._end_turn(speech, interrupted=False)
        self._tell_unsounded(speech)
        if speech.clipped_at is None or last is None or self._is_own(speech, last):
            return ()
        heard = speech.heard_of(last)
        played_ms = int((speech.clipped_at - speech.begin_item(last)) * 1000)
        return [Truncate(self._originals.get(last, last), played_ms, heard)]

    def cut(self, cut: Cut) -> list[Truncate | DeleteItem]:
        """A speech was cut: tell what was heard, and how the model's history is to be cut."""
        speech = cut.speech
        known_to_model = self.known_words(speech) is not None
        known = self._over(speech)
        if speech.played_ms:
            text, played_ms = speech.heard_text, speech.played_ms
            self._conversation.put(AgentItem(known.item_id, text, "cut", played_ms, speech.id))
            self._end_turn(speech, interrupted=True)
        elif known.begun:
            self._conversation.remove(known.item_id)
            self._end_turn(speech, interrupted=True)
        changes: list[Truncate | DeleteItem] = []
        if not cut.items and not self._is_own(speech, known.item_id):
            changes.append(DeleteItem(self._originals.get(known.item_id, known.item_id)))
        for index, heard in enumerate(cut.items):
            item_id = self._originals.get(heard.item_id, heard.item_id)
            if self._is_own(speech, heard.item_id) and not known_to_model:
                continue  # Spoken by the agent's own TTS: the model does not know it yet.
            if heard.played_ms == heard.total_ms and index + 1 < len(cut.items):
                continue  # Heard to its end, and another came after it.
            if not heard.played_ms:
                changes.append(DeleteItem(item_id))
            else:
                changes.append(Truncate(item_id, heard.played_ms, speech.heard_of(heard.item_id)))
        self._tell_unsounded(speech)
        return changes

    def too_long(self, speech: Speech, seconds: float) -> None:
        """End a speech before its next ``seconds``, which the gate did not accept."""
        speech.clip(seconds)
        self._playout.end(speech)
        message = "a speech is longer than ten minutes: the rest was dropped"
        self._emit(ErrorEvent("model", message))

    def _name(self, reply: _Reply, item_id: str) -> str:
        """Return the id of a model's item here: the model's own, unless that is taken."""
        name = reply.names.get(item_id)
        if name is None:
            name = item_id
            owner = self._used.setdefault(item_id, reply.number)
            if owner != reply.number or self._conversation.get(item_id) is not None:
                name = f"{item_id}-{uuid4().hex[:12]}"
                self._originals[name] = item_id
            while len(self._used) > _MAX_ITEMS:
                del self._used[next(iter(self._used))]
            reply.names[item_id] = name
        return name

    def _known(self, speech: Speech) -> _Spoken:
        return self._spoken.setdefault(speech.id, _Spoken(speech.id))

    def _over(self, speech: Speech) -> _Spoken:
        known = self._known(speech)
        del self._spoken[speech.id]
        self._ended[speech.id] = known
        while len(self._ended) > 2 * _MOST_RECENT:
            del self._ended[next(iter(self._ended))]
        return known

    def _item(self, speech: Speech) -> AgentItem | None:
        """Return the conversation's item of a speech that is over; None without one."""
        known = self._ended.get(speech.id)
        item = None if known is None else self._conversation.get(known.item_id)
        return item if isinstance(item, AgentItem) else None

    @staticmethod
    def _is_own(speech: Speech, item_id: str) -> bool:
        """Return whether an item was made by the agent's own TTS."""
        return item_id == speech.id

    def _end_turn(self, speech: Speech, *, interrupted: bool) -> None:
        """Report the end of a turn, and what was heard in it.

        Of a planned speech, report the words later, because the model may still reduce them.
        """
        if speech.planned:
            when = self._clock.now() + _SETTLES_S
            timer = self._clock.call_at(when, lambda: self._tell_final(speech))
            self._unsettled[speech.id] = speech, timer
        else:
            self._emit(AgentTranscriptEvent(speech.heard_text, True, speech.id))
        self._emit(AgentTurnEndedEvent(speech.id, interrupted=interrupted))

    def _tell_final(self, speech: Speech) -> None:
        """Report what was heard of an unsettled speech, once."""
        unsettled = self._unsettled.pop(speech.id, None)
        if unsettled is not None:
            unsettled[1].cancel()
            self._emit(AgentTranscriptEvent(speech.heard_text, True, speech.id))

    def _tell_unsounded(self, speech: Speech) -> None:
        """Report words for which the voice made no audio."""
        text = speech.text if speech.state == "silent" else "".join(speech.unspoken)
        text = " ".join(text.split())
        if text:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            message = f'the voice made no sound of "{shown}": use one that speaks this language'
            self._emit(ErrorEvent("tts", message))
