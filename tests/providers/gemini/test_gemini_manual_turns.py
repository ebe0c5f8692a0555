"""User turns that the program ends, without the server's activity detection."""

import base64
import json

from gemini_codec_harness import MODEL, TEXT_ONLY, Harness, kinds

from duologue.realtime.commands import (
    CancelReply,
    ClearInput,
    EndTurn,
    RequestReply,
)
from duologue.realtime.options import ManualTurns


def manual(model=MODEL):
    return Harness(model, turn_detection=ManualTurns())


def test_a_turn_begins_with_the_first_audio_and_ends_when_the_program_says_so():
    harness = manual()
    assert kinds(harness.send_audio()) == ["activityStart", "audio"]
    assert kinds(harness.send_audio()) == ["audio"]
    assert kinds(harness.send(EndTurn())) == ["activityEnd"]
    assert harness.send(EndTurn()) == []


def test_audio_after_the_end_of_a_turn_does_not_stop_the_reply():
    harness = manual()
    harness.send_audio()
    harness.send(EndTurn())
    sent = [kinds(harness.send_audio()) for _ in range(50)]
    harness.begin_reply()
    sent += [kinds(harness.send_audio()) for _ in range(50)]
    harness.generated()
    sent += [kinds(harness.send_audio()) for _ in range(50)]
    assert not any(sent)
    harness.completed()
    begun = kinds(harness.send_audio())
    # The last second belongs to the next turn.
    assert begun == ["activityStart"] + ["audio"] * 51


def test_the_preroll_is_a_second_for_any_size_of_frames():
    harness = manual()
    harness.send_audio()
    harness.send(EndTurn())
    for seconds in (0.5, 0.01, 0.3, 0.02, 0.7, 0.02, 0.02):
        harness.send_audio(seconds)
    harness.send(ClearInput())
    for seconds in (0.5, 0.01, 0.3, 0.02, 0.7, 0.02, 0.02):
        assert harness.send_audio(seconds) == []
    messages = harness.send(CancelReply(""))
    pcm = [base64.b64decode(m["realtimeInput"]["audio"]["data"]) for m in messages[1:]]
    assert [len(piece) // 320 for piece in pcm] == [30, 2, 70, 2, 2]


def test_a_turn_without_a_reply_does_not_block_the_next_turn():
    harness = manual()
    harness.send_audio()
    harness.send(EndTurn())
    silent = [harness.send_audio(0.5) for _ in range(15)]
    assert not any(silent)
    assert kinds(harness.send_audio(0.5))[0] == "activityStart"


def test_an_interrupt_begins_a_turn_at_once_and_is_no_barge_in():
    harness = manual()
    harness.send_audio()
    harness.send(EndTurn())
    started, _ = harness.begin_reply()
    harness.send_audio()
    assert kinds(harness.send(CancelReply(started.reply_id))) == ["activityStart", "audio"]
    assert [type(o).__name__ for o in harness.interrupted()] == ["ReplyDone"]
    assert harness.completed() == []
    assert kinds(harness.send_audio()) == ["audio"]
    assert harness.send(CancelReply("")) == []


def test_the_open_microphone_does_not_interrupt_a_running_tool():
    harness = manual()
    harness.send_audio()
    harness.send(EndTurn())
    harness.receive(toolCall={"functionCalls": [{"id": "c", "name": "time", "args": {}}]})
    assert not any(harness.send_audio() for _ in range(100))


def test_a_turn_spoken_while_the_model_spoke_can_be_ended():
    harness = manual()
    harness.begin_reply()
    harness.send_audio()
    assert kinds(harness.send(EndTurn())) == ["activityStart", "audio", "activityEnd"]
    assert [type(o).__name__ for o in harness.interrupted()] == ["ReplyDone"]
    assert manual().send(EndTurn()) == []


def test_a_late_end_of_an_older_turn_does_not_open_the_next_one():
    harness = manual()
    started, _ = harness.begin_reply()
    harness.send(CancelReply(started.reply_id))
    harness.send_audio()
    harness.send(EndTurn())
    harness.interrupted()
    harness.completed()  # It ends the interrupted turn; the reply is still to come.
    assert harness.send_audio() == []


def test_text_is_answered_with_manual_turns_too():
    harness = manual(TEXT_ONLY)
    assert kinds(harness.send(RequestReply("q"))) == ["activityStart", "text", "activityEnd"]
    harness.begin_reply()
    harness.completed()
    harness.send_audio()
    assert kinds(harness.send(RequestReply("q"))) == ["text", "activityEnd"]
    assert kinds(manual().send(RequestReply("q"))) == ["clientContent"]


def test_with_the_servers_detection_no_activity_is_sent():
    harness = Harness()
    started, _ = harness.begin_reply()
    assert harness.send(CancelReply(started.reply_id)) == harness.send(EndTurn()) == []
    assert harness.send(ClearInput()) == []
    assert "activity" not in json.dumps(harness.send_audio())
