"""`SpeechTracker`: map the model's replies to speeches, and both to the conversation."""

# Four things describe what the agent says, and none of them maps one to one to another:
#
#     request ──> reply ──────> speech ──────────> item in the conversation
#     (ours)      (the model's) (at the ear)       (what was heard)
#
# - A *request* (`say`, `simple_response`) creates its speech at once, because the program awaits
#   it. The model's reply comes later, or never. A reply of the model's own has no request.
# - One speech may play several *replies*: a reply that only called tools has no audio, so its
#   speech is carried over to the reply after the tools' results; and when a connection is lost in
#   a reply, the reply on the next connection continues the same speech.
# - A reply has one or more of the model's *items*. Their ids become ids in the conversation,
#   unless a model uses an id twice: then we rename ours and remember the model's.
# - The conversation has one *item* a speech, with the text that was heard. It appears with the
#   first audio, and is removed if nothing of the speech was heard.
#
# Text, audio and the end of a reply arrive in any order, and text even after the speech was heard
# or cut. So replies stay known for a while after their end (`_recent_replies`), ended speeches too
# (`_ended_records`), and the final transcript of a speech with planned text waits for the model's
# report of what it really said (`_pending_transcripts`). All of these are bounded.
#
# After a cut, the model must learn what was heard. `truncate` and `speech_heard` return the
# commands for that, in terms of the items that the *current* connection knows: after a reconnect,
# that is one item for everything that was received of the speech (`connection_replaced`).

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import uuid4

from duologue._bounded_dict import BoundedDict
from duologue.agent.conversation import Conversation
from duologue.agent.playout import Playout, TruncatedSpeech
from duologue.agent.speech import Speech
from duologue.agent.turn_metrics import TurnMetrics
from duologue.clock import Clock, Timer
from duologue.errors import ErrorKind, SessionError
from duologue.events.events import (
    AgentHeardEvent,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
)
from duologue.items import AgentItem
from duologue.quality import Quality
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyHeard,
    ReplyStarted,
    ReplyText,
)

_MAX_RECENT_REPLIES = 4
"""Ended replies whose text may still arrive; beyond it the oldest is dropped."""

_MAX_ITEM_IDS = 1024
"""Item ids that are remembered, to notice a model that uses one again."""

_LATE_TRANSCRIPT_S = 1.5
"""Seconds after the end of a speech in which the model may report which planned text it said."""

_HEARD_REPORT_S = 0.5
"""Seconds after a cut in which the service may report what was heard; later, ours stands."""

_MAX_SHOWN_CHARS = 40
"""Characters of a speech that an error message shows."""


@dataclass(slots=True)
class _TrackedReply:
    """A reply of the model, and the speech that plays it."""

    speech: Speech
    number: int
    item_ids: dict[str, str] = field(default_factory=dict)
    """Our ids of its items, by the model's own ids."""
    called_tools: bool = False
    current_item: tuple[str, str] | None = None
    """The model's own id and ours of the item whose audio came last."""


@dataclass(slots=True)
class _SpeechRecord:
    """A speech in the conversation: its item, and what the model knows of it."""

    item_id: str
    turn_started: bool = False
    """Whether the start of its turn was reported."""
    known_text: str | None = None
    """The text that a connection got which took over during the speech; None if none did."""


