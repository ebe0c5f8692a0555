"""Replies that the person's voice must not interrupt."""

from types import SimpleNamespace

from duologue.providers._openai_protocol.input_turns import InputTurns
from duologue.providers._openai_protocol.uninterruptible import UninterruptibleReplies
from duologue.realtime.commands import Say
from duologue.realtime.outputs import ReplyDone, ReplyRefused, ReplyStarted, ReplyText

VAD = {"type": "server_vad", "threshold": 0.5}


def protected(detection=VAD):
    turns = InputTurns(24000, has_positions=True)
    turns.configure({"turn_detection": detection})
    session = SimpleNamespace(build_turn_detection=lambda value: {"turn_detection": value})
    return UninterruptibleReplies(session, turns), turns


def say(request_id, *, interruptible=False):
    return Say(request_id, "Good morning.", interruptible=interruptible)


def detections(events):
    return [event["session"]["turn_detection"] for event in events]


def test_interruption_is_off_from_the_request_to_the_end_of_the_reply():
    replies, _ = protected()
    (off,) = detections(replies.protect(say("q")))
    assert off == {**VAD, "interrupt_response": False}
    assert replies.active
    assert replies.release_ended([ReplyStarted("r", "q")]) == []
    assert replies.release_ended([ReplyText("r", "i", "Good")]) == []
    assert detections(replies.release_ended([ReplyDone("r")])) == [VAD]
    assert not replies.active
    assert replies.release_ended([ReplyDone("r")]) == []


def test_an_interruptible_reply_changes_nothing():
    replies, _ = protected()
    assert replies.protect(say("q", interruptible=True)) == []
    assert replies.release_ended([ReplyStarted("r", "q"), ReplyDone("r")]) == []
    assert not replies.active


def test_interruption_stays_off_until_the_last_of_several_has_ended():
    replies, _ = protected()
    assert len(replies.protect(say("a"))) == 1
    assert replies.protect(say("b")) == []
    started = [ReplyStarted("r", "a"), ReplyStarted("other", None), ReplyStarted("more", "x")]
    assert replies.release_ended([*started, ReplyDone("r")]) == []
    refused = ReplyRefused("b", "busy", "no")
    assert detections(replies.release_ended([refused])) == [VAD]


def test_a_late_confirmation_of_our_own_change_is_not_taken_for_the_usual_setting():
    replies, turns = protected()
    replies.protect(say("a"))
    turns.configure({"turn_detection": {**VAD, "interrupt_response": False}})
    replies.release_ended([ReplyStarted("r", "a"), ReplyDone("r")])
    (off,) = detections(replies.protect(say("b")))
    assert off["interrupt_response"] is False
    refused = ReplyRefused("b", "busy", "no")
    assert detections(replies.release_ended([refused])) == [VAD]


def test_nothing_is_switched_where_the_server_does_not_interrupt():
    for detection in (None, {**VAD, "interrupt_response": False}):
        replies, _ = protected(detection)
        assert replies.protect(say("q")) == []
        assert replies.active
        assert replies.release_ended([ReplyStarted("r", "q"), ReplyDone("r")]) == []
