import base64

import numpy as np
import pytest
from codec_harness import HISTORY, ITEM, Line, without_id

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


def test_a_socket_begins_with_the_session_and_the_history():
    line = Line(history=HISTORY, live=False)
    assert line.opening[0]["type"] == "session.update"
    assert line.opening[0]["session"]["instructions"] == "be kind"
    assert [event["item"] for event in line.opening[1:]] == [
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
    assert len({event["event_id"] for event in line.opening}) == len(line.opening)


def test_a_call_begins_with_the_history_alone():
    line = Line("webrtc", history=HISTORY[:2], live=False)
    assert [event["type"] for event in line.opening] == ["conversation.item.create"] * 2


def test_a_session_has_started_when_it_is_as_was_asked_for():
    line = Line(live=False, now=lambda: 1000.0)
    assert line.get("session.created", session={"expires_at": 4600}) == []
    assert line.get("session.updated", session={"a": 1}) == [SessionStarted({"a": 1}, 3600.0)]
    assert line.get("session.updated", session={"a": 2}) == [Alive()]


def test_the_end_of_a_session_is_told_by_the_servers_clock():
    line = Line(live=False, now=lambda: 1000.0 + 3590)
    line.codec.set_server_time(1000.0)
    session = {"expires_at": 4600}
    assert line.get("session.updated", session=session) == [SessionStarted(session, 3600.0)]


def test_a_call_has_started_when_it_is_there():
    line = Line("webrtc", live=False, now=lambda: 1000.0)
    [started] = line.get("session.created", session={"expires_at": 900})
    assert started == SessionStarted({"expires_at": 900}, None)
    assert line.get("session.updated", session={}) == [Alive()]


def test_a_sign_of_life_is_asked_for_by_an_update_that_changes_nothing():
    line = Line()
    [event] = line.send(Ping())
    assert (event["type"], event["session"]) == ("session.update", {"type": "realtime"})
    assert line.error(event["event_id"]) == [Alive()]


def test_a_session_that_is_refused_is_the_end():
    line = Line(live=False)
    event_id = line.opening[0]["event_id"]
    assert line.error(event_id, "missing") == [ProviderError(ErrorKind.FATAL, "missing", "No.")]


def test_a_later_change_that_is_refused_is_not():
    line = Line()
    [event] = line.send(UpdateSession("be brief"))
    assert line.error(event["event_id"]) == [ProviderError(ErrorKind.UNKNOWN, "odd", "No.")]


# Commands


def test_sound_is_appended_or_goes_as_it_is():
    frame = AudioFrame(np.arange(-240, 240, dtype=np.int16), 24000)
    [event] = Line().send(SendAudio(frame))
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"]) == frame.to_bytes()
    assert list(Line("webrtc").codec.encode(SendAudio(frame))) == [frame]


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
def test_a_command_is_these_events(command, events):
    assert Line().bare(command) == events


def test_instructions_for_a_reply_come_on_top_of_the_newest():
    line = Line()
    line.send(UpdateSession("be brief"))
    [event] = line.send(RequestReply("q", "Now."))
    assert event["response"]["instructions"] == "be brief\n\nNow."


def test_cancelling_stops_the_response_and_over_webrtc_its_sound():
    line = Line()
    line.began()
    cancel = {"type": "response.cancel", "response_id": "resp"}
    assert line.bare(CancelReply("resp")) == [cancel]
    call = Line("webrtc")
    call.began()
    clear = {"type": "output_audio_buffer.clear"}
    assert call.bare(CancelReply("resp")) == [cancel, clear]
    call.done()
    assert call.bare(CancelReply("resp")) == [clear]


def test_only_the_newest_pictures_stay():
    line = Line(images_kept=2)
    frame = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
    sent = [line.bare(SendVideo(frame, jpeg=b"\xff\xd8%d" % i)) for i in range(3)]
    assert [event["type"].rpartition(".")[2] for event in sent[2]] == ["delete", "create"]
    assert sent[2][0]["item_id"] == sent[0][0]["item"]["id"]
    content = sent[2][1]["item"]["content"]
    url = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd82").decode()
    assert content == [{"type": "input_image", "image_url": url}]


def test_an_id_that_is_too_long_is_shortened_the_same_way_each_time():
    line = Line()
    long = "5f7b5c1e-8f0e-4a8c-9c66-0d6d2f6f7a11"
    [create] = line.send(AddItem(UserItem(long, "Hm.")))
    assert len(create["item"]["id"]) <= 32
    [delete] = line.send(DeleteItem(long))
    assert delete["item_id"] == create["item"]["id"]


# What was heard


def test_a_spoken_item_is_truncated_within_what_came():
    line = Line()
    line.began()
    line.sound(np.ones(24000), content_index=1)
    for asked, sent in ((700, 700), (5000, 1000)):
        assert line.bare(Truncate(ITEM, asked, "Hi")) == [
            {
                "type": "conversation.item.truncate",
                "item_id": ITEM,
                "content_index": 1,
                "audio_end_ms": sent,
            }
        ]


@pytest.mark.parametrize(("item", "before"), [("s", "root"), ("a", "u")])
def test_an_item_that_is_text_there_is_replaced_in_its_place(item, before):
    line = Line(history=HISTORY[:4])
    delete, create = line.bare(Truncate(item, 300, "Hi,"))
    assert delete == {"type": "conversation.item.delete", "item_id": item}
    assert create["previous_item_id"] == before
    assert create["item"]["content"] == [{"type": "output_text", "text": "Hi,"}]


def test_an_item_is_replaced_where_the_server_put_it():
    line = Line()
    line.send(AddItem(UserItem("mine", "Hm.")))
    line.get("conversation.item.added", item={"id": "x"}, previous_item_id=None)
    line.get("conversation.item.added", item={"id": "mine"}, previous_item_id="x")
    _, create = line.send(AddItem(UserItem("mine", "Oh.")))
    assert create["previous_item_id"] == "x"


def test_our_own_deletion_does_not_lose_the_item_that_took_its_place():
    line = Line(history=HISTORY[:4])
    line.send(Truncate("a", 300, "Hi"))
    line.get("conversation.item.deleted", item_id="a")
    assert [event["type"] for event in line.bare(DeleteItem("a"))] == ["conversation.item.delete"]
    line.get("conversation.item.deleted", item_id="a")
    assert line.send(DeleteItem("a")) == []


def test_what_the_server_deleted_is_gone():
    line = Line(history=HISTORY[:2])
    line.get("conversation.item.deleted", item_id="u")
    assert line.send(DeleteItem("u")) == []


def test_a_cut_that_is_too_long_is_made_at_the_length_there_is():
    line = Line()
    line.began()
    line.sound(np.ones(24000))
    [cut] = line.send(Truncate(ITEM, 900, "Hi"))
    message = "Audio content of 800ms is already shorter than 900ms"
    [error] = line.error(cut["event_id"], "invalid_value", message)
    assert error.kind is ErrorKind.BENIGN
    assert [without_id(event) for event in line.pending()] == [
        {**without_id(cut), "audio_end_ms": 800}
    ]
    assert line.pending() == []


def test_a_place_that_is_gone_is_the_end_instead():
    line = Line(history=HISTORY[:4])
    _, create = line.send(Truncate("a", 300, "Hi"))
    [error] = line.error(create["event_id"], "item_not_found")
    assert error.kind is ErrorKind.BENIGN
    [again] = line.pending()
    assert without_id(again) == {"type": "conversation.item.create", "item": create["item"]}


# Scripted text


def say(line, text="Good morning!", said="good  morning", status="completed"):
    line.send(Say("q", text))
    line.began(request_id="q")
    line.words(said)
    line.sound(np.ones(2400))
    return line.done(status=status)


def test_what_was_said_out_of_band_goes_into_the_conversation():
    line = Line()
    assert say(line) == [ReplyDone("resp")]
    [create] = line.pending()
    assert create["item"] == {
        "id": ITEM,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "good  morning"}],
    }
    delete, create = line.bare(Truncate(ITEM, 50, "good"))
    assert delete["item_id"] == ITEM
    assert create["item"]["content"][0]["text"] == "good"


