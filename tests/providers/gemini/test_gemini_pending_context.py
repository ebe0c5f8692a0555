"""What a Gemini model is sent: history, text, truncations and images."""

import base64

import numpy as np
import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Harness, kinds, texts

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.gemini._pending_context import CONTINUE_PROMPT
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    DeleteItem,
    RequestReply,
    Say,
    SendVideo,
    Truncate,
)
from duologue.video import VideoFrame

HISTORY = [
    SystemItem("s", "Guests like tea."),
    UserItem("u", "Hello."),
    UserItem("none", None),
    AgentItem("a", "Hi, and"),
    ToolCallItem("t", "call", "time", '{"zone": "x"}'),
    ToolResultItem("r", "call", "noon", failed=True),
]
TURNS = [
    {"role": "user", "parts": [{"text": "Guests like tea."}]},
    {"role": "user", "parts": [{"text": "Hello."}]},
    {"role": "model", "parts": [{"text": "Hi, and"}]},
    {
        "role": "model",
        "parts": [{"functionCall": {"id": "call", "name": "time", "args": {"zone": "x"}}}],
    },
    {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "call", "name": "time", "response": {"error": "noon"}}}
        ],
    },
]
PICTURE = VideoFrame(np.zeros((4, 4, 3), np.uint8), 0.0)
JPEG = b"\xff\xd8jpeg"


def user(item_id, text):
    return AddItem(UserItem(item_id, text))


def note(heard):
    return f'[The person interrupted you. Of your last message only this was heard: "{heard}"]'


NOTHING = "[The person interrupted you. Of your last message nothing was heard.]"


# A history


@pytest.mark.parametrize("model", [MODEL, TEXT_ONLY, OLD])
def test_a_history_is_sent_once_the_session_has_started(model):
    harness = Harness(model, live=False, history=HISTORY)
    assert harness.pending() == []
    harness.receive(setupComplete={})
    (told,) = harness.pending()
    # If it was announced, its end is marked; otherwise the model would reply to it.
    assert told == {"clientContent": {"turns": TURNS, "turnComplete": model != OLD}}
    assert harness.pending() == []


def test_the_history_precedes_everything_else():
    harness = Harness(history=HISTORY[:2])
    assert kinds(harness.send_audio()) == ["clientContent", "audio"]


# Requests for replies


def test_a_written_turn_is_sent_and_answered():
    harness = Harness()
    assert harness.send(user("u", "Hello.")) == []
    (told,) = harness.send(RequestReply("q"))
    assert texts(told) == [("user", "Hello.")]
    assert told["clientContent"]["turnComplete"] is True


def test_a_reply_to_nothing_new_is_requested_with_a_single_character():
    harness = Harness()
    (told,) = harness.send(RequestReply("q"))
    assert texts(told) == [("user", CONTINUE_PROMPT)]
    harness.send(AddItem(AgentItem("a", "I have said that.")))
    (told,) = harness.send(RequestReply("r"))
    assert texts(told) == [("model", "I have said that."), ("user", CONTINUE_PROMPT)]


def test_instructions_and_scripted_text_are_marked_as_not_the_users():
    harness = Harness()
    (told,) = harness.send(RequestReply("q", "Be brief."))
    ((role, text),) = texts(told)
    assert role == "user"
    assert text == "[Not said by the person, for your next reply only: Be brief.]"
    (told,) = harness.send(Say("r", 'Say """this""".'))
    ((_, text),) = texts(told)
    assert text.endswith('"""Say "this"."""')


def test_text_for_a_model_without_turns_in_mid_session():
    harness = Harness(TEXT_ONLY)
    harness.send(AddItem(SystemItem("s", "Guests like tea.")))
    harness.send(AddItem(AgentItem("a", "Welcome.")))
    assert harness.pending() == []
    harness.send(user("u", "Hello."))
    assert harness.send(RequestReply("q", "Be brief.")) == [
        {
            "realtimeInput": {
                "text": "Guests like tea.\n\n"
                '[You have said to the person: "Welcome."]\n\n'
                "Hello.\n\n"
                "[Not said by the person, for your next reply only: Be brief.]"
            }
        }
    ]
    assert harness.send(RequestReply("r")) == [{"realtimeInput": {"text": CONTINUE_PROMPT}}]


# Items sent without a request


def test_items_are_sent_while_the_model_is_silent():
    harness = Harness()
    harness.send(AddItem(SystemItem("s", "Guests like tea.")))
    (told,) = harness.pending()
    assert texts(told) == [("user", "Guests like tea.")]
    assert told["clientContent"]["turnComplete"] is False
    harness.begin_reply()
    harness.send(AddItem(SystemItem("t", "And cake.")))
    assert harness.pending() == []
    assert kinds(harness.send_audio()) == ["audio"]
    harness.generated()
    assert harness.pending() == []  # For the server the reply is still playing.
    harness.completed()
    assert kinds(harness.send_audio()) == ["clientContent", "audio"]


def test_nothing_is_sent_that_would_stop_a_reply_on_its_way():
    harness = Harness()
    harness.send(RequestReply("q"))
    harness.send(AddItem(SystemItem("s", "Guests like tea.")))
    assert harness.pending() == []
    harness.begin_reply()
    harness.completed(interactionStatus="IN_PROGRESS")
    assert harness.pending() == []  # The server has announced another turn.
    harness.begin_reply()
    harness.completed(interactionStatus="IDLE")
    assert kinds(harness.pending()) == ["clientContent"]


