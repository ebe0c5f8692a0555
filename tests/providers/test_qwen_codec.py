"""What Qwen's dialect is in OpenAI's codec: what differs, and nothing else."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_line import ITEM, OLD, QwenLine, frame

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
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import (
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    SessionStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Usage,
    UserTranscript,
    UserTurnEnded,
)

NONE_ACTIVE = "Conversation has none active response"
ACTIVE = "Conversation already has an active response"
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
    assert len(line.codec._hearing._inserted) <= 64


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
    events += [json.loads(message) for message in line.codec.farewell()]
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    assert events[-1]["type"] == "session.finish"


# What comes


def test_a_turn_and_its_words_with_what_is_not_sure_yet():
    line = QwenLine()
    assert line.turn(end_ms=800) == [
        SpeechStarted("u", None, 0),
        SpeechStopped("u", None, 12800),
        UserTurnEnded("u", reply_follows=True, position=12800),
    ]
    words = "conversation.item.input_audio_transcription"
    got = line.get(f"{words}.delta", item_id="u", text="", stash="How are")
    got += line.get(f"{words}.delta", item_id="u", text="How are", stash=" you")
    got += line.get(f"{words}.completed", item_id="u", transcript="How are you?")
    assert got == [
        UserTranscript("u", "How are", final=False),
        UserTranscript("u", "How are you", final=False),
        UserTranscript("u", "How are you?", final=True),
    ]


def test_a_reply_with_its_names_of_old_and_usage_by_modality():
    line = QwenLine()
    line.began()
    [heard] = line.sound(240)
    assert (heard.reply_id, heard.item_id, len(heard.frame), heard.frame.rate) == (
        "resp", ITEM, 240, 24000,
    )  # fmt: skip
    place = {"response_id": "resp", "item_id": ITEM}
    assert line.get("response.audio_transcript.delta", delta="Hi", **place) == [
        ReplyText("resp", ITEM, "Hi")
    ]
    assert line.get("response.audio_transcript.done", transcript="Hi.", **place) == [
        ReplyText("resp", ITEM, ".")
    ]
    assert line.get("response.text.delta", delta=" Yes", **place) == [
        ReplyText("resp", ITEM, " Yes")
    ]
    usage = {
        "total_tokens": 9,
        "input_tokens_details": {"text_tokens": 3, "audio_tokens": 2, "image_tokens": 1},
        "output_tokens_details": {"text_tokens": 1, "audio_tokens": 2},
    }
    assert line.done(usage=usage) == [
        Usage({"text": 3, "audio": 2, "image": 1}, {"text": 1, "audio": 2}),
        ReplyDone("resp", "completed"),
    ]
    for ignored in ("response.audio.done", "session.finished", "response.content_part.done"):
        assert line.get(ignored, response_id="resp", item_id=ITEM) == []
    assert not line.codec.unknown


def test_the_rate_of_the_sound_is_what_was_asked_for():
    line = QwenLine(output_rate=48000)
    line.began()
    [heard] = line.sound(480)
    assert heard.frame.rate == 48000


def test_a_call_with_its_arguments():
    line = QwenLine()
    line.began(item=None)
    call = {"id": "c", "type": "function_call", "name": "time", "call_id": "call_1"}
    line.get("response.output_item.added", response_id="resp", item=call)
    place = {"response_id": "resp", "item_id": "c"}
    done = "response.function_call_arguments.done"
    assert line.get(done, arguments=" {}", **place) == [ToolCall("resp", "call_1", "time", " {}")]
    assert line.get("response.output_item.done", response_id="resp", item=call) == []


# Which request a response answers


def test_responses_answer_requests_in_their_order():
    line = QwenLine()
    line.send(RequestReply("r1"))
    line.send(RequestReply("r2"))
    line.began("one", "r1")
    line.began("two", "r2")
    line.began("three")


def test_a_turn_that_ends_meanwhile_is_answered_first():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    line.send(RequestReply("r"))
    line.turn()
    line.began("automatic", None)
    line.began("asked", "r")


def test_a_turn_that_was_never_answered_is_not_waited_for_by_a_later_request():
    line = QwenLine()
    line.turn()
    line.send(RequestReply("r"))
    line.began("asked", "r")


def test_a_turn_is_not_answered_by_itself_where_the_service_is_not_to():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": None})
    line.send(RequestReply("r"))
    line.get("input_audio_buffer.committed", item_id="u")
    line.began("asked", "r")


def test_a_busy_service_refuses_the_oldest_request():
    line = QwenLine()
    line.send(RequestReply("r1"))
    line.send(RequestReply("r2"))
    assert line.error(ACTIVE) == [ReplyRefused("r1", "invalid_request_error", ACTIVE, busy=True)]
    line.began("two", "r2")
    [error] = line.error(ACTIVE)
    assert isinstance(error, ProviderError)
    assert error.kind is ErrorKind.RETRY


def test_a_request_that_is_refused_while_the_person_speaks_waits_for_their_turn():
    words = "Cannot create response while user is speaking."
    line = QwenLine()
    line.send(RequestReply("r"))
    assert line.error(words, code="invalid_value", param="response.create") == []
    *_, ended, refused = line.turn()
    assert ended == UserTurnEnded("u", reply_follows=True, position=12800)
    assert refused == ReplyRefused("r", "invalid_value", words, busy=True)
    line.began("automatic", None)
    line.send(RequestReply("r"))
    line.began("asked", "r")


def test_another_refusal_of_a_request_reaches_its_caller():
    line = QwenLine()
    line.send(RequestReply("r"))
    words = "Invalid value for response.create"
    assert line.error(words) == [ReplyRefused("r", "invalid_request_error", words)]


def test_an_error_that_says_which_event_it_is_about_is_believed():
    line = QwenLine()
    line.send(RequestReply("r1"))
    [second] = line.send(RequestReply("r2"))
    [refused] = line.error("no", event_id=second["event_id"])
    assert refused.request_id == "r2"


def test_an_error_about_anything_else_refuses_no_request():
    line = QwenLine()
    line.send(RequestReply("r"))
    [error] = line.error("Something about an image.")
    assert error.kind is ErrorKind.UNKNOWN
    line.began("asked", "r")


def test_a_session_that_is_refused_is_the_end_and_a_later_change_is_not():
    line = QwenLine(live=False)
    line.get("session.created", session={})
    [error] = line.error("Unknown field: 'nonsense'.")
    assert error.kind is ErrorKind.FATAL
    line = QwenLine()
    line.send(UpdateSession("be brief"))
    [error] = line.error("Unknown field: 'nonsense'.")
    assert error.kind is ErrorKind.UNKNOWN


def test_a_passing_error_before_the_session_is_there_does_not_end_it():
    line = QwenLine(live=False)
    [error] = line.error("Internal service error: null")
    assert error.kind is ErrorKind.RETRY


def test_a_turn_without_sound_is_over_as_well():
    line = QwenLine()
    line.send(EndTurn())
    words = "Error committing input audio buffer, maybe no invalid audio stream."
    ended, error = line.error(words)
    assert (ended.empty, ended.reply_follows) == (True, False)
    assert error.kind is ErrorKind.BENIGN
    [error] = line.error(words)
    assert isinstance(error, ProviderError)


# Stopping


def test_a_reply_is_over_with_the_sign_that_the_person_speaks():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    line.began()
    speech = ("input_audio_buffer.speech_started", {"item_id": "u", "audio_start_ms": 0})
    assert line.get(speech[0], **speech[1]) == [
        SpeechStarted("u", None, 0), ReplyInterrupted("resp"),
    ]  # fmt: skip
    assert line.get(speech[0], **speech[1]) == [SpeechStarted("u", None, 0)]
    details = {"reason": "turn_detected"}
    assert line.done(status="cancelled", status_details=details) == [ReplyDone("resp", "cancelled")]


@pytest.mark.parametrize("detection", [None, {"type": "server_vad", "interrupt_response": False}])
def test_a_reply_that_may_not_be_interrupted_goes_on(detection):
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": detection})
    line.began()
    got = line.get("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    assert got == [SpeechStarted("u", None, 0)]


def test_scripted_text_that_may_not_be_interrupted_goes_on():
    line = QwenLine()
    line.get("session.updated", session={"turn_detection": {"type": "server_vad"}})
    update, _say = line.bare(Say("r", "Notice.", interruptible=False))
    assert update["session"]["turn_detection"]["interrupt_response"] is False
    line.began(request_id="r")
    got = line.get("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    assert got == [SpeechStarted("u", None, 0)]
    line.done()
    [back] = line.pending()
    assert back["session"]["turn_detection"] == {"type": "server_vad"}


def test_a_cancelled_reply_ends_with_its_item_and_what_it_cost_is_told_later():
    line = QwenLine()
    line.began()
    line.sound()
    assert line.bare(CancelReply("resp")) == [{"type": "response.cancel"}]
    assert line.item_done() == [ReplyDone("resp", "cancelled")]
    assert line.item_done() == []
    usage = {"output_tokens_details": {"audio_tokens": 7}}
    assert line.done(status="cancelled", usage=usage) == [Usage({}, {"audio": 7})]
    assert line.done(status="cancelled", usage=usage) == []


def test_a_cancelled_reply_of_two_items_ends_with_the_second():
    line = QwenLine()
    line.began()
    second = {"id": "item_2", "type": "message", "role": "assistant"}
    line.get("response.output_item.added", response_id="resp", item=second)
    line.send(CancelReply("resp"))
    assert line.item_done() == []
    assert line.item_done(item="item_2") == [ReplyDone("resp", "cancelled")]


def test_a_reply_that_is_not_cancelled_ends_with_response_done_only():
    line = QwenLine()
    line.began()
    assert line.item_done(status="completed") == []
    assert line.done() == [ReplyDone("resp", "completed")]


def test_an_item_that_was_cut_by_the_service_ends_its_reply():
    line = QwenLine()
    line.began()
    assert line.item_done(status="incomplete") == [ReplyDone("resp", "cancelled")]


def test_none_active_ends_what_was_cancelled_and_is_no_error():
    line = QwenLine()
    line.began("one")
    line.began("two", item="item_2")
    line.send(CancelReply("one"))
    assert line.error(NONE_ACTIVE) == [
        ReplyDone("one", "cancelled"),
        ProviderError(ErrorKind.BENIGN, "invalid_request_error", NONE_ACTIVE),
    ]
    assert line.done("two") == [ReplyDone("two", "completed")]


def test_nothing_is_cancelled_that_has_ended():
    line = QwenLine()
    line.began()
    line.done()
    assert line.send(CancelReply("resp")) == []


def test_stale_sound_and_what_nobody_knows_change_nothing():
    line = QwenLine()
    assert isinstance(line.sound(reply="never")[0], ReplyAudio)
    assert line.get("qwen.surprise") == []
    assert line.codec.unknown == {"qwen.surprise": 1}
    assert line.get("response.audio.delta", response_id="resp") == []
    assert line.codec.malformed == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KINDS = (
    "session.created", "session.updated", "error", "response.created", "response.done",
    "response.audio.delta", "response.audio_transcript.done", "response.output_item.added",
    "response.output_item.done", "response.function_call_arguments.done",
    "input_audio_buffer.speech_started", "input_audio_buffer.committed",
    "conversation.item.created", "conversation.item.input_audio_transcription.delta",
)  # fmt: skip
FIELDS = st.sampled_from(
    ("session", "error", "response", "response_id", "item", "item_id", "delta", "text", "stash",
     "transcript", "arguments", "audio_start_ms", "previous_item_id", "event_id")
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(FIELDS, ANYTHING)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_nothing_that_comes_breaks_the_codec(events):
    line = QwenLine()
    line.began()
    for kind, fields in events:
        line.get(kind, **fields)
    line.send(CancelReply("resp"))
    line.pending()


def test_sound_goes_as_it_is():
    samples = np.arange(-160, 160, dtype=np.int16)
    sent = AudioFrame(samples, 16000)
    [event] = QwenLine().send(SendAudio(sent))
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"]) == sent.to_bytes()
    assert event["event_id"]


def test_a_reply_that_was_named_is_believed():
    line = QwenLine()
    line.send(RequestReply("r1"))
    made = {"id": "resp", "metadata": {"request_id": "other"}}
    assert line.get("response.created", response=made) == [ReplyStarted("resp", "other")]
