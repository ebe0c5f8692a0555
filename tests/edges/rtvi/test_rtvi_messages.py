"""RTVI's messages: what a client may send, and what it gets for each event."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.edges.rtvi._messages import (
    MAX_MESSAGE_CHARS,
    AppMessage,
    ClientReady,
    Digits,
    DisconnectBot,
    EventTranslator,
    FunctionResult,
    Ignored,
    MicrophoneStatus,
    RtviError,
    SendText,
    bot_ready,
    error_message,
    error_response,
    function_call,
    peer_left,
    read_message,
    server_response,
)
from duologue.events import (
    AgentHeardEvent,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    InterruptionEvent,
    ReplyDoneEvent,
    ReplyStartedEvent,
    SpeechHeldEvent,
    ToolEndEvent,
    ToolStartEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.events.json import event_to_json


def rtvi(kind, data=None, **fields):
    return json.dumps({"label": "rtvi-ai", "type": kind, "id": "m1", "data": data} | fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rtvi("client-ready", {"version": "2.1.0", "about": {}}), ClientReady("m1", 2)),
        (rtvi("client-ready", {"version": "1.2.0"}), ClientReady("m1", 1)),
        (rtvi("client-ready", {"version": "x.y"}), ClientReady("m1", 0)),
        (rtvi("client-ready"), ClientReady("m1", 0)),
        (rtvi("send-text", {"content": "Hi", "options": {}}), SendText("m1", "Hi")),
        (
            rtvi("send-text", {"content": "Hi", "options": {"audio_response": False}}),
            SendText("m1", "Hi"),
        ),
        (rtvi("append-to-context", {"role": "user", "content": "Hi"}), SendText("m1", "Hi")),
        (rtvi("client-message", {"t": "volume", "d": [3]}), AppMessage("m1", "volume", [3])),
        (rtvi("client-message", {"t": "volume"}), AppMessage("m1", "volume", None)),
        (rtvi("dtmf", {"buttons": ["1", "#"]}), Digits("1#")),
        (rtvi("dtmf", {"button": "*"}), Digits("*")),
        (
            rtvi("llm-function-call-result", {"tool_call_id": "c", "result": {"a": 1}}),
            FunctionResult("c", {"a": 1}),
        ),
        (rtvi("disconnect-bot", {}), DisconnectBot()),
        ("ping: 1700000000000", Ignored()),
        ('{"type": "signalling", "message": {"type": "other"}}', Ignored()),
    ],
)
def test_a_message_is_read(text, message):
    assert read_message(text) == message


@pytest.mark.parametrize(
    ("index", "enabled", "message"),
    [
        (0, False, MicrophoneStatus(False)),
        (0, True, MicrophoneStatus(True)),
        (1, True, Ignored()),
        (0, "no", Ignored()),
    ],
)
def test_the_state_of_the_microphone_is_read_and_that_of_the_camera_is_ignored(
    index, enabled, message
):
    status = {"type": "trackStatus", "receiver_index": index, "enabled": enabled}
    assert read_message(json.dumps({"type": "signalling", "message": status})) == message


@pytest.mark.parametrize(
    ("text", "reason", "id"),
    [
        ("{", "must be a JSON object", ""),
        ("[]", "must have the label", ""),
        ('{"label": "other", "type": "send-text"}', "must have the label", ""),
        (" " * (MAX_MESSAGE_CHARS + 1), "up to 65536 characters", ""),
        (rtvi("send-text", {}), "lacks its value", "m1"),
        (rtvi("send-text", {"content": ""}), "1 to 4000 characters", "m1"),
        (rtvi("send-text", {"content": "x" * 4001}), "1 to 4000 characters", "m1"),
        (
            rtvi("send-text", {"content": "Hi", "options": {"run_immediately": False}}),
            "run_immediately: false is not supported",
            "m1",
        ),
        (rtvi("client-message", {"d": 1}), "lacks its value", "m1"),
        (rtvi("dtmf", {"buttons": ["12"]}), "a key is 0 to 9", "m1"),
        (rtvi("dtmf", {"button": 1}), "a key is 0 to 9", "m1"),
        (rtvi("dtmf", {"buttons": ["1"] * 33}), "out of bounds", "m1"),
        (rtvi("llm-function-call-result", {}), "lacks its value", "m1"),
        (rtvi("append-to-context", {"role": "assistant", "content": "Hi"}), "not supported", "m1"),
        (rtvi("ui-snapshot", {}), "type ui-snapshot are not supported", "m1"),
        (rtvi("ui-snapshot", {}, id=7), "not supported", ""),
        (rtvi("ui-snapshot", {}, id="x" * 201), "not supported", ""),
    ],
)
def test_a_message_that_can_not_be_used_is_an_error_with_its_id(text, reason, id):  # noqa: A002
    with pytest.raises(RtviError, match=reason) as caught:
        read_message(text)
    assert caught.value.id == id


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    st.sampled_from(
        [
            "client-ready",
            "send-text",
            "client-message",
            "dtmf",
            "llm-function-call-result",
            "append-to-context",
        ]
    ),
    st.dictionaries(
        st.sampled_from(["content", "options", "t", "d", "buttons", "button", "version", "role"]),
        JSON,
    )
    | JSON,
    JSON,
)
def test_no_message_of_a_stranger_is_anything_but_a_message_or_an_error(kind, data, name):
    with suppress(RtviError):
        read_message(json.dumps({"label": "rtvi-ai", "type": kind, "id": name, "data": data}))


def test_a_client_of_version_1_gets_that_version():
    answer = bot_ready(ClientReady("r", 2), {"library": "x"})
    assert answer == {
        "label": "rtvi-ai",
        "type": "bot-ready",
        "id": "r",
        "data": {"version": "2.1.0", "about": {"library": "x"}},
    }
    assert bot_ready(ClientReady("r", 1), {})["data"] == {"version": "1.4.0", "about": {}}


def test_responses_have_the_id_of_their_message():
    request = AppMessage("m9", "volume", None)
    answer = server_response(request, {"level": 3})
    assert (answer["id"], answer["type"]) == ("m9", "server-response")
    assert answer["data"] == {"t": "volume", "d": {"level": 3}}
    failed = error_response("m9", "no")
    assert (failed["id"], failed["type"], failed["data"]) == (
        "m9",
        "error-response",
        {"error": "no"},
    )
    assert error_message("Gone.", fatal=True)["data"] == {
        "error": "Gone.",
        "message": "Gone.",
        "fatal": True,
    }
    assert function_call("c", "where", {"a": 1})["data"] == {
        "tool_call_id": "c",
        "function_name": "where",
        "arguments": {"a": 1},
    }
    assert peer_left() == {"type": "signalling", "message": {"type": "peerLeft"}}


def translated(*events, translator=None):
    """Return types and data of the messages for the events."""
    translator = translator or EventTranslator()
    return [
        (message["type"], message.get("data"))
        for event in events
        for message in translator.translate(event_to_json(event))
    ]


def test_a_turn_of_the_person():
    assert translated(
        UserTurnStartedEvent("person"),
        UserTranscriptEvent("What", False, "person", at=1.5),
        UserTranscriptEvent("What time?", True, "person", at=2.0),
        UserTurnEndedEvent("person", "What time?"),
        UserTranscriptEvent("", True, "person"),
    ) == [
        ("user-started-speaking", None),
        (
            "user-transcription",
            {
                "text": "What",
                "final": False,
                "timestamp": "1970-01-01T00:00:01.500+00:00",
                "user_id": "person",
            },
        ),
        (
            "user-transcription",
            {
                "text": "What time?",
                "final": True,
                "timestamp": "1970-01-01T00:00:02.000+00:00",
                "user_id": "person",
            },
        ),
        ("user-llm-text", {"text": "What time?"}),
        ("user-stopped-speaking", None),
        (
            "user-transcription",
            {
                "text": "",
                "final": True,
                "timestamp": "1970-01-01T00:00:00.000+00:00",
                "user_id": "person",
            },
        ),
    ]


def made(text):
    return AgentTranscriptEvent(text, False, "s")


def heard(text):
    return AgentHeardEvent(text, "s")


def outputs(messages):
    return [
        (
            data["segment_id"],
            data["spoken_status"],
            data["spoken_progress"]["accumulated_text"],
            data["spoken_progress"]["remaining_text"],
        )
        for kind, data in messages
        if kind == "bot-output"
    ]


def test_a_reply_is_reported_by_sentences_and_by_what_was_heard_of_them():
    messages = translated(
        ReplyStartedEvent("r"),
        made("It is noon. "),
        made("Time for"),
        AgentTurnStartedEvent("s"),
        made(" lunch!"),
        ReplyDoneEvent("r", "completed", "s"),
        heard("It is"),
        heard(" noon."),
        heard(" Time for lunch!"),
        AgentTurnEndedEvent("s", interrupted=False),
    )
    assert [kind for kind, _ in messages if kind != "bot-output"] == [
        "bot-llm-started",
        "bot-llm-text",
        "bot-transcription",
        "bot-llm-text",
        "bot-tts-started",
        "bot-started-speaking",
        "bot-llm-text",
        "bot-transcription",
        "bot-llm-stopped",
        "bot-tts-text",
        "bot-tts-text",
        "bot-tts-text",
        "bot-tts-stopped",
        "bot-stopped-speaking",
    ]
    assert outputs(messages) == [
        (1, "new", "", "It is noon. "),
        (2, "new", "", "Time for lunch!"),
        (1, "in-progress", "It is", " noon. "),
        (1, "completed", "It is noon. ", ""),
        (2, "completed", "Time for lunch!", ""),
    ]
    kinds = [kind for kind, _ in messages]
    assert kinds.index("bot-started-speaking") < kinds.index("bot-output")


def test_a_sentence_that_was_heard_to_its_end_is_completed_by_the_end_of_the_speech():
    messages = translated(
        made("Yes."),
        AgentTurnStartedEvent("s"),
        AgentTurnEndedEvent("s", interrupted=False),
    )
    assert outputs(messages) == [(1, "new", "", "Yes."), (1, "completed", "Yes.", "")]


def test_an_interrupted_sentence_stays_as_far_as_it_was_heard():
    messages = translated(
        made("One. Two. "),
        AgentTurnStartedEvent("s"),
        heard("One. T"),
        InterruptionEvent(1, "s", 300, "One. T", "estimated"),
        AgentTurnEndedEvent("s", interrupted=True),
        made("Late."),
    )
    assert ("bot-interrupted", None) in messages
    assert outputs(messages)[-2:] == [
        (1, "completed", "One. ", ""),
        (2, "in-progress", "T", "wo. "),
    ]


def test_a_transcript_after_the_speech_is_completed_at_once():
    messages = translated(
        AgentTurnStartedEvent("s"), AgentTurnEndedEvent("s", interrupted=False), made("Yes, I do")
    )
    assert outputs(messages) == [(1, "completed", "Yes, I do", "")]


def test_chinese_sentences_end_without_a_space():
    messages = translated(AgentTurnStartedEvent("s"), made("你好。再见\uff01"))
    assert [data["text"] for kind, data in messages if kind == "bot-output"] == [
        "你好。",
        "再见\uff01",
    ]


def test_a_number_does_not_end_a_sentence():
    messages = translated(AgentTurnStartedEvent("s"), made("It costs 3.50 euros. "))
    assert [data["text"] for kind, data in messages if kind == "bot-output"] == [
        "It costs 3.50 euros. "
    ]


def test_text_that_was_replaced_changes_no_segment():
    messages = translated(made("One. "), AgentTurnStartedEvent("s"), heard("Uno"))
    assert outputs(messages) == [(1, "new", "", "One. ")]
    assert ("bot-tts-text", {"text": "Uno"}) in messages


def test_a_client_of_version_1_gets_words():
    translator = EventTranslator()
    translator.legacy = True
    messages = translated(
        made("One. "),
        AgentTurnStartedEvent("s"),
        heard("One."),
        AgentTurnEndedEvent("s", interrupted=False),
        translator=translator,
    )
    assert [data for kind, data in messages if kind == "bot-output"] == [
        {"text": "One. ", "spoken": False, "aggregated_by": "sentence"},
        {"text": "One.", "spoken": True, "aggregated_by": "word"},
    ]


def test_tools():
    assert translated(
        ToolStartEvent("c", "where", '{"a": 1}'),
        ToolEndEvent("c", "where", "done", "Oslo", 0.1),
        ToolStartEvent("d", "where", "no JSON"),
        ToolEndEvent("d", "where", "cancelled", "", 0.1),
    ) == [
        ("llm-function-call-started", {"function_name": "where"}),
        (
            "llm-function-call-in-progress",
            {"tool_call_id": "c", "function_name": "where", "arguments": {"a": 1}},
        ),
        (
            "llm-function-call-stopped",
            {"tool_call_id": "c", "function_name": "where", "cancelled": False, "result": "Oslo"},
        ),
        ("llm-function-call-started", {"function_name": "where"}),
        (
            "llm-function-call-in-progress",
            {"tool_call_id": "d", "function_name": "where", "arguments": {}},
        ),
        (
            "llm-function-call-stopped",
            {"tool_call_id": "d", "function_name": "where", "cancelled": True},
        ),
    ]


def test_metrics_are_in_seconds_and_tokens_are_counted_once():
    assert translated(
        TurnMetricsEvent("s", 150.0, None, 300.0, 420.5, 440.0),
        TurnMetricsEvent("s", None, None, None, None, None),
        UsageEvent({"text": 10, "audio": 5, "cached": 8}, {"audio": 7}),
    ) == [
        (
            "metrics",
            {
                "processing": [
                    {"processor": "endpoint", "value": 0.15},
                    {"processor": "first_text", "value": 0.3},
                    {"processor": "first_audio", "value": 0.4205},
                    {"processor": "first_played", "value": 0.44},
                ],
                "ttfb": [{"processor": "agent", "value": 0.4205}],
            },
        ),
        (
            "metrics",
            {"tokens": [{"prompt_tokens": 15, "completion_tokens": 7, "total_tokens": 22}]},
        ),
    ]


def test_an_error_is_not_fatal_and_other_events_have_no_message():
    assert translated(ErrorEvent("model", "It failed."), SpeechHeldEvent("s")) == [
        ("error", {"error": "It failed.", "message": "It failed.", "fatal": False})
    ]
