"""Encoding commands for a Gemini model, and changes in mid-session."""

import base64

import numpy as np
from gemini_codec_harness import OLD, TEXT_ONLY, Harness, kinds, texts

from duologue.audio import AudioFrame
from duologue.items import AgentItem, SystemItem, UserItem
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    DeleteItem,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    ToolSpec,
    Truncate,
    UpdateSession,
)
from duologue.realtime.options import ManualTurns
from duologue.video import VideoFrame

# Audio


def test_audio_is_sent_unchanged():
    (message,) = Harness().send(SendAudio(AudioFrame(np.array([1, -2], np.int16), 16000)))
    blob = message["realtimeInput"]["audio"]
    assert blob["mimeType"] == "audio/pcm;rate=16000"
    assert base64.b64decode(blob["data"]) == np.array([1, -2], "<i2").tobytes()


# Changes in mid-session


def test_instructions_change_if_the_model_supports_it():
    assert Harness().send(UpdateSession(instructions="Be brief.")) == [
        {"contextUpdate": {"systemInstruction": {"parts": [{"text": "Be brief."}]}}}
    ]
    assert Harness().send(UpdateSession(tools=[])) == [{"contextUpdate": {"tools": {"tools": []}}}]
    assert Harness().send(UpdateSession()) == []
    assert Harness(OLD).send(UpdateSession(instructions="Be brief.")) == []


def test_new_tools_keep_those_of_the_config():
    harness = Harness(extra={"tools": [{"googleSearch": {}}]})
    (message,) = harness.send(UpdateSession(tools=[]))
    assert message["contextUpdate"]["tools"]["tools"] == [{"googleSearch": {}}]


# Opening


def test_the_first_setup_asks_for_a_new_session():
    harness = Harness(live=False)
    codec = harness.codec
    assert (codec.is_started, codec.resumes_session, codec.awaits_resumption) == (False,) * 3
    harness.receive(setupComplete={})
    assert codec.is_started


def test_a_session_is_resumed_by_its_handle_and_the_changes_since():
    first = Harness(history=[UserItem("u", "Hello.")])
    first.begin_reply()
    first.completed()
    first.handle("h")
    history = [*first.history, UserItem("v", "And now?", spoken=False)]
    second = Harness(resumption=first.resumption, live=False, history=history)
    assert second.codec.awaits_resumption
    second.receive(setupComplete={})
    assert second.codec.resumes_session
    assert not second.codec.awaits_resumption
    assert texts(second.pending()[0]) == [("user", "And now?")]


def test_a_model_without_turns_in_mid_session_gets_the_whole_history_instead():
    first = Harness(TEXT_ONLY, history=[UserItem("u", "Hello.")])
    first.begin_reply()
    first.handle("h")
    history = [*first.history, UserItem("v", "And now?", spoken=False)]
    second = Harness(TEXT_ONLY, resumption=first.resumption, live=False, history=history)
    assert not second.codec.resumes_session
    second.receive(setupComplete={})
    assert texts(second.pending()[0]) == [("user", "Hello."), ("user", "And now?")]


def test_what_was_not_heard_since_the_handle_is_sent():
    first = Harness()
    _, audio = first.begin_reply()
    first.text("One two three.")
    first.completed()
    first.history.append(AgentItem(audio.item_id, "One two three."))
    first.handle("h")
    history = [AgentItem(audio.item_id, "One", "cut", 300)]
    second = Harness(resumption=first.resumption, live=False, history=history)
    second.receive(setupComplete={})
    ((_, note),) = texts(second.pending()[0])
    assert note.endswith('only this was heard: "One"]')


# Commands


def test_pending_messages_precede_those_of_any_command():
    commands = [
        SendAudio(AudioFrame(np.zeros(320, np.int16), 16000)),
        EndTurn(),
        ClearInput(),
        AddItem(SystemItem("s", "Guests like tea.")),
        Truncate("a", 300, "One"),
        DeleteItem("a"),
        RequestReply("q"),
        Say("q", "Good morning."),
        CancelReply("r"),
        SendToolResult("c", "time", "noon"),
        UpdateSession(instructions="Be brief."),
        SendVideo(VideoFrame(np.zeros((4, 4, 3), np.uint8), 0.0), jpeg=b"\xff\xd8"),
        Ping(),
    ]
    for command in commands:
        harness = Harness(history=[UserItem("u", "Hello.")])
        assert texts(harness.send(command)[0]) == [("user", "Hello.")]


def test_without_manual_turns_the_program_can_end_none():
    harness = Harness()
    assert harness.send(EndTurn()) == harness.send(ClearInput()) == []
    assert not harness.codec.awaits_reply


def test_a_manual_turn_awaits_its_reply():
    harness = Harness(turn_detection=ManualTurns())
    harness.send_audio()
    harness.send(EndTurn())
    assert harness.codec.awaits_reply
    harness.begin_reply()
    assert not harness.codec.awaits_reply


def test_clearing_the_input_drops_audio_that_waits_for_the_next_turn():
    harness = Harness(turn_detection=ManualTurns())
    harness.begin_reply()
    harness.send_audio(0.5)
    harness.send(ClearInput())
    assert kinds(harness.send(CancelReply(""))) == ["activityStart"]


def test_audio_that_begins_a_manual_turn_is_our_own_interruption():
    harness = Harness(turn_detection=ManualTurns())
    started, _ = harness.begin_reply()
    harness.send_audio()
    assert kinds(harness.send(CancelReply(started.reply_id)))[0] == "activityStart"
    assert [type(one).__name__ for one in harness.interrupted()] == ["ReplyDone"]


def test_tools_that_change_are_not_sent_to_a_model_that_keeps_its_own():
    harness = Harness(OLD)
    assert harness.send(UpdateSession(tools=[ToolSpec("time", "", {}, "silent")])) == []
    # Their results have the new scheduling nevertheless.
    call = {"id": "c", "name": "time", "args": {}}
    harness.receive(toolCall={"functionCalls": [call]})
    (message,) = harness.send(SendToolResult("c", "time", "noon"))
    (response,) = message["toolResponse"]["functionResponses"]
    assert response["scheduling"] == "SILENT"


def test_a_ping_has_no_message():
    assert Harness().send(Ping()) == []
