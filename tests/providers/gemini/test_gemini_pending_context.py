"""What a Gemini model is told: text, history, cuts, pictures, and turns that a program ends."""

import base64
import json

import numpy as np
import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Line, kinds, texts

from duologue.audio import AudioFrame
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.gemini._config import ManualTurns
from duologue.providers.gemini._pending_context import CONTINUE_PROMPT
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    SendAudio,
    SendVideo,
    Truncate,
    UpdateSession,
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


# Sound


def test_sound_is_sent_as_it_is():
    (message,) = Line().send(SendAudio(AudioFrame(np.array([1, -2], np.int16), 16000)))
    blob = message["realtimeInput"]["audio"]
    assert blob["mimeType"] == "audio/pcm;rate=16000"
    assert base64.b64decode(blob["data"]) == np.array([1, -2], "<i2").tobytes()


# A history


@pytest.mark.parametrize("model", [MODEL, TEXT_ONLY, OLD])
def test_a_history_is_told_once_when_the_session_is_there(model):
    line = Line(model, live=False, history=HISTORY)
    assert line.pending() == []
    line.get(setupComplete={})
    (told,) = line.pending()
    # Where it is announced, its end is; elsewhere it would be answered.
    assert told == {"clientContent": {"turns": TURNS, "turnComplete": model != OLD}}
    assert line.pending() == []


def test_the_history_goes_before_all_else():
    line = Line(history=HISTORY[:2])
    assert kinds(line.hears()) == ["clientContent", "audio"]


# Asking for replies


def test_a_written_turn_is_told_and_answered():
    line = Line()
    assert line.send(user("u", "Hello.")) == []
    (told,) = line.send(RequestReply("q"))
    assert texts(told) == [("user", "Hello.")]
    assert told["clientContent"]["turnComplete"] is True


def test_a_reply_to_nothing_new_is_asked_for_by_next_to_nothing():
    line = Line()
    (told,) = line.send(RequestReply("q"))
    assert texts(told) == [("user", CONTINUE_PROMPT)]
    line.send(AddItem(AgentItem("a", "I have said that.")))
    (told,) = line.send(RequestReply("r"))
    assert texts(told) == [("model", "I have said that."), ("user", CONTINUE_PROMPT)]


def test_instructions_for_one_reply_and_scripted_text_are_nobodys_words():
    line = Line()
    (told,) = line.send(RequestReply("q", "Be brief."))
    ((role, text),) = texts(told)
    assert role == "user"
    assert text == "[Not said by the person, for your next reply only: Be brief.]"
    (told,) = line.send(Say("r", 'Say """this""".'))
    ((_, text),) = texts(told)
    assert text.endswith('"""Say "this"."""')


def test_text_for_a_model_that_takes_no_turns():
    line = Line(TEXT_ONLY)
    line.send(AddItem(SystemItem("s", "Guests like tea.")))
    line.send(AddItem(AgentItem("a", "Welcome.")))
    assert line.pending() == []
    line.send(user("u", "Hello."))
    assert line.send(RequestReply("q", "Be brief.")) == [
        {
            "realtimeInput": {
                "text": "Guests like tea.\n\n"
                '[You have said to the person: "Welcome."]\n\n'
                "Hello.\n\n"
                "[Not said by the person, for your next reply only: Be brief.]"
            }
        }
    ]
    assert line.send(RequestReply("r")) == [{"realtimeInput": {"text": CONTINUE_PROMPT}}]


# What is told by the way


def test_items_are_told_when_the_model_does_not_speak():
    line = Line()
    line.send(AddItem(SystemItem("s", "Guests like tea.")))
    (told,) = line.pending()
    assert texts(told) == [("user", "Guests like tea.")]
    assert told["clientContent"]["turnComplete"] is False
    line.began()
    line.send(AddItem(SystemItem("t", "And cake.")))
    assert line.pending() == []
    assert kinds(line.hears()) == ["audio"]
    line.generated()
    assert line.pending() == []  # For the server it is still being heard.
    line.completed()
    assert kinds(line.hears()) == ["clientContent", "audio"]


def test_nothing_is_told_that_would_stop_a_reply_which_is_on_its_way():
    line = Line()
    line.send(RequestReply("q"))
    line.send(AddItem(SystemItem("s", "Guests like tea.")))
    assert line.pending() == []
    line.began()
    line.completed(interactionStatus="IN_PROGRESS")
    assert line.pending() == []  # The server has said that more follows.
    line.began()
    line.completed(interactionStatus="IDLE")
    assert kinds(line.pending()) == ["clientContent"]


# What was not heard


def cut(line, heard="One two", words="One two three four", item=None):
    """A reply that is cut by us in its middle; the id of its message."""
    started, audio = line.began()
    line.words(words)
    line.send(CancelReply(started.reply_id))
    item = item or audio.item_id
    assert line.send(Truncate(item, 900, heard) if heard else DeleteItem(item)) == []
    return item


