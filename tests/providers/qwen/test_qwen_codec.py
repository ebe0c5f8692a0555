"""What is sent to Qwen: what differs from OpenAI, and nothing else."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_codec_harness import ITEM, OLD, QwenLine, frame

from duologue.audio import AudioFrame
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    ToolSpec,
    Truncate,
    UpdateSession,
)
from duologue.realtime.outputs import SayMismatch, SessionStarted, SpeechStarted

JPEG = SendVideo(None, jpeg=b"\xff\xd8\xff")
HISTORY = [
    SystemItem("s", "Guests like <tea>."),
    UserItem("u", "Hello."),
    UserItem("none", None),
    AgentItem("a", "Hi, and"),
    ToolCallItem("t", "call", "time", '{"zone": "CET"}'),
    ToolResultItem("r", "call", "noon", failed=True),
]


def message(role, text):
    kind = "text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": role, "content": content},
    }


# What is sent


def test_a_session_begins_with_its_fields_at_the_top_and_the_history_as_messages():
    line = QwenLine(history=HISTORY, live=False, voice="Ethan")
    session = line.opening[0]["session"]
    assert session["voice"] == "Ethan"
    assert session["instructions"] == "be kind"
    items = [{k: event[k] for k in ("type", "item")} for event in line.opening[1:]]
    assert items == [
        message("user", "<guidance>Guests like &lt;tea&gt;.</guidance>"),
        message("user", "Hello."),
        message("assistant", "Hi, and"),
        message(
            "user",
            '<tool_result name="time" arguments="{&quot;zone&quot;: &quot;CET&quot;}">'
            "error: noon</tool_result>",
        ),
    ]


def test_an_older_model_is_given_no_history():
    line = QwenLine(history=HISTORY, live=False, model=OLD)
    assert [event["type"] for event in line.opening] == ["session.update"]


def test_a_session_lives_two_hours():
    line = QwenLine(live=False)
    assert line.get("session.created", session={"id": "s"}) == []
    assert line.get("session.updated", session={"id": "s"}) == [SessionStarted({"id": "s"}, 7200.0)]


def test_requests_carry_no_name_and_instructions_take_the_place_of_the_sessions():
    line = QwenLine()
    assert line.bare(RequestReply("r1")) == [{"type": "response.create"}]
    [asked] = line.bare(RequestReply("r2", "in French"))
    assert asked["response"] == {
        "instructions": "be kind\n\nin French",
        "modalities": ["text", "audio"],
    }
    line.send(UpdateSession("be brief"))
    [asked] = line.bare(RequestReply("r3", "in French"))
    assert asked["response"]["instructions"] == "be brief\n\nin French"


def test_scripted_text_is_asked_for_within_the_conversation():
    line = QwenLine()
    [asked] = line.bare(Say("r", "Hello."))
    assert asked.keys() == {"type", "response"}
    assert "Hello." in asked["response"]["instructions"]
    line.began(request_id="r")
    line.get("response.audio_transcript.delta", response_id="resp", item_id=ITEM, delta="Hi.")
    assert SayMismatch("resp", "Hello.", "Hi.") in line.done()
    assert line.pending() == []  # It is there already.


def test_instructions_and_tools_change_alone_in_the_nested_shape():
    line = QwenLine()
    tool = ToolSpec("time", "Tells it", {"type": "object"})
    function = {"name": "time", "description": "Tells it", "parameters": {"type": "object"}}
    assert line.bare(UpdateSession("be brief", [tool])) == [
        {
            "type": "session.update",
            "session": {
                "instructions": "be brief",
                "tools": [{"type": "function", "function": function}],
            },
        }
    ]


def test_a_result_goes_to_the_call_that_this_connection_made_and_is_told_to_any_other():
    line = QwenLine(history=[ToolCallItem("t", "old", "time", "{}")])
    item = {"type": "function_call_output", "call_id": "new", "output": "noon"}
    create = {"type": "conversation.item.create", "item": item}
    assert line.bare(SendToolResult("new", "time", "noon")) == [create]
    assert line.bare(SendToolResult("old", "time", "noon")) == [
        message("user", '<tool_result name="time" arguments="{}">noon</tool_result>')
    ]


def test_what_was_heard_is_told_in_words_for_nothing_can_be_cut():
    line = QwenLine(history=[AgentItem("a", "One two three.")])
    heard = "<heard>Of what you said last, the person heard only this: One &lt;two</heard>"
    nothing = "<heard>Of what you said last, the person heard nothing.</heard>"
    assert line.bare(Truncate("a", 500, "One <two")) == [message("user", heard)]
    assert line.bare(DeleteItem("a")) == [message("user", nothing)]
    line.began()
    assert line.bare(DeleteItem(ITEM)) == []  # It has no sound yet, so nobody could have heard it.
    line.sound()
    assert line.bare(DeleteItem(ITEM)) == [message("user", nothing)]
    assert line.bare(DeleteItem("u")) == []


def test_an_item_is_put_in_once():
    line = QwenLine(history=[UserItem("u", "Hello.")])
    assert line.bare(AddItem(UserItem("u", "Hello."))) == []
    line.get("conversation.item.created", item={"id": "theirs"}, previous_item_id=None)
    assert line.bare(AddItem(UserItem("theirs", "Hello."))) == []
    assert line.bare(AddItem(UserItem("new", "Hello."))) == [message("user", "Hello.")]


def test_what_was_written_to_an_older_model_goes_with_the_request():
    line = QwenLine(model=OLD)
    assert line.bare(AddItem(UserItem("u", "Who are you?", spoken=False))) == []
    first, again = line.bare(RequestReply("r1")), line.bare(RequestReply("r1"))
    assert first == again  # It was refused as busy, say.
    assert first[0]["response"]["instructions"].startswith("be kind\n\nThe person has written")
    assert first[0]["response"]["instructions"].endswith("Who are you?")
    assert line.bare(RequestReply("r2")) == [{"type": "response.create"}]


def test_what_was_written_to_an_older_model_and_not_answered_is_not_lost_with_a_connection():
    asked = UserItem("u", "Who are you?", spoken=False)
    line = QwenLine(model=OLD, history=[UserItem("b", "Old.", spoken=False), AgentItem("a", "x")])
    assert line.bare(RequestReply("r")) == [{"type": "response.create"}]
    line = QwenLine(model=OLD, history=[AgentItem("a", "x"), asked])
    [event] = line.bare(RequestReply("r"))
    assert "Who are you?" in event["response"]["instructions"]


# Pictures


def test_a_picture_goes_behind_some_sound():
    line = QwenLine()
    silence, image = line.bare(JPEG)
    assert silence["type"] == "input_audio_buffer.append"
    assert base64.b64decode(silence["audio"]) == bytes(3200)
    assert image == {"type": "input_image_buffer.append", "image": "/9j/"}
    assert [event["type"] for event in line.send(JPEG)] == ["input_image_buffer.append"]


def test_sound_of_the_person_will_do_till_the_turn_ends():
    line = QwenLine()
    line.send(SendAudio(frame(320)))
    assert len(line.send(JPEG)) == 1
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    line.turn()
    assert len(line.send(JPEG)) == 2


@pytest.mark.parametrize("end", [EndTurn(), ClearInput()])
def test_a_turn_that_the_program_ends_takes_its_sound_along(end):
    line = QwenLine()
    line.send(SendAudio(frame(320)))
    line.send(end)
    assert len(line.send(JPEG)) == 2


def test_places_stay_right_however_often_silence_was_put_in():
    line = QwenLine()
    for _ in range(200):
        line.send(JPEG)
        line.send(ClearInput())
        line.send(SendAudio(frame(160)))
        line.send(ClearInput())
    place = 200 * (1600 + 160) // 16
    [started] = line.get("input_audio_buffer.speech_started", item_id="u", audio_start_ms=place)
    assert started.position == 200 * 160
    assert len(line.codec._input_turns._inserted_silence) <= 64


def test_a_picture_that_is_no_jpeg_yet_brings_nothing():
    assert QwenLine().send(SendVideo(None)) == []


@given(st.lists(st.one_of(st.just("picture"), st.integers(1, 4000)), max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_places_are_those_of_the_persons_own_sound(steps, data):
    """However much silence was put in, a place that the service tells is one of what was said."""
    line = QwenLine()
    theirs = ours = 0
    known = [(0, 0)]
    for step in steps:
        if step == "picture":
            theirs += sum(
                len(base64.b64decode(e["audio"])) // 2 for e in line.send(JPEG) if "audio" in e
            )
            line.send(ClearInput())
        else:
            line.send(SendAudio(frame(step * 16)))
            theirs, ours = theirs + step * 16, ours + step * 16
        known.append((theirs, ours))
    place, expected = data.draw(st.sampled_from(known))
    [started] = line.get(
        "input_audio_buffer.speech_started", item_id="u", audio_start_ms=place // 16
    )
    assert started == SpeechStarted("u", None, expected)


# Ids


@given(st.lists(st.sampled_from(range(9)), max_size=60))
@settings(max_examples=40, deadline=None)
def test_no_two_events_have_the_same_id(steps):
    commands = [
        SendAudio(frame(320)),
        JPEG,
        EndTurn(),
        AddItem(UserItem("x", "Hm.")),
        CancelReply("resp"),
        SendToolResult("c", "t", "o"),
        UpdateSession("be brief"),
        Truncate("a", 1, "x"),
        Say("q", "Hello."),
    ]
    line = QwenLine(history=HISTORY)
    line.began()
    events = [*line.opening]
    for index, step in enumerate(steps):
        command = commands[step]
        match command:
            case AddItem():
                command = AddItem(UserItem(f"u{index}", "Hm."))
            case Say():
                command = Say(f"r{index}", "Hello.", interruptible=False)
        events += line.send(command)
    events += [json.loads(message) for message in line.codec.closing_messages()]
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    assert events[-1]["type"] == "session.finish"


def test_sound_goes_as_it_is():
    samples = np.arange(-160, 160, dtype=np.int16)
    sent = AudioFrame(samples, 16000)
    [event] = QwenLine().send(SendAudio(sent))
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"]) == sent.to_bytes()
    assert event["event_id"]
