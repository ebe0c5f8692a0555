import base64

import numpy as np
import pytest
from codec_harness import HISTORY, ITEM, CodecHarness, without_id

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.items import UserItem
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
from duologue.realtime.outputs import Alive, ProviderError, ReplyDone, SayMismatch, SessionStarted
from duologue.video import VideoFrame


def test_websocket_opens_with_the_session_and_the_history():
    harness = CodecHarness(history=HISTORY, confirmed=False)
    assert harness.opening[0]["type"] == "session.update"
    assert harness.opening[0]["session"]["instructions"] == "be kind"
    assert [event["item"] for event in harness.opening[1:]] == [
        {
            "id": "s",
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": "Guests like tea."}],
        },
        {
            "id": "u",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hello."}],
        },
        {
            "id": "a",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi, and"}],
        },
        {"id": "t", "type": "function_call", "call_id": "call", "name": "time", "arguments": "{}"},
        {"id": "r", "type": "function_call_output", "call_id": "call", "output": "error: noon"},
    ]
    assert len({event["event_id"] for event in harness.opening}) == len(harness.opening)


def test_webrtc_call_opens_with_only_the_history():
    harness = CodecHarness("webrtc", history=HISTORY[:2], confirmed=False)
    assert [event["type"] for event in harness.opening] == ["conversation.item.create"] * 2


def test_websocket_session_starts_once_the_server_confirms_it():
    harness = CodecHarness(confirmed=False, now=lambda: 1000.0)
    assert harness.receive("session.created", session={"expires_at": 4600}) == []
    assert harness.receive("session.updated", session={"a": 1}) == [
        SessionStarted({"a": 1}, 3600.0)
    ]
    assert harness.receive("session.updated", session={"a": 2}) == [Alive()]


def test_session_expiry_is_measured_by_the_servers_clock():
    harness = CodecHarness(confirmed=False, now=lambda: 1000.0 + 3590)
    harness.codec.set_server_time(1000.0)
    session = {"expires_at": 4600}
    assert harness.receive("session.updated", session=session) == [SessionStarted(session, 3600.0)]


def test_webrtc_session_starts_when_it_is_created():
    harness = CodecHarness("webrtc", confirmed=False, now=lambda: 1000.0)
    [started] = harness.receive("session.created", session={"expires_at": 900})
    assert started == SessionStarted({"expires_at": 900}, None)
    assert harness.receive("session.updated", session={}) == [Alive()]


def test_ping_is_a_session_update_without_changes():
    harness = CodecHarness()
    [event] = harness.send(Ping())
    assert (event["type"], event["session"]) == ("session.update", {"type": "realtime"})
    assert harness.receive_error(event["event_id"]) == [Alive()]


def test_refused_initial_session_is_fatal():
    harness = CodecHarness(confirmed=False)
    event_id = harness.opening[0]["event_id"]
    assert harness.receive_error(event_id, "missing") == [
        ProviderError(ErrorKind.FATAL, "missing", "No.")
    ]


def test_refused_later_session_update_is_not_fatal():
    harness = CodecHarness()
    [event] = harness.send(UpdateSession("be brief"))
    assert harness.receive_error(event["event_id"]) == [
        ProviderError(ErrorKind.UNKNOWN, "odd", "No.")
    ]


# Commands


def test_audio_is_appended_over_a_websocket_and_passed_through_over_webrtc():
    frame = AudioFrame(np.arange(-240, 240, dtype=np.int16), 24000)
    [event] = CodecHarness().send(SendAudio(frame))
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"]) == frame.to_bytes()
    assert list(CodecHarness("webrtc").codec.encode(SendAudio(frame))) == [frame]


TOOL = ToolSpec("time", "Tells it", {"type": "object"})
FLAT = {
    "type": "function",
    "name": "time",
    "description": "Tells it",
    "parameters": TOOL.parameters,
}


