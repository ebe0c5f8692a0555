"""Messages to Qwen, where they differ from OpenAI's."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_codec_harness import ITEM, OLD, QwenCodecHarness, frame

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


# Commands


def test_session_opens_with_top_level_fields_and_the_history_as_messages():
    harness = QwenCodecHarness(history=HISTORY, confirmed=False, voice="Ethan")
    session = harness.opening[0]["session"]
    assert session["voice"] == "Ethan"
    assert session["instructions"] == "be kind"
    items = [{k: event[k] for k in ("type", "item")} for event in harness.opening[1:]]
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


def test_older_model_gets_no_history():
    harness = QwenCodecHarness(history=HISTORY, confirmed=False, model=OLD)
    assert [event["type"] for event in harness.opening] == ["session.update"]


def test_session_lives_two_hours():
    harness = QwenCodecHarness(confirmed=False)
    assert harness.receive("session.created", session={"id": "s"}) == []
    assert harness.receive("session.updated", session={"id": "s"}) == [
        SessionStarted({"id": "s"}, 7200.0)
    ]


def test_requests_have_no_id_and_reply_instructions_replace_the_sessions():
    harness = QwenCodecHarness()
    assert harness.send_without_ids(RequestReply("r1")) == [{"type": "response.create"}]
    [asked] = harness.send_without_ids(RequestReply("r2", "in French"))
    assert asked["response"] == {
        "instructions": "be kind\n\nin French",
        "modalities": ["text", "audio"],
    }
    harness.send(UpdateSession("be brief"))
    [asked] = harness.send_without_ids(RequestReply("r3", "in French"))
    assert asked["response"]["instructions"] == "be brief\n\nin French"


def test_scripted_text_is_requested_within_the_conversation():
    harness = QwenCodecHarness()
    [asked] = harness.send_without_ids(Say("r", "Hello."))
    assert asked.keys() == {"type", "response"}
    assert "Hello." in asked["response"]["instructions"]
    harness.start_reply(request_id="r")
    harness.receive(
        "response.audio_transcript.delta", response_id="resp", item_id=ITEM, delta="Hi."
    )
    assert SayMismatch("resp", "Hello.", "Hi.") in harness.finish_reply()
    assert harness.pending() == []  # The item exists already.


def test_instructions_and_tools_update_separately():
    harness = QwenCodecHarness()
    tool = ToolSpec("time", "Tells it", {"type": "object"})
    function = {"name": "time", "description": "Tells it", "parameters": {"type": "object"}}
    assert harness.send_without_ids(UpdateSession("be brief", [tool])) == [
        {
            "type": "session.update",
            "session": {
                "instructions": "be brief",
                "tools": [{"type": "function", "function": function}],
            },
        }
    ]


def test_result_of_a_call_from_an_earlier_connection_is_sent_as_text():
    harness = QwenCodecHarness(history=[ToolCallItem("t", "old", "time", "{}")])
    item = {"type": "function_call_output", "call_id": "new", "output": "noon"}
    create = {"type": "conversation.item.create", "item": item}
    assert harness.send_without_ids(SendToolResult("new", "time", "noon")) == [create]
    assert harness.send_without_ids(SendToolResult("old", "time", "noon")) == [
        message("user", '<tool_result name="time" arguments="{}">noon</tool_result>')
    ]


def test_truncation_is_described_in_text():
    harness = QwenCodecHarness(history=[AgentItem("a", "One two three.")])
    heard = "<heard>Of what you said last, the person heard only this: One &lt;two</heard>"
    nothing = "<heard>Of what you said last, the person heard nothing.</heard>"
    assert harness.send_without_ids(Truncate("a", 500, "One <two")) == [message("user", heard)]
    assert harness.send_without_ids(DeleteItem("a")) == [message("user", nothing)]
    harness.start_reply()
    assert (
        harness.send_without_ids(DeleteItem(ITEM)) == []
    )  # It has no audio yet, so nothing of it was heard.
    harness.receive_audio()
    assert harness.send_without_ids(DeleteItem(ITEM)) == [message("user", nothing)]
    assert harness.send_without_ids(DeleteItem("u")) == []


def test_item_is_added_once():
    harness = QwenCodecHarness(history=[UserItem("u", "Hello.")])
    assert harness.send_without_ids(AddItem(UserItem("u", "Hello."))) == []
    harness.receive("conversation.item.created", item={"id": "theirs"}, previous_item_id=None)
    assert harness.send_without_ids(AddItem(UserItem("theirs", "Hello."))) == []
    assert harness.send_without_ids(AddItem(UserItem("new", "Hello."))) == [
        message("user", "Hello.")
    ]


def test_typed_text_to_an_older_model_is_sent_with_the_request():
    harness = QwenCodecHarness(model=OLD)
    assert harness.send_without_ids(AddItem(UserItem("u", "Who are you?", spoken=False))) == []
    first, again = (
        harness.send_without_ids(RequestReply("r1")),
        harness.send_without_ids(RequestReply("r1")),
    )
    assert first == again  # For example, it was refused as busy.
    assert first[0]["response"]["instructions"].startswith("be kind\n\nThe person has written")
    assert first[0]["response"]["instructions"].endswith("Who are you?")
    assert harness.send_without_ids(RequestReply("r2")) == [{"type": "response.create"}]


def test_unanswered_typed_text_to_an_older_model_survives_a_reconnect():
    asked = UserItem("u", "Who are you?", spoken=False)
    harness = QwenCodecHarness(
        model=OLD, history=[UserItem("b", "Old.", spoken=False), AgentItem("a", "x")]
    )
    assert harness.send_without_ids(RequestReply("r")) == [{"type": "response.create"}]
    harness = QwenCodecHarness(model=OLD, history=[AgentItem("a", "x"), asked])
    [event] = harness.send_without_ids(RequestReply("r"))
    assert "Who are you?" in event["response"]["instructions"]


# Images


def test_image_is_preceded_by_audio():
    harness = QwenCodecHarness()
    silence, image = harness.send_without_ids(JPEG)
    assert silence["type"] == "input_audio_buffer.append"
    assert base64.b64decode(silence["audio"]) == bytes(3200)
    assert image == {"type": "input_image_buffer.append", "image": "/9j/"}
    assert [event["type"] for event in harness.send(JPEG)] == ["input_image_buffer.append"]


def test_input_audio_of_the_turn_suffices_before_an_image():
    harness = QwenCodecHarness()
    harness.send(SendAudio(frame(320)))
    assert len(harness.send(JPEG)) == 1
    harness.receive("session.updated", session={"turn_detection": {"type": "server_vad"}})
    harness.receive_turn()
    assert len(harness.send(JPEG)) == 2


@pytest.mark.parametrize("end", [EndTurn(), ClearInput()])
def test_manual_turn_end_requires_new_audio_before_an_image(end):
    harness = QwenCodecHarness()
    harness.send(SendAudio(frame(320)))
    harness.send(end)
    assert len(harness.send(JPEG)) == 2


def test_positions_stay_correct_after_many_inserted_silences():
    harness = QwenCodecHarness()
    for _ in range(200):
        harness.send(JPEG)
        harness.send(ClearInput())
        harness.send(SendAudio(frame(160)))
        harness.send(ClearInput())
    place = 200 * (1600 + 160) // 16
    [started] = harness.receive(
        "input_audio_buffer.speech_started", item_id="u", audio_start_ms=place
    )
    assert started.position == 200 * 160
    assert len(harness.codec._input_turns._inserted_silence) <= 64


def test_unencoded_image_sends_nothing():
    assert QwenCodecHarness().send(SendVideo(None)) == []


@given(st.lists(st.one_of(st.just("image"), st.integers(1, 4000)), max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_positions_exclude_inserted_silence(steps, data):
    """Positions refer to the input audio, however much silence was inserted."""
    harness = QwenCodecHarness()
    theirs = ours = 0
    known = [(0, 0)]
    for step in steps:
        if step == "image":
            theirs += sum(
                len(base64.b64decode(e["audio"])) // 2 for e in harness.send(JPEG) if "audio" in e
            )
            harness.send(ClearInput())
        else:
            harness.send(SendAudio(frame(step * 16)))
            theirs, ours = theirs + step * 16, ours + step * 16
        known.append((theirs, ours))
    place, expected = data.draw(st.sampled_from(known))
    [started] = harness.receive(
        "input_audio_buffer.speech_started", item_id="u", audio_start_ms=place // 16
    )
    assert started == SpeechStarted("u", None, expected)


# Ids


@given(st.lists(st.sampled_from(range(9)), max_size=60))
@settings(max_examples=40, deadline=None)
def test_event_ids_are_unique(steps):
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
    harness = QwenCodecHarness(history=HISTORY)
    harness.start_reply()
    events = [*harness.opening]
    for index, step in enumerate(steps):
        command = commands[step]
        match command:
            case AddItem():
                command = AddItem(UserItem(f"u{index}", "Hm."))
            case Say():
                command = Say(f"r{index}", "Hello.", interruptible=False)
        events += harness.send(command)
    events += [json.loads(message) for message in harness.codec.closing_messages()]
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    assert events[-1]["type"] == "session.finish"


def test_audio_is_sent_unchanged():
    samples = np.arange(-160, 160, dtype=np.int16)
    sent = AudioFrame(samples, 16000)
    [event] = QwenCodecHarness().send(SendAudio(sent))
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"]) == sent.to_bytes()
    assert event["event_id"]