@pytest.mark.parametrize(("heard", "told"), [("One two", note("One two")), ("", NOTHING)])
def test_the_model_is_told_what_was_heard_once_its_turn_is_over(heard, told):
    line = Line()
    cut(line, heard)
    line.generated()
    assert line.pending() == []
    line.completed()
    (message,) = line.pending()
    assert texts(message) == [("user", told)]
    assert message["clientContent"]["turnComplete"] is False
    assert line.pending() == []


def test_the_next_written_turn_comes_behind_what_was_heard():
    line = Line()
    item = cut(line)
    line.interrupted()
    line.send(user("u", "Stop."))
    (message,) = line.send(RequestReply("q"))
    assert texts(message) == [("user", note("One two")), ("user", "Stop.")]
    # It is known now.
    line.send(Truncate(item, 900, "One  two"))
    line.completed()
    line.completed()
    assert line.pending() == []


def test_messages_that_were_cut_together_are_told_together():
    line = Line()
    first = cut(line, "One")
    line.generated()
    cut(line, "")
    line.completed()
    line.send(Truncate(first, 500, "One two"))  # Healed: a little more was heard.
    ((_, text),) = texts(line.pending()[0])
    assert text == (
        '[The person interrupted you. Of your last 2 messages only this was heard: "One two"]'
    )


def test_what_was_heard_to_its_end_is_not_told():
    line = Line()
    _, audio = line.began()
    line.words("One  two.")
    line.completed()
    line.send(Truncate(audio.item_id, 900, "One two."))
    line.send(Truncate("unknown", 900, "x"))
    line.send(DeleteItem("unknown"))
    assert line.pending() == []


def test_a_reply_that_nobody_wanted_was_not_heard():
    line = Line()
    started, _ = line.began()
    line.words("Too late.")
    line.send(CancelReply(started.reply_id))
    line.generated()
    line.completed()
    assert texts(line.pending()[0]) == [("user", NOTHING)]


def test_words_that_come_late_do_not_undo_what_was_told():
    line = Line()
    item = cut(line)
    line.interrupted()
    line.send(RequestReply("q"))
    line.words(" five")
    line.completed()
    line.send(Truncate(item, 900, "One two"))
    line.began()
    line.completed()
    assert line.pending() == []


def test_told_cuts_can_be_switched_off():
    line = Line(options={"report_truncation": False})
    cut(line)
    line.generated()
    line.completed()
    assert line.pending() == []
    line.send(user("u", "Stop."))
    assert texts(line.send(RequestReply("q"))[0]) == [("user", "Stop.")]


def test_a_message_that_is_cut_before_it_was_told_is_told_as_heard():
    line = Line(TEXT_ONLY)
    line.send(AddItem(AgentItem("a", "One two three.")))
    line.send(AddItem(AgentItem("b", "Four.")))
    line.send(Truncate("a", 500, "One"))
    line.send(DeleteItem("b"))
    (message,) = line.send(RequestReply("q", "Go on."))
    assert message["realtimeInput"]["text"].startswith(
        '[You have said to the person: "One"]\n\n[Not'
    )


def test_a_model_that_takes_no_turns_is_told_with_the_next_text():
    line = Line(TEXT_ONLY)
    cut(line)
    line.generated()
    line.completed()
    assert line.pending() == []
    line.send(user("u", "Stop."))
    assert line.send(RequestReply("q")) == [
        {"realtimeInput": {"text": note("One two") + "\n\nStop."}}
    ]


# Pictures


def test_a_picture_is_jpeg_and_one_of_this_moment_belongs_to_the_question():
    line = Line()
    (message,) = line.send(SendVideo(PICTURE, jpeg=JPEG))
    blob = {"mimeType": "image/jpeg", "data": base64.b64encode(JPEG).decode()}
    assert message == {"realtimeInput": {"video": blob}}
    assert line.send(SendVideo(PICTURE, in_order=True, jpeg=JPEG)) == []
    line.send(user("u", "What is this?"))
    (message,) = line.send(RequestReply("q"))
    (asked,) = message["clientContent"]["turns"]
    assert asked["parts"] == [{"inlineData": blob}, {"text": "What is this?"}]
    assert texts(line.send(RequestReply("r"))[0]) == [("user", CONTINUE_PROMPT)]


def test_a_model_that_takes_no_turns_sees_it_just_before():
    line = Line(TEXT_ONLY)
    assert kinds(line.send(SendVideo(PICTURE, in_order=True, jpeg=JPEG))) == ["video"]
    assert kinds(line.send(RequestReply("q"))) == ["text"]


def test_a_picture_that_nobody_has_encoded_is_not_sent():
    assert Line().send(SendVideo(PICTURE)) == []


# Changes in mid-session