class SpeechTracker:
    """Map each reply to the `Speech` that plays it and to its conversation item.

    It records how much of each speech was heard. A reply that only called tools has no audio: its
    speech waits for the reply after the tools' results.
    """

    __slots__ = (
        "_carried",
        "_checked_heard",
        "_clock",
        "_conversation",
        "_cut_replies",
        "_emit",
        "_ended_records",
        "_item_owners",
        "_metrics",
        "_model_item_ids",
        "_pending_transcripts",
        "_playout",
        "_rate",
        "_recent_replies",
        "_records",
        "_replies",
        "_reply_count",
        "_reported_heard",
        "_requested",
        "_shows_text",
        "_truncated_plans",
    )

    def __init__(
        self,
        *,
        playout: Playout,
        conversation: Conversation,
        metrics: TurnMetrics,
        rate: Callable[[], int],
        emit: Callable[[Event], None],
        clock: Clock,
        shows_text: bool = False,
    ) -> None:
        self._playout = playout
        self._conversation = conversation
        self._metrics = metrics
        self._rate = rate
        self._emit = emit
        self._clock = clock
        self._shows_text = shows_text
        """Whether replies are text that the person reads."""
        self._requested: dict[str, Speech] = {}
        self._replies: dict[str, _TrackedReply] = {}
        self._recent_replies: BoundedDict[str, _TrackedReply] = BoundedDict(_MAX_RECENT_REPLIES)
        self._truncated_plans: BoundedDict[str, tuple[_TrackedReply, str]] = BoundedDict(
            _MAX_RECENT_REPLIES
        )
        self._cut_replies: BoundedDict[str, tuple[_TrackedReply, float]] = BoundedDict(
            _MAX_RECENT_REPLIES
        )
        """Replies that were cut, and when, in clock seconds."""
        self._carried = _CarriedSpeeches(playout)
        self._records: dict[str, _SpeechRecord] = {}
        self._ended_records: BoundedDict[str, _SpeechRecord] = BoundedDict(2 * _MAX_RECENT_REPLIES)
        """Speeches that ended recently; their text may still arrive."""
        self._reply_count = 0
        self._item_owners: BoundedDict[str, int] = BoundedDict(_MAX_ITEM_IDS)
        """The number of the reply that owns each of the model's item ids."""
        self._model_item_ids: BoundedDict[str, str] = BoundedDict(_MAX_ITEM_IDS)
        """The model's own ids of items that have another id here."""
        self._reported_heard = ("", "")
        """The id of the speech played last, and its text that was reported as heard."""
        self._checked_heard = ("", 0.0)
        """The id of the speech played last, and the seconds that were played at the last report."""
        self._pending_transcripts: dict[str, tuple[Speech, Timer]] = {}
        """Ended speeches whose final transcript is not reported yet."""

    @property
    def requests_interruptible(self) -> bool:
        """Whether the person may interrupt all speeches that are requested but have not started."""
        return all(speech.interruptible for speech in (*self._requested.values(), *self._carried))

    def bind_speech(self, request_id: str, speech: Speech) -> None:
        """Let ``speech`` play the reply to the request."""
        self._requested[request_id] = speech

    def drop_replies(self, quality: Quality) -> None:
        """Forget all replies under way, which were cut and are stale."""
        for reply_id, reply in {**self._recent_replies, **self._replies}.items():
            if reply.speech.state != "cut":
                continue
            self._cut_replies[reply_id] = reply, self._clock.now()
            if reply.speech.has_planned_text:
                self._truncated_plans[reply_id] = reply, reply.speech.heard_text
        self._replies.clear()
        self._recent_replies.clear()
        self._carried.truncate_all(quality)
        queued = {speech.id for speech in self._playout.speeches}
        self._records = {key: record for key, record in self._records.items() if key in queued}

    def close(self, quality: Quality) -> None:
        """End all speeches, because nothing more will be played."""
        self.drop_replies(quality)
        for speech in self._requested.values():
            speech.finish("cut", 0.0, quality)
        self._requested.clear()
        for speech, _ in [*self._pending_transcripts.values()]:
            self._report_final_transcript(speech)

    def fail(self, error: Exception, quality: Quality) -> None:
        """Record that the model is lost; audio received before may still be heard."""
        for _ in [*self._carried]:
            self._carried.fail_next(error)
        for reply in self._replies.values():
            reply.speech.fail_at_end(error)
            self._playout.end(reply.speech)
        self.drop_replies(quality)

    def speech_id_of(self, reply_id: str) -> str | None:
        """Return the id of the speech that plays a reply; None for an unknown or old reply."""
        reply = self._replies.get(reply_id) or self._recent_replies.get(reply_id)
        return None if reply is None else reply.speech.id

    def spoken_texts(self) -> dict[str, str]:
        """Return the text that the audio so far says of each unfinished speech, by item id."""
        return {
            self._record(speech).item_id: speech.spoken_text()
            for speech in self._playout.speeches
            if speech.seconds or speech.is_shown
        }

    def connection_replaced(self) -> None:
        """Record that a new connection has taken over and got `spoken_texts` as its items."""
        self._model_item_ids.clear()
        for reply in self._replies.values():
            reply.current_item = None
        for speech in self._playout.speeches:
            if speech.seconds or speech.is_shown:
                record = self._record(speech)
                record.known_text = speech.spoken_text()
                speech.merge_items(record.item_id)
                self._playout.rename_items(speech, record.item_id)

    def known_text(self, speech: Speech) -> str | None:
        """Return what the model knows of a speech by the agent's own TTS; None if nothing."""
        record = self._records.get(speech.id) or self._ended_records.get(speech.id)
        return None if record is None else record.known_text

    def spoken_text(self, reply_id: str) -> str | None:
        """Return the text that the audio of a reply says so far; None without audio."""
        reply = self._replies.get(reply_id)
        return None if reply is None else reply.speech.passage_spoken_text()

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """Record that a reply lost its connection; the reply to ``request_id`` continues it.

        Without a request, a speech that has no audio yet waits for the next reply.
        """
        reply = self._replies.pop(reply_id, None)
        if reply is None:
            return
        speech = reply.speech
        speech.break_off(continues=True)
        if request_id is not None:
            self._requested[request_id] = speech
        elif not (speech.seconds or speech.is_shown):
            self._carried.add(speech)
        else:
            self._playout.end(speech)

    def tools_called(self, reply_id: str) -> None:
        """Record that a reply called a tool."""
        reply = self._replies.get(reply_id)
        if reply is not None:
            reply.called_tools = True

    def request_ended(self, request_id: str, error: Exception | None, quality: Quality) -> None:
        """Record that a request ended without a reply."""
        speech = self._requested.pop(request_id, None)
        if speech is None:
            if error is not None:
                self._carried.fail_next(error)
        elif error is None:
            speech.finish("cut", 0.0, quality)
        elif speech.seconds:
            speech.fail_at_end(error)
            self._playout.end(speech)
        else:
            speech.fail(error)
            self._playout.end(speech)

    def reply_skipped(self, epoch: int) -> None:
        """Record that the model says nothing after its tools."""
        self._carried.end_silent(epoch)

    def reply_started(self, started: ReplyStarted, epoch: int) -> None:
        """Bind a reply that the model has started to its speech, and queue the speech."""
        speech = self._requested.pop(started.request_id or "", None)
        if speech is None:
            speech = self._carried.pop_next() or Speech(epoch)
        speech.resume()
        self._reply_count += 1
        self._replies[started.reply_id] = _TrackedReply(speech, self._reply_count)
        self._playout.begin(speech)

    def audio_received(self, audio: ReplyAudio, epoch: int) -> None:
        """Play the next audio of a reply."""
        reply = self._replies.get(audio.reply_id)
        if reply is None:
            return
        speech = reply.speech
        if speech.clipped_at is not None:
            speech.clip(audio.frame.duration)
            return
        item = reply.current_item
        if item is None or item[0] != audio.item_id:
            item = self._begin_item(reply, audio.item_id)
        if self._metrics.awaits_audio:
            self._metrics.audio_received(self._clock.now())
        if not self._playout.write(speech, item[1], audio.frame, epoch) and not speech.done:
            self.end_overlong(speech, audio.frame.duration)

    def _begin_item(self, reply: _TrackedReply, model_id: str) -> tuple[str, str]:
        """Begin or continue an item whose audio did not come last."""
        item_id = self._local_item_id(reply, model_id)
        reply.current_item = model_id, item_id
        reply.speech.begin_item(item_id)
        self._records.setdefault(reply.speech.id, _SpeechRecord(item_id))
        return reply.current_item

    def text_received(self, reply_text: ReplyText) -> None:
        """Add the next text of a reply; it may come after the audio, and after the reply's end."""
        reply = self._replies.get(reply_text.reply_id) or self._recent_replies.get(
            reply_text.reply_id
        )
        if reply is None:
            return
        speech = reply.speech
        item_id = self._local_item_id(reply, reply_text.item_id)
        if speech.done:
            self._append_late_text(speech, reply_text, item_id)
            return
        if speech.is_broken_off:
            return
        if speech.id not in self._records:
            self._records[speech.id] = _SpeechRecord(item_id)
        self._metrics.text_received(self._clock.now())
        if self._shows_text:
            self._show_text(speech, reply_text, item_id)
            return
        self._checked_heard = ("", 0.0)
        if reply_text.planned:
            speech.plan_text(reply_text.text, item_id)
            return
        start, end = self._speech_seconds(speech, item_id, reply_text)
        speech.add_text(reply_text.text, start, item_id, end=end)
        self._emit(AgentTranscriptEvent(reply_text.text, False, speech.id))

    def _show_text(self, speech: Speech, reply_text: ReplyText, item_id: str) -> None:
        """Add text that the person reads as it comes."""
        speech.is_shown = True
        speech.add_text(reply_text.text, None, item_id)
        if not self._record(speech).turn_started:
            self._turn_started(speech, None)
        self._emit(AgentTranscriptEvent(reply_text.text, False, speech.id))
        self._emit(AgentHeardEvent(reply_text.text, speech.id))

    def _speech_seconds(
        self, speech: Speech, item_id: str, reply_text: ReplyText
    ) -> tuple[float | None, float | None]:
        """Return where text of an item begins and ends, in seconds of its speech, if known."""
        if reply_text.start is None:
            return None, None
        offset = speech.begin_item(item_id)
        end = reply_text.end
        return offset + reply_text.start / self._rate(), (
            None if end is None else offset + end / self._rate()
        )

    def late_transcript(self, reply_text: ReplyText) -> None:
        """Record a late transcript of a truncated reply, unless more of it was heard."""
        cut = self._truncated_plans.get(reply_text.reply_id)
        if cut is None:
            return
        reply, heard = cut
        speech = reply.speech
        speech.add_text(reply_text.text, None, self._local_item_id(reply, reply_text.item_id))
        said = speech.confirmed_text
        less = said if said and heard.startswith(said) else heard
        item = self._ended_item(speech)
        if item is not None and less != speech.heard_text:
            speech.heard_text = less
            self._conversation.put(replace(item, text=less))

    def reply_heard(self, heard: ReplyHeard) -> None:
        """Record what the service says was heard of a reply that was cut, if it fits."""
        reply, cut_at = self._cut_replies.get(heard.reply_id, (None, 0.0))
        if reply is None or self._clock.now() - cut_at > _HEARD_REPORT_S:
            return
        speech, text = reply.speech, heard.text.rstrip()
        item = self._ended_item(speech)
        if item is not None and speech.text.startswith(text) and text != item.text:
            speech.heard_text = text
            self._conversation.put(replace(item, text=text))

    def _append_late_text(self, speech: Speech, late: ReplyText, item_id: str) -> None:
        """Add text of a speech that was heard to its end before the text arrived."""
        item = self._ended_item(speech)
        if speech.state != "heard" or item is None:
            return
        speech.add_text(late.text, None, item_id)
        speech.heard_text = speech.text.rstrip()
        self._conversation.put(replace(item, text=speech.heard_text))
        self._emit(AgentTranscriptEvent(late.text, False, speech.id))
        if not speech.has_planned_text:
            self._report_final_transcript(speech)

    def reply_done(self, done: ReplyDone) -> None:
        """Record that a reply is complete, cancelled or failed."""
        reply = self._replies.pop(done.reply_id, None)
        if reply is None:
            return
        self._recent_replies[done.reply_id] = reply
        if done.status == "failed":
            message = done.message or "the model failed to reply"
            self._emit(ErrorEvent("model", message))
            reply.speech.fail_at_end(SessionError(message, kind=ErrorKind.RETRY))
            self._playout.end(reply.speech)
        elif reply.called_tools and not (reply.speech.seconds or reply.speech.is_shown):
            reply.speech.break_off()
            self._carried.add(reply.speech)
        else:
            if done.status == "cancelled" and not reply.speech.has_planned_text:
                # The model stopped by itself, and its text was ahead of its audio.
                reply.speech.break_off(continues=True)
            self._playout.end(reply.speech)

    def speech_started(self, speech: Speech) -> None:
        """Report that the first audio of a speech was handed to the edge."""
        self._turn_started(speech, self._clock.now())

    def _turn_started(self, speech: Speech, played_at: float | None) -> None:
        record = self._record(speech)
        record.turn_started = True
        self._conversation.put(AgentItem(record.item_id, "", "speaking", 0, speech.id))
        self._emit(AgentTurnStartedEvent(speech.id))
        metrics = self._metrics.reply_played(speech.id, played_at)
        if metrics is not None:
            self._emit(metrics)

    def report_heard(self) -> None:
        """Report the text of the current speech that was heard since the last call."""
        speech = self._playout.current
        if speech is None:
            return
        self._playout.count_played()
        checked = speech.id, self._playout.played_s
        if not checked[1] or checked == self._checked_heard:
            return  # Nothing more was played, as in a hold.
        self._checked_heard = checked
        speech_id, before = self._reported_heard
        if speech_id != speech.id:
            before = ""
        heard = speech.text_until(checked[1])
        # Text that replaced planned text may differ from what was reported.
        if len(heard) > len(before) and heard.startswith(before):
            self._reported_heard = speech.id, heard
            self._emit(AgentHeardEvent(heard[len(before) :], speech.id))

    def speech_heard(self, speech: Speech) -> Sequence[Truncate | DeleteItem]:
        """Record that a speech was heard to its end; return how to correct the model's history."""
        record = self._end_record(speech)
        last = speech.last_item()
        if record.turn_started:
            state: Literal["heard", "cut", "read"]
            state = "cut" if speech.state != "heard" else "read" if speech.is_shown else "heard"
            self._conversation.put(
                AgentItem(record.item_id, speech.heard_text, state, speech.played_ms, speech.id)
            )
            self._end_turn(speech, interrupted=False)
        self._report_unspoken(speech)
        if speech.clipped_at is None or last is None or self._is_own_tts(speech, last):
            return ()
        heard = speech.heard_text_of(last)
        played_ms = int((speech.clipped_at - speech.begin_item(last)) * 1000)
        return [Truncate(self._model_item_ids.get(last, last), played_ms, heard)]

    def truncate(self, cut: TruncatedSpeech) -> list[Truncate | DeleteItem]:
        """Record that a speech was cut; return how to correct the model's history."""
        speech = cut.speech
        known_to_model = self.known_text(speech) is not None
        record = self._end_record(speech)
        if speech.played_ms or (speech.is_shown and speech.heard_text):
            text, played_ms = speech.heard_text, speech.played_ms
            self._conversation.put(AgentItem(record.item_id, text, "cut", played_ms, speech.id))
            self._end_turn(speech, interrupted=True)
        elif record.turn_started:
            self._conversation.remove(record.item_id)
            self._end_turn(speech, interrupted=True)
        changes: list[Truncate | DeleteItem] = []
        if speech.is_shown:
            # The model may have written more than was received before it was told to stop.
            read = speech.heard_text_of(record.item_id)
            model_id = self._model_item_ids.get(record.item_id, record.item_id)
            changes.append(Truncate(model_id, 0, read) if read else DeleteItem(model_id))
        elif not cut.items and not self._is_own_tts(speech, record.item_id):
            changes.append(DeleteItem(self._model_item_ids.get(record.item_id, record.item_id)))
        for index, heard in enumerate(cut.items):
            item_id = self._model_item_ids.get(heard.item_id, heard.item_id)
            if self._is_own_tts(speech, heard.item_id) and not known_to_model:
                continue  # Spoken by the agent's own TTS: the model does not know it yet.
            if heard.played_ms == heard.total_ms and index + 1 < len(cut.items):
                continue  # Heard to its end, and another item follows.
            if not heard.played_ms:
                changes.append(DeleteItem(item_id))
            else:
                changes.append(
                    Truncate(item_id, heard.played_ms, speech.heard_text_of(heard.item_id))
                )
        self._report_unspoken(speech)
        return changes

    def end_overlong(self, speech: Speech, seconds: float) -> None:
        """End a speech before its next ``seconds``, which the playout rejected."""
        speech.clip(seconds)
        self._playout.end(speech)
        message = "a speech is longer than ten minutes: the rest was dropped"
        self._emit(ErrorEvent("model", message))

    def _local_item_id(self, reply: _TrackedReply, item_id: str) -> str:
        """Return our id of a model's item: the model's own id, unless that is taken."""
        name = reply.item_ids.get(item_id)
        if name is None:
            name = item_id
            owner = self._item_owners.setdefault(item_id, reply.number)
            if owner != reply.number or self._conversation.get(item_id) is not None:
                name = f"{item_id}-{uuid4().hex[:12]}"
                self._model_item_ids[name] = item_id
            reply.item_ids[item_id] = name
        return name

    def _record(self, speech: Speech) -> _SpeechRecord:
        return self._records.setdefault(speech.id, _SpeechRecord(speech.id))

    def _end_record(self, speech: Speech) -> _SpeechRecord:
        record = self._record(speech)
        del self._records[speech.id]
        self._ended_records[speech.id] = record
        return record

    def _ended_item(self, speech: Speech) -> AgentItem | None:
        """Return the conversation item of an ended speech; None without one."""
        record = self._ended_records.get(speech.id)
        item = None if record is None else self._conversation.get(record.item_id)
        return item if isinstance(item, AgentItem) else None

    @staticmethod
    def _is_own_tts(speech: Speech, item_id: str) -> bool:
        """Return whether the agent's own TTS made an item."""
        return item_id == speech.id

    def _end_turn(self, speech: Speech, *, interrupted: bool) -> None:
        """Report the end of a turn, and what was heard in it.

        For a speech with planned text, report the transcript later, because the model may still
        shorten it.
        """
        if speech.has_planned_text:
            when = self._clock.now() + _LATE_TRANSCRIPT_S
            timer = self._clock.call_at(when, lambda: self._report_final_transcript(speech))
            self._pending_transcripts[speech.id] = speech, timer
        else:
            self._emit(AgentTranscriptEvent(speech.heard_text, True, speech.id))
        self._emit(AgentTurnEndedEvent(speech.id, interrupted=interrupted))

    def _report_final_transcript(self, speech: Speech) -> None:
        """Report what was heard of a speech with a pending final transcript, once."""
        unsettled = self._pending_transcripts.pop(speech.id, None)
        if unsettled is not None:
            unsettled[1].cancel()
            self._emit(AgentTranscriptEvent(speech.heard_text, True, speech.id))

    def _report_unspoken(self, speech: Speech) -> None:
        """Report text that the voice left out."""
        text = speech.text if speech.state == "silent" else "".join(speech.unspoken)
        text = " ".join(text.split())
        if text:
            shown = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
            message = f'the voice made no audio for "{shown}": use one that speaks this language'
            self._emit(ErrorEvent("tts", message))


