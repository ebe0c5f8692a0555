"""Commands as events for an OpenAI server."""

from types import SimpleNamespace

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.items import UserItem
from duologue.providers._openai_protocol.encoder import Encoder
from duologue.providers._openai_protocol.sent_events import PING_ID
from duologue.providers._openai_protocol.server_conversation import ServerConversation
from duologue.providers._openai_protocol.tagged_requests import TaggedRequests
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
    Truncate,
    UpdateSession,
)
from duologue.video import VideoFrame

IMAGE = VideoFrame(np.zeros((4, 4, 3), np.uint8), 0.0)


class Responses(dict):
    """The replies that the server is making, and what was recorded about them."""

    def __init__(self, *reply_ids):
        super().__init__(dict.fromkeys(reply_ids))
        self.recorded = []

    def mark_truncated(self, item_id):
        self.recorded.append(("truncated", item_id))

    def mark_cancelled(self, reply_id):
        self.recorded.append(("cancelled", reply_id))

    def expect_verbatim(self, command):
        self.recorded.append(("verbatim", command.text))


def make(*reply_ids, reply_slicer=None):
    session = SimpleNamespace(
        build_update=lambda change: {"instructions": change.instructions},
        build_ping=lambda: {"type": "realtime"},
    )
    dialect = SimpleNamespace(session=session, requests=TaggedRequests())
    protect = {"type": "session.update", "session": {}}
    guard = SimpleNamespace(protect=lambda say: [] if say.interruptible else [protect])
    responses = Responses(*reply_ids)
    conversation = ServerConversation(24000, 2)
    encoder = Encoder(dialect, conversation, responses, guard, reply_slicer=reply_slicer)
    return encoder, responses


def types(events):
    return [event["type"] for event in events]


def test_audio_and_images_without_jpeg_have_no_event_here():
    encoder, _ = make()
    assert encoder.encode(SendAudio(AudioFrame(np.zeros(480, np.int16), 24000))) == ()
    assert encoder.encode(SendVideo(IMAGE)) == ()
    (event,) = encoder.encode(SendVideo(IMAGE, jpeg=b"jpeg"))
    assert event["item"]["content"][0]["image_url"] == "data:image/jpeg;base64,anBlZw=="


def test_items_and_results_are_added_to_the_conversation():
    encoder, _ = make()
    (event,) = encoder.encode(AddItem(UserItem("u", "Hello.")))
    assert event["item"]["content"] == [{"type": "input_text", "text": "Hello."}]
    (event,) = encoder.encode(SendToolResult("c", "time", "noon"))
    assert event["item"]["output"] == "noon"


def test_turns_are_ended_and_cleared():
    encoder, _ = make()
    assert types(encoder.encode(EndTurn())) == ["input_audio_buffer.commit"]
    assert types(encoder.encode(ClearInput())) == ["input_audio_buffer.clear"]


def test_what_was_heard_of_an_item_is_recorded_even_if_the_server_lacks_it():
    encoder, responses = make()
    assert encoder.encode(DeleteItem("a")) == []
    assert types(encoder.encode(Truncate("b", 300, "One"))) == ["conversation.item.create"]
    assert responses.recorded == [("truncated", "a"), ("truncated", "b")]


def test_instructions_of_a_reply_are_joined_with_the_newest_of_the_session():
    encoder, _ = make()
    encoder.encode(UpdateSession(instructions="Be kind."))
    encoder.encode(UpdateSession(tools=()))
    (event,) = encoder.encode(RequestReply("q", "Be brief."))
    assert event["response"]["instructions"] == "Be kind.\n\nBe brief."


def test_a_ping_has_an_id_of_its_own():
    (event,) = make()[0].encode(Ping())
    assert (event["event_id"], event["type"]) == (PING_ID, "session.update")


@pytest.mark.parametrize("interruptible", [True, False])
def test_scripted_text_is_protected_before_it_is_requested(interruptible):
    encoder, responses = make()
    events = encoder.encode(Say("q", "Good morning.", interruptible=interruptible))
    assert types(events) == ["session.update"] * (not interruptible) + ["response.create"]
    assert responses.recorded == [("verbatim", "Good morning.")]


def test_only_a_running_reply_is_cancelled():
    encoder, responses = make("r")
    assert types(encoder.encode(CancelReply("r"))) == ["response.cancel"]
    assert encoder.encode(CancelReply("ended")) == []
    assert responses.recorded == [("cancelled", "r")]


def test_over_webrtc_the_buffer_is_cleared_unless_another_reply_plays_from_it():
    slicer = SimpleNamespace(playing_reply=None)
    encoder, _ = make("r", reply_slicer=slicer)
    assert types(encoder.encode(CancelReply("r"))) == [
        "response.cancel",
        "output_audio_buffer.clear",
    ]
    slicer.playing_reply = "another"
    assert types(encoder.encode(CancelReply("ended"))) == []
    slicer.playing_reply = "ended"
    assert types(encoder.encode(CancelReply("ended"))) == ["output_audio_buffer.clear"]
