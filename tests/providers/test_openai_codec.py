import base64
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.items import (
    AgentItem,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from duologue.providers.openai.codec import Codec
from duologue.providers.openai.config import ManualTurns, RealtimeConfig, ServerVAD
from duologue.providers.openai.dialect import Dialect
from duologue.providers.openai.session_json import OpenAISession
from duologue.realtime.codec import SessionSetup
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
    RateLimit,
    RateLimits,
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
from duologue.video import VideoFrame

HISTORY = [
    SystemItem("s", "Guests like tea."),
    UserItem("u", "Hello."),
    UserItem("none", None),
    AgentItem("a", "Hi, and"),
    ToolCallItem("t", "call", "time", "{}"),
    ToolResultItem("r", "call", "noon", failed=True),
]
ITEM = "item_1"


class Line:
    """A codec and what goes through it, as objects."""

    def __init__(self, transport="websocket", *, history=(), live=True, config=None, **options):
        builder = OpenAISession(config or RealtimeConfig(), transport)
        self.codec = Codec(Dialect(builder), transport=transport, **options)
        setup = SessionSetup("be kind", (), history)
        self.opening = [json.loads(message) for message in self.codec.open(setup)]
        if live:
            assert self.get("session.created", session={}) or transport == "websocket"
            self.get("session.updated", session={})

    def send(self, command):
        return [json.loads(message) for message in self.codec.encode(command)]

    def bare(self, command):
        """What is sent, without ids of events."""
        return [without_id(event) for event in self.send(command)]

    def get(self, kind, **fields):
        return list(self.codec.decode(json.dumps({"type": kind, **fields}).encode()))

    def pending(self):
        return [json.loads(message) for message in self.codec.pending()]

    def began(self, reply="resp", request_id=None, item=ITEM):
        metadata = {"request_id": request_id} if request_id else None
        started = self.get("response.created", response={"id": reply, "metadata": metadata})
        assert started == [ReplyStarted(reply, request_id)]
        if item:
            added = {"id": item, "type": "message", "role": "assistant"}
            self.get("response.output_item.added", response_id=reply, item=added)
        return started

    def sound(self, samples, reply="resp", item=ITEM, **more):
        delta = base64.b64encode(np.asarray(samples, "<i2").tobytes()).decode()
        return self.get(
            "response.output_audio.delta", response_id=reply, item_id=item, delta=delta, **more
        )

    def words(self, text, reply="resp", item=ITEM):
        kind = "response.output_audio_transcript.delta"
        return self.get(kind, response_id=reply, item_id=item, delta=text)

    def done(self, reply="resp", status="completed", **more):
        return self.get("response.done", response={"id": reply, "status": status, **more})

    def error(self, event_id=None, code="odd", message="No."):
        error = {"type": "invalid_request_error", "code": code, "message": message}
        return self.get("error", error={**error, "event_id": event_id})


def without_id(event):
    return {key: value for key, value in event.items() if key != "event_id"}


# Opening


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
    assert line.get("session.updated", session={"a": 2}) == []


def test_a_call_has_started_when_it_is_there():
    line = Line("webrtc", live=False, now=lambda: 1000.0)
    [started] = line.get("session.created", session={"expires_at": 900})
    assert started == SessionStarted({"expires_at": 900}, None)
    assert line.get("session.updated", session={}) == []


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
    line = Line(pictures_kept=2)
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


def test_scripted_text_that_was_cancelled_is_not_put_in():
    line = Line()
    assert say(line, said="Good", status="cancelled") == [ReplyDone("resp", "cancelled")]
    assert line.pending() == []


# Hearing


def test_a_turn_has_its_places_in_the_sound_that_was_sent():
    line = Line()
    speech = {"item_id": "u"}
    got = line.get("input_audio_buffer.speech_started", audio_start_ms=100, **speech)
    got += line.get("input_audio_buffer.speech_stopped", audio_end_ms=900, **speech)
    got += line.get("input_audio_buffer.committed", previous_item_id=None, **speech)
    assert got == [
        SpeechStarted("u", None, 2400),
        SpeechStopped("u", None, 21600),
        UserTurnEnded("u", reply_follows=True, position=21600),
    ]


def test_a_call_has_no_places():
    line = Line("webrtc")
    got = line.get("input_audio_buffer.speech_started", audio_start_ms=100, item_id="u")
    assert got == [SpeechStarted("u")]


@pytest.mark.parametrize("detection", [ManualTurns(), ServerVAD(create_response=False)])
def test_no_reply_follows_where_the_server_makes_none(detection):
    line = Line(config=RealtimeConfig(turn_detection=detection))
    [ended] = line.get("input_audio_buffer.committed", item_id="u")
    assert not ended.reply_follows
    session = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
    line.get("session.updated", session=session)
    [ended] = line.get("input_audio_buffer.committed", item_id="u")
    assert ended.reply_follows


def test_words_add_up_till_they_are_final():
    line = Line()
    kind = "conversation.item.input_audio_transcription."
    got = line.get(kind + "delta", item_id="u", delta="Hel")
    got += line.get(kind + "delta", item_id="u", delta="lo")
    got += line.get(kind + "completed", item_id="u", transcript="Hello.")
    got += line.get(kind + "failed", item_id="v", error={"code": "bad", "message": "Hm."})
    assert got == [
        UserTranscript("u", "Hel", final=False),
        UserTranscript("u", "Hello", final=False),
        UserTranscript("u", "Hello.", final=True),
        UserTranscript("v", "", final=True),
        ProviderError(ErrorKind.RETRY, "bad", "Hm."),
    ]


def test_a_turn_without_sound_is_empty():
    line = Line(config=RealtimeConfig(turn_detection=ManualTurns()))
    [commit] = line.send(EndTurn())
    ended, error = line.error(commit["event_id"], "input_audio_buffer_commit_empty")
    assert ended.empty
    assert error.kind is ErrorKind.BENIGN


# Replies


def test_a_reply_has_words_sound_usage_and_an_end():
    line = Line()
    line.began(request_id="q")
    assert line.words("Hi") == [ReplyText("resp", ITEM, "Hi")]
    [audio] = line.sound([1, -2, 3])
    assert isinstance(audio, ReplyAudio)
    assert (audio.reply_id, audio.item_id, audio.frame.rate) == ("resp", ITEM, 24000)
    assert audio.frame.samples.tolist() == [1, -2, 3]
    usage = {
        "input_token_details": {"text_tokens": 3, "audio_tokens": 4, "cached_tokens": 2},
        "output_token_details": {"text_tokens": 5, "audio_tokens": 6},
    }
    assert line.done(usage=usage) == [
        Usage({"text": 3, "audio": 4, "cached": 2}, {"text": 5, "audio": 6}),
        ReplyDone("resp"),
    ]
    assert line.done() == []


def test_half_a_sample_waits_for_its_other_half():
    line = Line()
    line.began()
    pcm = np.array([1, 2, 3], "<i2").tobytes()
    samples = []
    for part in (pcm[:3], pcm[3:4], pcm[4:5], pcm[5:]):
        delta = base64.b64encode(part).decode()
        fields = {"response_id": "resp", "item_id": ITEM, "delta": delta}
        for audio in line.get("response.output_audio.delta", **fields):
            samples += audio.frame.samples.tolist()
    assert samples == [1, 2, 3]


def test_words_that_came_only_as_a_whole_are_told():
    line = Line()
    line.began()
    line.words("Hi")
    fields = {"response_id": "resp", "item_id": ITEM, "transcript": "Hi there"}
    kind = "response.output_audio_transcript.done"
    assert line.get(kind, **fields) == [ReplyText("resp", ITEM, " there")]
    assert line.get(kind, **fields) == []


CALL = {
    "id": "f",
    "type": "function_call",
    "status": "completed",
    "call_id": "c",
    "name": "time",
    "arguments": '{"a": 1}',
}
CALLED = ToolCall("resp", "c", "time", '{"a": 1}')


def test_a_tool_is_called_once_however_often_it_is_told():
    line = Line()
    line.began(item=None)
    line.get("response.output_item.added", response_id="resp", item={**CALL, "arguments": ""})
    got = line.get(
        "response.function_call_arguments.done",
        response_id="resp",
        item_id="f",
        arguments=CALL["arguments"],
    )
    got += line.get("response.output_item.done", response_id="resp", item=CALL)
    got += line.done(output=[CALL])
    assert got == [CALLED, ReplyDone("resp")]


def test_a_call_told_only_at_the_end_counts_and_half_of_one_does_not():
    line = Line()
    line.began(item=None)
    assert line.done(output=[CALL]) == [CALLED, ReplyDone("resp")]
    line.began(item=None)
    half = {**CALL, "status": "incomplete", "arguments": '{"a'}
    assert line.get("response.output_item.done", response_id="resp", item=half) == []
    assert line.done(status="cancelled", output=[half]) == [ReplyDone("resp", "cancelled")]


def test_a_reply_that_the_server_cut_is_an_interruption():
    line = Line()
    line.began()
    got = line.done(status="cancelled", status_details={"reason": "turn_detected"})
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


def test_ends_that_are_not_good_say_why():
    line = Line()
    line.began()
    got = line.done(status="incomplete", status_details={"reason": "max_output_tokens"})
    assert got == [ReplyDone("resp", "completed", "the reply was cut short: max_output_tokens")]
    line.began()
    error = {"code": "insufficient_quota", "message": "No money."}
    assert line.done(status="failed", status_details={"error": error}) == [
        ReplyDone("resp", "failed", "No money."),
        ProviderError(ErrorKind.FATAL, "insufficient_quota", "No money."),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_a_request_that_comes_too_early_is_refused_as_busy(named):
    line = Line()
    [request] = line.send(RequestReply("q"))
    code = "conversation_already_has_active_response"
    got = line.error(request["event_id"] if named else None, code)
    assert got == [ReplyRefused("q", code, "No.", busy=True)]


def test_a_refusal_for_good_is_fatal_too():
    line = Line()
    [request] = line.send(RequestReply("q"))
    refused, error = line.error(request["event_id"], "insufficient_quota")
    assert not refused.busy
    assert error.kind is ErrorKind.FATAL


def test_limits_are_told():
    limit = {"name": "tokens", "limit": 10, "remaining": 4, "reset_seconds": 1.5}
    assert Line().get("rate_limits.updated", rate_limits=[limit]) == [
        RateLimits([RateLimit("tokens", 10, 4, 1.5)])
    ]


# WebRTC

LOUD = AudioFrame(np.full(480, 5000, np.int16), 24000)


def test_the_sound_of_a_call_belongs_to_the_reply_whose_buffer_plays():
    line = Line("webrtc")
    assert list(line.codec.decode(LOUD)) == []
    line.began()
    line.words("Hi")
    got = line.get("output_audio_buffer.started", response_id="resp")
    got += line.codec.decode(LOUD)
    assert [(type(output), output.item_id) for output in got] == [(ReplyAudio, ITEM)] * 2
    assert line.done() == []
    [cut] = line.bare(Truncate(ITEM, 5000, "Hi"))
    assert cut["audio_end_ms"] == 40
    got = line.get("output_audio_buffer.cleared", response_id="resp")
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


def test_clearing_at_our_own_word_is_no_interruption():
    line = Line("webrtc")
    line.began()
    line.words("Hi")
    line.get("output_audio_buffer.started", response_id="resp")
    line.send(CancelReply("resp"))
    assert line.get("output_audio_buffer.cleared", response_id="resp") == []
    assert line.done(status="cancelled") == [ReplyDone("resp", "cancelled")]


def test_an_interruption_is_told_once():
    line = Line("webrtc")
    line.began()
    line.words("Hi")
    line.get("output_audio_buffer.started", response_id="resp")
    got = line.get("output_audio_buffer.cleared", response_id="resp")
    got += line.done(status="cancelled", status_details={"reason": "turn_detected"})
    assert got == [ReplyInterrupted("resp"), ReplyDone("resp", "cancelled")]


# Whatever may come


def test_an_event_that_comes_twice_counts_once():
    line = Line()
    created = {"event_id": "e", "response": {"id": "resp"}}
    assert line.get("response.created", **created) == [ReplyStarted("resp")]
    assert line.get("response.created", **created) == []


def test_the_unknown_and_the_broken_are_counted():
    line = Line()
    assert line.get("brand.new") == line.get("response.output_audio.done") == []
    assert line.codec.unknown == {"brand.new": 1}
    for message in (b"{", b"[]", b'"x"', b"{}", b'{"type": 1}', b'{"type": "response.created"}'):
        assert list(line.codec.decode(message)) == []
    assert line.codec.malformed == 6


KINDS = sorted(Line().codec._handlers)
NAMES = ["resp", ITEM, "c", "u", "q"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9999) | st.sampled_from([*NAMES, "AAA=", "A"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["id", "type", "name", "call_id", "arguments", "status", "code", "message", "metadata",
             "request_id", "event_id", "reason", "error", "output", "content", "input"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=6,
)  # fmt: skip
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional={
        key: st.sampled_from(NAMES) | VALUES
        for key in ("event_id", "response_id", "item_id", "delta", "transcript", "arguments",
                    "response", "item", "error", "session", "previous_item_id", "audio_start_ms",
                    "audio_end_ms", "content_index", "rate_limits", "part", "call_id", "name")
    },
)  # fmt: skip
COMMANDS = st.sampled_from(
    [
        Say("q", "Hi"),
        RequestReply("q"),
        CancelReply("resp"),
        Truncate(ITEM, 100, "Hi"),
        DeleteItem(ITEM),
        AddItem(UserItem("u", "Hm.")),
        EndTurn(),
        LOUD,
    ]
)


@given(st.sampled_from(["websocket", "webrtc"]), st.lists(EVENTS | COMMANDS, max_size=25))
def test_nothing_that_comes_is_ever_raised(transport, steps):
    line = Line(transport)
    for step in steps:
        if isinstance(step, dict):
            line.codec.decode(json.dumps(step).encode())
        elif isinstance(step, AudioFrame):
            line.codec.decode(step)
        else:
            line.send(step)
        for event in line.pending():
            assert event["type"]


def test_20_ms_each_way_cost_well_under_100_us():
    line = Line()
    line.began()
    frame = SendAudio(LOUD)
    delta = base64.b64encode(LOUD.to_bytes()).decode()
    fields = {"response_id": "resp", "item_id": ITEM, "delta": delta, "content_index": 0}
    message = json.dumps({"type": "response.output_audio.delta", **fields}).encode()
    best = min(
        timed(lambda: (line.codec.encode(frame), line.codec.decode(message))) for _ in range(200)
    )
    assert best < 60e-6


def timed(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