class _CarriedSpeeches:
    """A queue outside the playout, so that text spoken while a tool runs is heard meanwhile."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._speeches: deque[Speech] = deque()

    def __iter__(self) -> Iterator[Speech]:
        """Iterate over the speeches, oldest first."""
        return iter(self._speeches)

    def add(self, speech: Speech) -> None:
        """Queue a speech whose reply had no audio until the next reply."""
        self._playout.remove(speech)
        self._speeches.append(speech)

    def pop_next(self) -> Speech | None:
        """Remove and return the oldest speech, whose reply has started; None if there is none."""
        return self._speeches.popleft() if self._speeches else None

    def end_silent(self, epoch: int) -> None:
        """End the oldest speech of ``epoch`` as silent, because no reply follows."""
        speech = next((speech for speech in self._speeches if speech.epoch == epoch), None)
        if speech is not None:
            self._speeches.remove(speech)
            self._playout.begin(speech)
            self._playout.end(speech)

    def fail_next(self, error: Exception) -> None:
        """End the oldest speech with ``error``, because the reply that it waits for has failed."""
        speech = self.pop_next()
        if speech is not None:
            self._playout.begin(speech)
            speech.fail_at_end(error)
            self._playout.end(speech)

    def truncate_all(self, quality: Quality) -> None:
        """End all speeches as cut, because they are stale."""
        for speech in self._speeches:
            speech.finish("cut", 0.0, quality)
        self._speeches.clear()