def test_instructions_change_where_they_can():
    assert Line().send(UpdateSession(instructions="Be brief.")) == [
        {"contextUpdate": {"systemInstruction": {"parts": [{"text": "Be brief."}]}}}
    ]
    assert Line().send(UpdateSession(tools=[])) == [{"contextUpdate": {"tools": {"tools": []}}}]
    assert Line().send(UpdateSession()) == []
    assert Line(OLD).send(UpdateSession(instructions="Be brief.")) == []


def test_tools_that_change_leave_those_of_the_config():
    line = Line(options={"extra": {"tools": [{"googleSearch": {}}]}})
    (message,) = line.send(UpdateSession(tools=[]))
    assert message["contextUpdate"]["tools"]["tools"] == [{"googleSearch": {}}]


# Turns that the program ends


def manual(model=MODEL):
    return Line(model, turn_detection=ManualTurns())


def test_a_turn_begins_with_the_first_sound_and_ends_when_it_is_said():
    line = manual()
    assert kinds(line.hears()) == ["activityStart", "audio"]
    assert kinds(line.hears()) == ["audio"]
    assert kinds(line.send(EndTurn())) == ["activityEnd"]
    assert line.send(EndTurn()) == []


def test_sound_after_the_end_of_a_turn_does_not_stop_the_answer_to_it():
    line = manual()
    line.hears()
    line.send(EndTurn())
    sent = [kinds(line.hears()) for _ in range(50)]
    line.began()
    sent += [kinds(line.hears()) for _ in range(50)]
    line.generated()
    sent += [kinds(line.hears()) for _ in range(50)]
    assert not any(sent)
    line.completed()
    begun = kinds(line.hears())
    # What was said in the last second belongs to the next turn.
    assert begun == ["activityStart"] + ["audio"] * 51


def test_the_preroll_is_a_second_whatever_the_size_of_the_pieces():
    line = manual()
    line.hears()
    line.send(EndTurn())
    for seconds in (0.5, 0.01, 0.3, 0.02, 0.7, 0.02, 0.02):
        line.hears(seconds)
    line.send(ClearInput())
    for seconds in (0.5, 0.01, 0.3, 0.02, 0.7, 0.02, 0.02):
        assert line.hears(seconds) == []
    messages = line.send(CancelReply(""))
    pcm = [base64.b64decode(m["realtimeInput"]["audio"]["data"]) for m in messages[1:]]
    assert [len(piece) // 320 for piece in pcm] == [30, 2, 70, 2, 2]


def test_a_turn_that_is_never_answered_does_not_shut_the_person_out():
    line = manual()
    line.hears()
    line.send(EndTurn())
    silent = [line.hears(0.5) for _ in range(15)]
    assert not any(silent)
    assert kinds(line.hears(0.5))[0] == "activityStart"


def test_an_interrupt_begins_a_turn_at_once_and_is_nobodys_barge_in():
    line = manual()
    line.hears()
    line.send(EndTurn())
    started, _ = line.began()
    line.hears()
    assert kinds(line.send(CancelReply(started.reply_id))) == ["activityStart", "audio"]
    assert [type(o).__name__ for o in line.interrupted()] == ["ReplyDone"]
    assert line.completed() == []
    assert kinds(line.hears()) == ["audio"]
    assert line.send(CancelReply("")) == []


def test_a_tool_that_runs_is_not_interrupted_by_the_open_microphone():
    line = manual()
    line.hears()
    line.send(EndTurn())
    line.get(toolCall={"functionCalls": [{"id": "c", "name": "time", "args": {}}]})
    assert not any(line.hears() for _ in range(100))


def test_a_turn_may_be_ended_that_was_said_while_the_model_spoke():
    line = manual()
    line.began()
    line.hears()
    assert kinds(line.send(EndTurn())) == ["activityStart", "audio", "activityEnd"]
    assert [type(o).__name__ for o in line.interrupted()] == ["ReplyDone"]
    assert manual().send(EndTurn()) == []


def test_an_answer_that_is_late_for_an_older_turn_does_not_open_the_next_one():
    line = manual()
    started, _ = line.began()
    line.send(CancelReply(started.reply_id))
    line.hears()
    line.send(EndTurn())
    line.interrupted()
    line.completed()  # Of the turn that was interrupted: the answer is still to come.
    assert line.hears() == []


def test_text_is_answered_though_the_program_ends_the_turns():
    line = manual(TEXT_ONLY)
    assert kinds(line.send(RequestReply("q"))) == ["activityStart", "text", "activityEnd"]
    line.began()
    line.completed()
    line.hears()
    assert kinds(line.send(RequestReply("q"))) == ["text", "activityEnd"]
    assert kinds(manual().send(RequestReply("q"))) == ["clientContent"]


def test_with_the_servers_detection_nothing_is_said_of_activity():
    line = Line()
    started, _ = line.began()
    assert line.send(CancelReply(started.reply_id)) == line.send(EndTurn()) == []
    assert line.send(ClearInput()) == []
    assert "activity" not in json.dumps(line.hears())
