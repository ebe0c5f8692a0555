"""`SpeechTracker` alone, in front of a real `Playout`, on a clock that the test moves."""

import numpy as np
import pytest

from duologue.agent.conversation import Conversation
from duologue.agent.playout import Playout
from duologue.agent.speech import Speech
from duologue.agent.speech_tracker import SpeechTracker
from duologue.agent.turn_metrics import TurnMetrics
from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.events import (
    AgentHeardEvent,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    TurnMetricsEvent,
)
from duologue.items import AgentItem, UserItem
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.outputs import ReplyAudio, ReplyDone, ReplyHeard, ReplyStarted, ReplyText

RATE = 8000


class ManualClock:
    def __init__(self):
        self.ms = 0
        self.timers = []

    def now(self):
        return self.ms / 1000

    def call_at(self, when, callback):
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer


class Timer:
    def __init__(self, when, callback):
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self):
        self.cancelled = True


class NullEdge:
    output_rate = RATE
    quality = "estimated"
    lead_ms = 0
    latency_ms = 0.0

    def play(self, frame): ...

    def clear(self): ...


class Stage:
    """A tracker with everything around it; observes the playout as the session does."""

    def __init__(self):
        self.clock = ManualClock()
        self.events = []
        self.changes = []
        self.conversation = Conversation()
        self.metrics = TurnMetrics()
        self.playout = Playout(NullEdge(), self.clock, self, limit_s=2.0)
        self.tracker = SpeechTracker(
            playout=self.playout,
            conversation=self.conversation,
            metrics=self.metrics,
            rate=lambda: RATE,
            emit=self.events.append,
            clock=self.clock,
        )

    def speech_started(self, speech):
        self.tracker.speech_started(speech)

    def speech_ended(self, speech):
        self.changes += self.tracker.speech_heard(speech)

    def start(self, reply_id="r", request_id=None, epoch=0):
        self.tracker.reply_started(ReplyStarted(reply_id, request_id), epoch)

    def text(self, text, reply_id="r", item="i", **options):
        self.tracker.text_received(ReplyText(reply_id, item, text, **options))

    def audio(self, ms, reply_id="r", item="i", epoch=0):
        frame = AudioFrame(np.full(ms * RATE // 1000, 500, np.int16), RATE)
        self.tracker.audio_received(ReplyAudio(reply_id, item, frame), epoch)

    def done(self, reply_id="r", status="completed", message=""):
        self.tracker.reply_done(ReplyDone(reply_id, status, message))

    def play(self, ms):
        for _ in range(ms // 20):
            self.clock.ms += 20
            self.playout.tick(self.clock.now())
            for timer in [t for t in self.clock.timers if t.when <= self.clock.now()]:
                self.clock.timers.remove(timer)
                if not timer.cancelled:
                    timer.callback()

    def interrupt(self, epoch=1):
        changes = []
        for cut in self.playout.interrupt(epoch):
            changes += self.tracker.truncate(cut)
        self.tracker.drop_replies("estimated")
        return changes

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def items(self):
        return [(item.id, item.text, item.state) for item in self.conversation]


@pytest.fixture
def stage():
    return Stage()


def test_reply_is_one_speech_one_item_and_its_events(stage):
    stage.metrics.turn_ended(0.0, 0.0)
    speech = Speech(0)
    stage.tracker.bind_speech("q", speech)
    assert stage.tracker.requests_interruptible
    stage.start(request_id="q")
    stage.text("Good ")
    stage.text("morning.")
    stage.audio(200)
    assert stage.tracker.spoken_texts() == {"i": stage.tracker.spoken_text("r")}
    assert stage.tracker.speech_id_of("r") == speech.id
    stage.done()
    assert stage.tracker.spoken_text("r") is None
    assert stage.tracker.speech_id_of("r") == speech.id
    stage.play(300)
    assert stage.items == [("i", "Good morning.", "heard")]
    assert [type(event) for event in stage.events] == [
        AgentTranscriptEvent,
        AgentTranscriptEvent,
        AgentTurnStartedEvent,
        TurnMetricsEvent,
        AgentTranscriptEvent,
        AgentTurnEndedEvent,
    ]
    assert stage.of(AgentTranscriptEvent)[-1] == AgentTranscriptEvent(
        "Good morning.", True, speech.id
    )
    assert not stage.changes


def test_unknown_replies_change_nothing(stage):
    stage.text("lost")
    stage.audio(20)
    stage.done()
    stage.tracker.tools_called("r")
    stage.tracker.reply_lost("r", None)
    stage.tracker.late_transcript(ReplyText("r", "i", "late"))
    stage.tracker.request_ended("q", None, "estimated")
    stage.tracker.reply_skipped(0)
    assert stage.tracker.speech_id_of("r") is None
    assert stage.tracker.known_text(Speech(0)) is None
    assert not stage.events
    assert not stage.items


def test_heard_text_is_reported_as_it_plays_and_only_what_is_new(stage):
    stage.tracker.report_heard()
    stage.start()
    stage.text("one two three four")
    stage.audio(1000)
    stage.done()
    stage.tracker.report_heard()
    heard = []
    for _ in range(12):
        stage.play(100)
        stage.tracker.report_heard()
        heard = [event.text for event in stage.of(AgentHeardEvent)]
    assert len(heard) > 1
    assert "one two three four".startswith("".join(heard).strip())
    stage.start("s")
    stage.text("five", "s", "j")
    stage.audio(1000, "s", "j")
    stage.done("s")
    stage.play(900)
    stage.tracker.report_heard()
    stage.play(200)
    assert stage.items[-1] == ("j", "five", "heard")


def test_what_was_heard_is_looked_at_only_when_more_was_played_or_written(stage, monkeypatch):
    stage.start()
    stage.text("One two three four.")
    stage.audio(1000)
    looked = []
    original = Speech.text_until
    monkeypatch.setattr(Speech, "text_until", lambda *args: looked.append(args) or original(*args))
    stage.play(400)
    stage.playout.hold()
    stage.play(60)
    for _ in range(3):
        stage.tracker.report_heard()
    assert len(looked) == 1
    stage.text(" Five.")
    stage.tracker.report_heard()
    assert len(looked) == 2
    stage.playout.resume()
    stage.play(200)
    stage.tracker.report_heard()
    assert len(looked) == 3


def test_interruption_cuts_the_item_and_the_models_history(stage):
    stage.start()
    stage.text("one two ", item="a", start=0)
    stage.audio(400, item="a")
    stage.text("three four", item="b")
    stage.audio(400, item="b")
    stage.text("five", item="c")
    stage.audio(100, item="c")
    stage.play(500)
    changes = stage.interrupt()
    assert [type(change) for change in changes] == [Truncate, DeleteItem]
    assert changes[0].item_id == "b"
    assert changes[1] == DeleteItem("c")
    (item,) = stage.conversation
    assert (item.id, item.state) == ("a", "cut")
    assert item.text.startswith("one two")
    assert stage.of(AgentTurnEndedEvent)[0].interrupted
    stage.audio(100)
    assert not stage.playout.active


def test_speech_that_was_not_heard_at_all_is_removed(stage):
    stage.start()
    stage.text("one")
    stage.audio(100)
    stage.playout.tick(0.0)
    assert stage.items == [("i", "", "speaking")]
    assert stage.interrupt() == [DeleteItem("i")]
    assert not stage.items
    assert stage.of(AgentTurnEndedEvent)[0].interrupted


def test_text_without_audio_is_deleted_at_the_model(stage):
    stage.start()
    stage.text("one")
    assert stage.interrupt() == [DeleteItem("i")]
    assert not stage.items


def test_reply_that_only_called_tools_hands_its_speech_to_the_next_one(stage):
    speech = Speech(0)
    stage.tracker.bind_speech("q", speech)
    stage.start(request_id="q")
    stage.tracker.tools_called("r")
    stage.done()
    assert not stage.playout.active
    assert stage.tracker.requests_interruptible
    stage.start("s")
    stage.text("Done.", "s")
    stage.audio(100, "s")
    stage.done("s")
    stage.play(200)
    assert (speech.state, speech.heard_text) == ("heard", "Done.")


@pytest.mark.parametrize("end", ["skipped", "failed", "lost session", "interrupted", "refused"])
def test_speech_that_waits_for_its_tools_ends_when_nothing_follows(stage, end):
    speech = Speech(0)
    stage.tracker.bind_speech("q", speech)
    stage.start(request_id="q")
    stage.tracker.tools_called("r")
    stage.done()
    error = SessionError("no luck")
    match end:
        case "skipped":
            stage.tracker.reply_skipped(7)  # of another epoch
            stage.tracker.reply_skipped(0)
        case "failed" | "refused":
            stage.tracker.request_ended("other", error, "estimated")
        case "lost session":
            stage.tracker.fail(error, "estimated")
        case _:
            stage.interrupt()
    stage.play(40)
    assert speech.done
    assert speech.state == {"skipped": "heard", "interrupted": "cut"}.get(end, "failed")


def test_requests_without_a_reply_end_their_speeches(stage):
    error = SessionError("refused")
    cut, failed, played = Speech(0), Speech(0, interruptible=False), Speech(0)
    for name, speech in (("cut", cut), ("failed", failed), ("played", played)):
        stage.tracker.bind_speech(name, speech)
    assert not stage.tracker.requests_interruptible
    stage.tracker.request_ended("cut", None, "estimated")
    stage.tracker.request_ended("failed", error, "estimated")
    assert (cut.state, failed.state) == ("cut", "failed")
    stage.start("p", "played")
    stage.text("Good", "p")
    stage.audio(400, "p")
    stage.tracker.reply_lost("p", "again")
    stage.tracker.request_ended("again", error, "estimated")
    stage.play(500)
    assert (played.state, played.heard_text) == ("failed", "Good")
    assert stage.items == [("i", "Good", "cut")]


def test_failed_reply_is_reported_and_fails_its_speech(stage):
    speech = Speech(0)
    stage.tracker.bind_speech("q", speech)
    stage.start(request_id="q")
    stage.done(status="failed")
    stage.play(40)
    assert stage.of(ErrorEvent)[0].message == "the model failed to reply"
    assert speech.state == "failed"


def test_reply_continues_on_the_next_connection_as_the_same_speech(stage):
    stage.start()
    stage.text("one two three four")
    stage.audio(400)
    stage.tracker.reply_lost("r", "q")
    stage.text("never spoken")
    stage.tracker.connection_replaced()
    (known,) = stage.tracker.spoken_texts().values()
    stage.start("s", "q")
    stage.text("three four", "s", "j")
    stage.audio(400, "s", "j")
    stage.play(600)
    (change,) = stage.interrupt()
    assert (type(change), change.item_id) == (Truncate, "j")  # "i" was heard to its end
    (item,) = stage.conversation
    assert item.id == "i"
    assert item.text.startswith(known)


def test_lost_reply_without_a_request_ends_or_waits(stage):
    stage.start()
    stage.tracker.reply_lost("r", None)
    assert not stage.playout.active
    stage.start("s")
    stage.text("Good", "s")
    stage.audio(400, "s")
    stage.tracker.reply_lost("s", None)
    stage.play(500)
    assert stage.items == [("i", "Good", "heard")]


def test_reused_item_id_gets_another_one_here(stage):
    stage.conversation.put(UserItem("old", "I was here first."))
    for reply_id, text in (("r", "one"), ("s", "two"), ("t", "three")):
        item = "old" if reply_id == "t" else "i"
        stage.start(reply_id)
        stage.text(text, reply_id, item)
        stage.audio(200, reply_id, item)
        if reply_id == "t":
            stage.play(100)
            assert stage.interrupt() == [Truncate("old", 80, "")]
        else:
            stage.done(reply_id)
            stage.play(300)
    first, second, third = (i for i in stage.conversation if isinstance(i, AgentItem))
    assert (first.id, first.text, second.text) == ("i", "one", "two")
    assert second.id.startswith("i-")
    assert third.id.startswith("old-")


def test_planned_text_is_replaced_and_its_final_transcript_waits(stage):
    stage.start()
    stage.text("I plan this.", planned=True)
    stage.audio(400)
    stage.done()
    stage.play(500)
    assert not stage.of(AgentTranscriptEvent)
    stage.text("I said this.")
    assert [(e.text, e.final) for e in stage.of(AgentTranscriptEvent)] == [
        ("I said this.", False),
        ("I said this.", True),
    ]
    assert stage.items == [("i", "I said this.", "heard")]


@pytest.mark.parametrize("how", ["time", "close"])
def test_planned_text_that_is_never_reported_is_final_after_a_while(stage, how):
    stage.start()
    stage.text("I plan this.", planned=True)
    stage.audio(400)
    stage.done()
    stage.play(500)
    if how == "time":
        stage.play(1600)
    else:
        stage.tracker.close("estimated")
    assert [(e.text, e.final) for e in stage.of(AgentTranscriptEvent)] == [("I plan this.", True)]
    stage.tracker.close("estimated")
    assert len(stage.of(AgentTranscriptEvent)) == 1


@pytest.mark.parametrize(("late", "kept"), [("one", "one"), ("one two three four", None)])
def test_late_transcript_of_a_truncated_reply_only_shortens(stage, late, kept):
    stage.start()
    stage.text("one two three four five six", planned=True)
    stage.audio(1000)
    stage.play(600)
    stage.interrupt()
    (item,) = stage.conversation
    assert item.text.startswith("one two")
    stage.tracker.late_transcript(ReplyText("r", "i", late))
    assert stage.conversation.get("i").text == (item.text if kept is None else kept)


@pytest.mark.parametrize(
    ("report", "later_ms", "known"),
    [
        ("one two three four", 100, "one two three four"),
        ("one", 480, "one"),
        ("", 0, ""),
        ("one two three four", 600, None),
        ("two", 0, None),
    ],
)
def test_what_the_service_says_was_heard_of_a_cut_reply_counts_if_it_fits_in_time(
    stage, report, later_ms, known
):
    stage.start()
    stage.text("one two three four five six")
    stage.audio(1500)
    stage.play(600)
    stage.interrupt()
    (item,) = stage.conversation
    stage.clock.ms += later_ms
    stage.tracker.reply_heard(ReplyHeard("r", "i", report))
    stage.tracker.reply_heard(ReplyHeard("unknown", "i", "one"))
    assert stage.conversation.get("i").text == (item.text if known is None else known)
    assert stage.conversation.get("i").state == "cut"


def test_text_after_a_cut_is_ignored(stage):
    stage.start()
    stage.text("one two")
    stage.audio(1000)
    speech = stage.playout.current
    stage.done()
    stage.play(400)
    for cut in stage.playout.interrupt(1):
        stage.tracker.truncate(cut)
    events = len(stage.events)
    stage.text(" three")
    assert len(stage.events) == events
    assert speech.state == "cut"


def test_model_that_stops_by_itself_loses_the_text_ahead_of_its_audio(stage):
    stage.start()
    stage.text("one two three four five six seven eight nine ten")
    stage.audio(500)
    stage.done(status="cancelled")
    stage.play(600)
    assert stage.items[0][1] in ("one", "one two")


def test_overlong_speech_is_clipped_once_and_truncated_at_the_model(stage):
    stage.start()
    stage.text("one two three four", start=0)
    stage.audio(1900)
    stage.audio(200)
    stage.audio(200)
    stage.done()
    stage.play(2500)
    assert len(stage.of(ErrorEvent)) == 1
    (change,) = stage.changes
    assert (change.item_id, change.played_ms) == ("i", 1900)


def test_stale_audio_of_an_ended_speech_is_no_error(stage):
    stage.start()
    stage.audio(100)
    stage.playout.current.fail(SessionError("gone"))
    stage.playout.interrupt(1)
    stage.audio(100)
    assert not stage.of(ErrorEvent)


def test_text_that_the_voice_left_out_is_reported_shortened(stage):
    stage.start()
    stage.text("A text of many words, none of which the voice can speak at all.")
    stage.done()
    stage.play(40)
    (error,) = stage.of(ErrorEvent)
    assert error.message.startswith('the voice made no audio for "A text of many words')
    assert '..."' in error.message
    assert not stage.items


def test_speech_by_the_agents_own_tts_is_unknown_to_the_model_until_a_reconnect(stage):
    for reconnect in (False, True):
        speech = Speech(stage.playout.epoch)
        stage.playout.begin(speech)
        speech.add_text("one two three four")
        frame = AudioFrame(np.full(RATE, 500, np.int16), RATE)
        assert stage.playout.write(speech, speech.id, frame, speech.epoch)
        stage.play(400)
        if reconnect:
            stage.tracker.connection_replaced()
            assert stage.tracker.known_text(speech) is not None
        changes = stage.interrupt(stage.playout.epoch + 1)
        assert [type(change) for change in changes] == ([Truncate] if reconnect else [])


def test_closing_ends_requested_speeches(stage):
    speech = Speech(0)
    stage.tracker.bind_speech("q", speech)
    stage.tracker.close("device")
    assert (speech.state, speech.quality) == ("cut", "device")


def test_memory_of_replies_items_and_speeches_is_bounded(stage):
    for number in range(1100):
        stage.start(f"r{number}")
        stage.text("word", f"r{number}", f"i{number}")
        stage.done(f"r{number}")
        stage.play(20)
    tracker = stage.tracker
    assert tracker.speech_id_of("r0") is None
    assert tracker.speech_id_of("r1099") is not None
    assert len(tracker._item_owners) == 1024
    assert len(tracker._ended_records) <= 8
    for number in range(10):
        stage.start(f"p{number}")
        stage.text("planned words", f"p{number}", f"p{number}", planned=True)
        stage.audio(200, f"p{number}", f"p{number}", epoch=number)
        stage.play(100)
        stage.interrupt(number + 1)
    assert len(tracker._truncated_plans) <= 4