def test_other_words_than_the_wanted_ones_are_told():
    line = Line()
    assert say(line, said="Good evening") == [
        SayMismatch("resp", "Good morning!", "Good evening"),
        ReplyDone("resp"),
    ]


def test_what_was_cut_before_it_was_said_stays_as_it_was_cut():
    line = Line()
    line.send(Say("q", "Good morning!"))
    line.began(request_id="q")
    line.words("Good")
    line.sound(np.ones(2400))
    [create] = line.bare(Truncate(ITEM, 50, "Goo"))
    assert create["item"]["content"][0]["text"] == "Goo"
    line.done()
    assert line.pending() == []


def test_what_was_never_heard_is_never_put_in():
    line = Line()
    line.send(Say("q", "Good morning!"))
    line.began(request_id="q")
    line.words("Good morning!")
    assert line.send(DeleteItem(ITEM)) == []
    line.done()
    assert line.pending() == []


def test_each_of_two_texts_in_a_row_that_may_not_be_interrupted_is_guarded():
    usual = {"type": "server_vad", "interrupt_response": True, "create_response": True}

    def told(events):
        updates = [event for event in events if event["type"] == "session.update"]
        return [
            update["session"]["audio"]["input"]["turn_detection"]["interrupt_response"]
            for update in updates
        ]

    def answer(interrupts):
        heard = {"turn_detection": {**usual, "interrupt_response": interrupts}}
        line.get("session.updated", session={"audio": {"input": heard}})

    line = Line()
    answer(True)
    assert told(line.send(Say("a", "One.", interruptible=False))) == [False]
    answer(False)
    line.began("one", request_id="a")
    line.done("one")
    assert told(line.pending()) == [True]
    # The server's answer to that is still under way.
    assert told(line.send(Say("b", "Two.", interruptible=False))) == [False]
    answer(True)
    answer(False)
    line.began("two", request_id="b")
    line.done("two")
    assert told(line.pending()) == [True]


def test_scripted_text_that_was_cancelled_is_not_put_in():
    line = Line()
    assert say(line, said="Good", status="cancelled") == [ReplyDone("resp", "cancelled")]
    assert line.pending() == []


# Hearing