# What was not heard


def cut(harness, heard="One two", words="One two three four", item=None):
    """Begin a reply, cancel and truncate it; return the id of its message."""
    started, audio = harness.begin_reply()
    harness.text(words)
    harness.send(CancelReply(started.reply_id))
    item = item or audio.item_id
    assert harness.send(Truncate(item, 900, heard) if heard else DeleteItem(item)) == []
    return item


@pytest.mark.parametrize(("heard", "told"), [("One two", note("One two")), ("", NOTHING)])
def test_the_model_gets_what_was_heard_once_its_turn_is_over(heard, told):
    harness = Harness()
    cut(harness, heard)
    harness.generated()
    assert harness.pending() == []
    harness.completed()
    (message,) = harness.pending()
    assert texts(message) == [("user", told)]
    assert message["clientContent"]["turnComplete"] is False
    assert harness.pending() == []


def test_the_next_written_turn_follows_what_was_heard():
    harness = Harness()
    item = cut(harness)
    harness.interrupted()
    harness.send(user("u", "Stop."))
    (message,) = harness.send(RequestReply("q"))
    assert texts(message) == [("user", note("One two")), ("user", "Stop.")]
    # The server has it now.
    harness.send(Truncate(item, 900, "One  two"))
    harness.completed()
    harness.completed()
    assert harness.pending() == []


def test_messages_truncated_together_are_reported_together():
    harness = Harness()
    first = cut(harness, "One")
    harness.generated()
    cut(harness, "")
    harness.completed()
    harness.send(Truncate(first, 500, "One two"))  # Corrected: the person heard a little more.
    ((_, text),) = texts(harness.pending()[0])
    assert text == (
        '[The person interrupted you. Of your last 2 messages only this was heard: "One two"]'
    )


def test_a_message_heard_completely_is_not_reported():
    harness = Harness()
    _, audio = harness.begin_reply()
    harness.text("One  two.")
    harness.completed()
    harness.send(Truncate(audio.item_id, 900, "One two."))
    harness.send(Truncate("unknown", 900, "x"))
    harness.send(DeleteItem("unknown"))
    assert harness.pending() == []


def test_a_cancelled_reply_that_was_never_played_was_not_heard():
    harness = Harness()
    started, _ = harness.begin_reply()
    harness.text("Too late.")
    harness.send(CancelReply(started.reply_id))
    harness.generated()
    harness.completed()
    assert texts(harness.pending()[0]) == [("user", NOTHING)]


def test_late_text_does_not_undo_a_reported_truncation():
    harness = Harness()
    item = cut(harness)
    harness.interrupted()
    harness.send(RequestReply("q"))
    harness.text(" five")
    harness.completed()
    harness.send(Truncate(item, 900, "One two"))
    harness.begin_reply()
    harness.completed()
    assert harness.pending() == []


def test_reporting_truncation_can_be_switched_off():
    harness = Harness(options={"report_truncation": False})
    cut(harness)
    harness.generated()
    harness.completed()
    assert harness.pending() == []
    harness.send(user("u", "Stop."))
    assert texts(harness.send(RequestReply("q"))[0]) == [("user", "Stop.")]


def test_a_pending_message_that_is_truncated_is_sent_as_heard():
    harness = Harness(TEXT_ONLY)
    harness.send(AddItem(AgentItem("a", "One two three.")))
    harness.send(AddItem(AgentItem("b", "Four.")))
    harness.send(Truncate("a", 500, "One"))
    harness.send(DeleteItem("b"))
    (message,) = harness.send(RequestReply("q", "Go on."))
    assert message["realtimeInput"]["text"].startswith(
        '[You have said to the person: "One"]\n\n[Not'
    )


def test_a_model_without_turns_gets_the_truncation_with_the_next_text():
    harness = Harness(TEXT_ONLY)
    cut(harness)
    harness.generated()
    harness.completed()
    assert harness.pending() == []
    harness.send(user("u", "Stop."))
    assert harness.send(RequestReply("q")) == [
        {"realtimeInput": {"text": note("One two") + "\n\nStop."}}
    ]


# Images


def test_an_image_is_jpeg_and_a_current_one_is_part_of_the_question():
    harness = Harness()
    (message,) = harness.send(SendVideo(PICTURE, jpeg=JPEG))
    blob = {"mimeType": "image/jpeg", "data": base64.b64encode(JPEG).decode()}
    assert message == {"realtimeInput": {"video": blob}}
    assert harness.send(SendVideo(PICTURE, in_order=True, jpeg=JPEG)) == []
    harness.send(user("u", "What is this?"))
    (message,) = harness.send(RequestReply("q"))
    (asked,) = message["clientContent"]["turns"]
    assert asked["parts"] == [{"inlineData": blob}, {"text": "What is this?"}]
    assert texts(harness.send(RequestReply("r"))[0]) == [("user", CONTINUE_PROMPT)]


def test_a_model_without_turns_gets_the_image_just_before_the_text():
    harness = Harness(TEXT_ONLY)
    assert kinds(harness.send(SendVideo(PICTURE, in_order=True, jpeg=JPEG))) == ["video"]
    assert kinds(harness.send(RequestReply("q"))) == ["text"]


def test_an_image_without_jpeg_is_not_sent():
    assert Harness().send(SendVideo(PICTURE)) == []