@pytest.mark.parametrize(
    ("command", "events"),
    [
        (EndTurn(), [{"type": "input_audio_buffer.commit"}]),
        (ClearInput(), [{"type": "input_audio_buffer.clear"}]),
        (
            AddItem(UserItem("u", "Hm.")),
            [
                {
                    "type": "conversation.item.create",
                    "item": {
                        "id": "u",
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": "Hm."}],
                    },
                }
            ],
        ),
        (AddItem(UserItem("u", None)), []),
        (DeleteItem("never there"), []),
        (
            SendToolResult("c", "time", "noon"),
            [
                {
                    "type": "conversation.item.create",
                    "item": {"type": "function_call_output", "call_id": "c", "output": "noon"},
                }
            ],
        ),
        (
            UpdateSession("be brief"),
            [
                {
                    "type": "session.update",
                    "session": {"type": "realtime", "instructions": "be brief"},
                }
            ],
        ),
        (
            UpdateSession(tools=[TOOL]),
            [{"type": "session.update", "session": {"type": "realtime", "tools": [FLAT]}}],
        ),
        (
            RequestReply("q"),
            [{"type": "response.create", "response": {"metadata": {"request_id": "q"}}}],
        ),
        (
            RequestReply("q", "In French."),
            [
                {
                    "type": "response.create",
                    "response": {
                        "metadata": {"request_id": "q"},
                        "instructions": "be kind\n\nIn French.",
                    },
                }
            ],
        ),
        (
            Say("q", 'Good """day"""'),
            [
                {
                    "type": "response.create",
                    "response": {
                        "conversation": "none",
                        "input": [],
                        "output_modalities": ["audio"],
                        "tools": [],
                        "tool_choice": "none",
                        "metadata": {"request_id": "q"},
                        "instructions": "Say exactly the following text, word for word, in its "
                        'language, and nothing else:\n"""Good "day""""',
                    },
                }
            ],
        ),
        (CancelReply("gone"), []),
        (SendVideo(VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_command_is_encoded_as_these_events(command, events):
    assert CodecHarness().send_without_ids(command) == events


def test_reply_instructions_are_added_to_the_latest_session_instructions():
    harness = CodecHarness()
    harness.send(UpdateSession("be brief"))
    [event] = harness.send(RequestReply("q", "Now."))
    assert event["response"]["instructions"] == "be brief\n\nNow."


def test_cancel_stops_the_response_and_clears_its_audio_over_webrtc():
    harness = CodecHarness()
    harness.start_reply()
    cancel = {"type": "response.cancel", "response_id": "resp"}
    assert harness.send_without_ids(CancelReply("resp")) == [cancel]
    call = CodecHarness("webrtc")
    call.start_reply()
    clear = {"type": "output_audio_buffer.clear"}
    assert call.send_without_ids(CancelReply("resp")) == [cancel, clear]
    call.finish_reply()
    assert call.send_without_ids(CancelReply("resp")) == [clear]


def test_only_the_newest_images_are_kept():
    harness = CodecHarness(images_kept=2)
    frame = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
    sent = [harness.send_without_ids(SendVideo(frame, jpeg=b"\xff\xd8%d" % i)) for i in range(3)]
    assert [event["type"].rpartition(".")[2] for event in sent[2]] == ["delete", "create"]
    assert sent[2][0]["item_id"] == sent[0][0]["item"]["id"]
    content = sent[2][1]["item"]["content"]
    url = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd82").decode()
    assert content == [{"type": "input_image", "image_url": url}]


def test_overlong_id_is_always_shortened_the_same_way():
    harness = CodecHarness()
    long = "5f7b5c1e-8f0e-4a8c-9c66-0d6d2f6f7a11"
    [create] = harness.send(AddItem(UserItem(long, "Hm.")))
    assert len(create["item"]["id"]) <= 32
    [delete] = harness.send(DeleteItem(long))
    assert delete["item_id"] == create["item"]["id"]


# Truncation


def test_spoken_item_is_truncated_within_the_audio_received():
    harness = CodecHarness()
    harness.start_reply()
    harness.receive_audio(np.ones(24000), content_index=1)
    for asked, sent in ((700, 700), (5000, 1000)):
        assert harness.send_without_ids(Truncate(ITEM, asked, "Hi")) == [
            {
                "type": "conversation.item.truncate",
                "item_id": ITEM,
                "content_index": 1,
                "audio_end_ms": sent,
            }
        ]


@pytest.mark.parametrize(("item", "before"), [("s", "root"), ("a", "u")])
def test_text_item_is_replaced_in_place(item, before):
    harness = CodecHarness(history=HISTORY[:4])
    delete, create = harness.send_without_ids(Truncate(item, 300, "Hi,"))
    assert delete == {"type": "conversation.item.delete", "item_id": item}
    assert create["previous_item_id"] == before
    assert create["item"]["content"] == [{"type": "output_text", "text": "Hi,"}]


def test_item_is_replaced_where_the_server_placed_it():
    harness = CodecHarness()
    harness.send(AddItem(UserItem("mine", "Hm.")))
    harness.receive("conversation.item.added", item={"id": "x"}, previous_item_id=None)
    harness.receive("conversation.item.added", item={"id": "mine"}, previous_item_id="x")
    _, create = harness.send(AddItem(UserItem("mine", "Oh.")))
    assert create["previous_item_id"] == "x"


def test_confirmed_deletion_does_not_remove_the_replacement_item():
    harness = CodecHarness(history=HISTORY[:4])
    harness.send(Truncate("a", 300, "Hi"))
    harness.receive("conversation.item.deleted", item_id="a")
    assert [event["type"] for event in harness.send_without_ids(DeleteItem("a"))] == [
        "conversation.item.delete"
    ]
    harness.receive("conversation.item.deleted", item_id="a")
    assert harness.send(DeleteItem("a")) == []


def test_item_deleted_by_the_server_is_not_deleted_again():
    harness = CodecHarness(history=HISTORY[:2])
    harness.receive("conversation.item.deleted", item_id="u")
    assert harness.send(DeleteItem("u")) == []


def test_truncation_beyond_the_audio_is_retried_at_the_servers_length():
    harness = CodecHarness()
    harness.start_reply()
    harness.receive_audio(np.ones(24000))
    [cut] = harness.send(Truncate(ITEM, 900, "Hi"))
    message = "Audio content of 800ms is already shorter than 900ms"
    [error] = harness.receive_error(cut["event_id"], "invalid_value", message)
    assert error.kind is ErrorKind.BENIGN
    assert [without_id(event) for event in harness.pending()] == [
        {**without_id(cut), "audio_end_ms": 800}
    ]
    assert harness.pending() == []


def test_item_is_appended_when_its_predecessor_is_missing():
    harness = CodecHarness(history=HISTORY[:4])
    _, create = harness.send(Truncate("a", 300, "Hi"))
    [error] = harness.receive_error(create["event_id"], "item_not_found")
    assert error.kind is ErrorKind.BENIGN
    [again] = harness.pending()
    assert without_id(again) == {"type": "conversation.item.create", "item": create["item"]}


# Scripted text


def say(harness, text="Good morning!", said="good  morning", status="completed"):
    harness.send(Say("q", text))
    harness.start_reply(request_id="q")
    harness.receive_text(said)
    harness.receive_audio(np.ones(2400))
    return harness.finish_reply(status=status)


def test_out_of_band_speech_is_added_to_the_conversation():
    harness = CodecHarness()
    assert say(harness) == [ReplyDone("resp")]
    [create] = harness.pending()
    assert create["item"] == {
        "id": ITEM,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "good  morning"}],
    }
    delete, create = harness.send_without_ids(Truncate(ITEM, 50, "good"))
    assert delete["item_id"] == ITEM
    assert create["item"]["content"][0]["text"] == "good"


def test_different_words_than_requested_are_reported():
    harness = CodecHarness()
    assert say(harness, said="Good evening") == [
        SayMismatch("resp", "Good morning!", "Good evening"),
        ReplyDone("resp"),
    ]


def test_scripted_item_truncated_before_its_end_stays_truncated():
    harness = CodecHarness()
    harness.send(Say("q", "Good morning!"))
    harness.start_reply(request_id="q")
    harness.receive_text("Good")
    harness.receive_audio(np.ones(2400))
    [create] = harness.send_without_ids(Truncate(ITEM, 50, "Goo"))
    assert create["item"]["content"][0]["text"] == "Goo"
    harness.finish_reply()
    assert harness.pending() == []


def test_deleted_scripted_item_is_not_added():
    harness = CodecHarness()
    harness.send(Say("q", "Good morning!"))
    harness.start_reply(request_id="q")
    harness.receive_text("Good morning!")
    assert harness.send(DeleteItem(ITEM)) == []
    harness.finish_reply()
    assert harness.pending() == []


def test_two_uninterruptible_texts_in_a_row_each_disable_interruption():
    usual = {"type": "server_vad", "interrupt_response": True, "create_response": True}

    def told(events):
        updates = [event for event in events if event["type"] == "session.update"]
        return [
            update["session"]["audio"]["input"]["turn_detection"]["interrupt_response"]
            for update in updates
        ]

    def answer(interrupts):
        heard = {"turn_detection": {**usual, "interrupt_response": interrupts}}
        harness.receive("session.updated", session={"audio": {"input": heard}})

    harness = CodecHarness()
    answer(True)
    assert told(harness.send(Say("a", "One.", interruptible=False))) == [False]
    answer(False)
    harness.start_reply("one", request_id="a")
    harness.finish_reply("one")
    assert told(harness.pending()) == [True]
    # The server's confirmation of that is still in flight.
    assert told(harness.send(Say("b", "Two.", interruptible=False))) == [False]
    answer(True)
    answer(False)
    harness.start_reply("two", request_id="b")
    harness.finish_reply("two")
    assert told(harness.pending()) == [True]


def test_cancelled_scripted_text_is_not_added():
    harness = CodecHarness()
    assert say(harness, said="Good", status="cancelled") == [ReplyDone("resp", "cancelled")]
    assert harness.pending() == []
