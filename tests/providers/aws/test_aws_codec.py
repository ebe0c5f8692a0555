import base64
import json

import numpy as np
import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("orjson", reason="the aws extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from nova_codec_harness import NOVA_1, SILENCE, CodecHarness, event_names, request_reply, sent_texts

from duologue.audio import AudioFrame
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.aws._codec import BARGE_IN_HOLD_S, REPLY_TIMEOUT_S
from duologue.providers.aws._signals import Flush, StreamAccepted, StreamIdle, StreamQuiet
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
    ToolSpec,
    Truncate,
    UpdateSession,
)
from duologue.realtime.options import SemanticVAD
from duologue.realtime.outputs import (
    ReplyInterrupted,
    ReplyRefused,
    ReplyStarted,
    SessionStarted,
    UserTranscript,
)

SPEECH = AudioFrame(np.full(320, 3000, np.int16), 16000)
WEATHER = ToolSpec("weather", "Tells the weather.", {"type": "object", "properties": {}})
CALLED = [
    UserItem("u", "How is the weather?"),
    ToolCallItem("t", "old", "weather", '{"city":"Bonn"}'),
]


def test_session_starts_in_the_order_of_the_protocol():
    options = {"tool_choice": "weather", "turn_detection": SemanticVAD("low"), "voice": "amy"}
    harness = CodecHarness(tools=[WEATHER], **options)
    assert event_names(harness.opening) == [
        "sessionStart",
        "promptStart",
        "contentStart",
        "textInput",
        "contentEnd",
    ]
    (_, session), (_, prompt), (_, system), (_, words), _ = harness.opening
    assert session == {
        "inferenceConfiguration": {"maxTokens": 1024, "topP": 0.9, "temperature": 0.7},
        "turnDetectionConfiguration": {"endpointingSensitivity": "LOW"},
    }
    output = prompt["audioOutputConfiguration"]
    assert (output["voiceId"], output["sampleRateHertz"]) == ("amy", 24000)
    (tool,) = prompt["toolConfiguration"]["tools"]
    assert json.loads(tool["toolSpec"]["inputSchema"]["json"]) == WEATHER.parameters
    assert prompt["toolConfiguration"]["toolChoice"] == {"tool": {"name": "weather"}}
    assert (system["role"], system["interactive"], words["content"]) == ("SYSTEM", False, "be kind")
    assert event_names(harness.audio_start) == ["contentStart", "audioInput"]
    block = harness.audio_start[0][1]
    assert (block["type"], block["role"], block["interactive"]) == ("AUDIO", "USER", True)
    assert block["audioInputConfiguration"]["sampleRateHertz"] == 16000
    (started,) = harness.started
    assert isinstance(started, SessionStarted)
    assert started.expires_in == 480.0
    assert started.config["voice"] == "amy"


def test_tool_without_a_description_is_described_by_its_name():
    harness = CodecHarness(tools=[ToolSpec("weather", "", {"type": "object", "properties": {}})])
    (tool,) = harness.opening[1][1]["toolConfiguration"]["tools"]
    assert tool["toolSpec"]["description"] == "weather"


@pytest.mark.parametrize(("choice", "json_"), [("auto", {"auto": {}}), ("any", {"any": {}})])
def test_tool_choice(choice, json_):
    harness = CodecHarness(tools=[WEATHER], tool_choice=choice)
    assert harness.opening[1][1]["toolConfiguration"]["toolChoice"] == json_


def test_missing_tools_and_instructions_are_not_sent():
    harness = CodecHarness(instructions="", tool_choice="any")
    assert event_names(harness.opening) == ["sessionStart", "promptStart"]
    assert "toolConfiguration" not in harness.opening[1][1]


def test_extra_is_merged_into_the_first_events():
    extra = {
        "sessionStart": {"inferenceConfiguration": {"topP": 0.5}, "new": True},
        "promptStart": {"audioOutputConfiguration": {"voiceId": "clone"}},
    }
    (_, session), (_, prompt) = CodecHarness(extra=extra).opening[:2]
    assert session["inferenceConfiguration"] == {"maxTokens": 1024, "topP": 0.5, "temperature": 0.7}
    assert session["new"] is True
    output = prompt["audioOutputConfiguration"]
    assert (output["voiceId"], output["sampleRateHertz"]) == ("clone", 24000)


@pytest.mark.parametrize("turn_detection", [SemanticVAD(), SemanticVAD("auto")])
def test_turn_detection_may_be_left_to_the_service(turn_detection):
    (_, session) = CodecHarness(turn_detection=turn_detection).opening[0]
    assert "turnDetectionConfiguration" not in session


def test_nova_1_gets_no_endpointing():
    assert "turnDetectionConfiguration" not in CodecHarness(model=NOVA_1).opening[0][1]


def test_audio_goes_into_one_block_for_the_whole_session():
    harness = CodecHarness()
    samples = np.arange(-160, 160, dtype=np.int16)
    ((name, fields),) = harness.send(SendAudio(AudioFrame(samples, 16000)))
    assert name == "audioInput"
    assert fields["contentName"] == harness.audio_start[0][1]["contentName"]
    assert fields["promptName"] == harness.opening[1][1]["promptName"]
    assert base64.b64decode(fields["content"]) == samples.astype("<i2").tobytes()
    harness.send_silence(1.0)
    assert event_names(harness.sent).count("contentStart") == 2


def test_history_waits_for_the_audio_and_can_change_until_then():
    history = [UserItem("u", "Hello."), AgentItem("a", "Hi, and how are you?")]
    harness = CodecHarness(history=history, audio=False)
    assert event_names(harness.sent)[-1] == "contentEnd"
    assert not harness.send(Truncate("a", 500, "Hi,"))
    assert not harness.send(AddItem(UserItem("u2", "Go on.")))
    assert not harness.send(AddItem(AgentItem("a2", "No.")))
    assert not harness.send(DeleteItem("a2"))
    assert not harness.send(DeleteItem("not there"))
    sent = harness.send(SendAudio(SILENCE))
    assert sent_texts(sent) == [
        ("USER", False, "Hello."),
        ("ASSISTANT", False, "Hi,"),
        ("USER", False, "Go on."),
    ]
    assert event_names(sent)[-2:] == ["contentStart", "audioInput"]


def test_truncation_of_sent_history_comes_with_the_next_text():
    history = [UserItem("u", "A story."), AgentItem("a", "It was long, long ago.")]
    for heard, words in (("It was", '"It was"'), ("", "nothing at all")):
        harness = CodecHarness(history=history)
        harness.send(Truncate("a", 500, "It was lo"))
        harness.send(Truncate("a", 500, heard))
        harness.send(Truncate("u", 500, "not its own"))
        harness.send(Truncate("nowhere", 500, "not known"))
        ((_, _, text),) = request_reply(harness)
        assert text.splitlines()[:-1] == [
            f"[The person interrupted you, and has heard no more than: {words}]"
        ]
        harness.receive_reply("One.")
        harness.send_silence(5)
        harness.send(Truncate("a", 500, "too late"))
        assert len(request_reply(harness, "r2")[0][2].splitlines()) == 1


def test_text_makes_it_speak_before_anybody_has_spoken():
    harness = CodecHarness(audio=False)
    assert not harness.send(AddItem(UserItem("u", "Greet the person.", spoken=False)))
    sent = harness.send(RequestReply("r1"))
    assert sent_texts(sent) == [("USER", True, "Greet the person.")]
    assert sent[0][1]["type"] == "AUDIO"
    (started,) = (one for one in harness.receive_planned("Hello!") if isinstance(one, ReplyStarted))
    assert started.request_id == "r1"


def test_last_user_items_are_sent_as_the_request_and_not_as_history():
    history = [AgentItem("a", "Hi."), UserItem("u1", "One?"), UserItem("u2", "Two?")]
    harness = CodecHarness(history=history, audio=False)
    assert sent_texts(harness.send(RequestReply("r1"))) == [
        ("USER", False, "[The conversation begins.]"),
        ("ASSISTANT", False, "Hi."),
        ("USER", True, "One?\nTwo?"),
    ]


def test_texts_wait_for_the_request_and_come_with_its_instructions():
    harness = CodecHarness()
    assert not harness.send(AddItem(UserItem("u", "And Rome?", spoken=False)))
    assert not harness.send(AddItem(SystemItem("s", "They like trains.")))
    ((role, interactive, text),) = request_reply(harness, instructions="Be brief.")
    assert (role, interactive) == ("USER", True)
    assert text.splitlines() == [
        "[They like trains.]",
        "And Rome?",
        "[For your next reply, and not said by the person: Be brief.]",
    ]
    harness.receive_reply("Rome is nice.")
    harness.send_silence(5)
    assert request_reply(harness, "r2") == [
        ("USER", True, "[The person has said nothing new. Go on with the conversation.]")
    ]


def test_spoken_items_are_not_sent_again():
    harness = CodecHarness()
    reply_id = harness.receive_reply("One.")
    item_id = reply_id.replace("reply", "item")
    for item in (UserItem("u", "spoken"), AgentItem(item_id, "One."), *CALLED[1:]):
        assert not harness.send(AddItem(item))
    harness.send(AddItem(AgentItem("tts", "A moment.")))
    harness.send_silence(5)
    ((_, _, text),) = request_reply(harness)
    assert text.splitlines() == [
        "[You have said: A moment.]",
        "[The person has said nothing new. Go on with the conversation.]",
    ]


def test_say_asks_for_exact_words():
    harness = CodecHarness()
    ((role, interactive, text),) = sent_texts(harness.send(Say("r1", "It is 5 o'clock.")))
    assert (role, interactive) == ("USER", True)
    assert "exactly" in text
    assert '"""It is 5 o\'clock."""' in text


def test_long_text_goes_in_pieces_of_a_kilobyte():
    harness = CodecHarness()
    words = " ".join(f"wörd{index}" for index in range(1000))
    harness.send(AddItem(UserItem("u", words, spoken=False)))
    sent = harness.send(RequestReply("r1"))
    assert sent_texts(sent) == [("USER", True, words)]
    parts = [fields["content"] for name, fields in sent if name == "textInput"]
    assert max(len(part.encode()) for part in parts) <= 1000
    assert len(parts) > 5
    assert all(part.endswith(" ") for part in parts[:-1])


def test_text_waits_until_the_reply_before_it_was_played():
    harness = CodecHarness()
    harness.receive_reply("One.", "Two.", samples=24000 * 3)
    assert not harness.send(Say("r1", "Three."))
    assert not harness.send_silence(2)
    harness.receive_spoken("One.")
    assert not harness.sent_now
    harness.receive_spoken("Two.")
    assert "Three." in sent_texts(harness.sent_now)[0][2]


def test_text_waits_only_as_long_as_playback_can_take():
    harness = CodecHarness()
    harness.receive_reply("One.", "Two.", samples=24000 * 3)
    assert not harness.send(Say("r1", "Three."))
    assert not harness.send_silence(6.5)
    assert "Three." in sent_texts(harness.send_silence(1))[0][2]


def test_text_waits_no_longer_than_playback_without_input_audio():
    harness = CodecHarness()
    harness.receive_reply("One.", "Two.", samples=24000 * 3)
    assert not harness.send(Say("r1", "Three."))
    harness.receive(StreamIdle())
    assert "Three." in sent_texts(harness.sent_now)[0][2]


def test_text_waits_for_the_barge_in_decision_after_the_service_interrupted_itself():
    harness = CodecHarness()
    harness.receive_reply("One.", "Two.", samples=24000 * 3)
    assert not harness.send(Say("r1", "Three."))
    (interrupted,) = harness.receive_interruption()
    assert isinstance(interrupted, ReplyInterrupted)
    assert not harness.sent_now
    assert not harness.send_silence(BARGE_IN_HOLD_S - 0.04)
    assert "Three." in sent_texts(harness.send_silence(0.1))[0][2]


def test_waiting_text_is_refused_after_an_interruption():
    harness = CodecHarness()
    reply_id = harness.receive_reply("One.", "Two.", samples=24000 * 3)
    assert not harness.send(Say("r1", "Three."))
    harness.receive_interruption()
    assert not harness.send(Truncate(reply_id.replace("reply", "item"), 100, "One"))
    (refused,) = harness.receive(Flush())
    assert (refused.request_id, refused.code) == ("r1", "interrupted")
    assert not harness.send_silence(10)


@pytest.mark.parametrize("cut", ["cancel", "truncate", "delete"])
def test_waiting_text_is_refused_after_our_own_truncation(cut):
    harness = CodecHarness()
    reply_id = harness.receive_reply("One.", "Two.", samples=24000 * 3)
    item_id = reply_id.replace("reply", "item")
    harness.send(AddItem(UserItem("u", "And then?", spoken=False)))
    assert not harness.send(RequestReply("r1"))
    assert not harness.send(Say("r2", "Never said."))
    sent = harness.send(
        {
            "cancel": CancelReply(reply_id),
            "truncate": Truncate(item_id, 100, "One"),
            "delete": DeleteItem(item_id),
        }[cut]
    )
    assert not sent
    assert harness.flushed
    refused = harness.receive(Flush())
    assert [(one.request_id, one.code) for one in refused] == [
        ("r1", "interrupted"),
        ("r2", "interrupted"),
    ]
    assert not harness.receive(Flush())
    ((_, _, text),) = request_reply(harness, "r3")
    assert text.splitlines()[1:] == ["And then?"]


def test_next_text_tells_what_was_heard_unless_the_service_noticed():
    harness = CodecHarness()
    reply_id = harness.receive_reply("One.", "Two.", samples=24000 * 3)
    harness.send(CancelReply(reply_id))
    harness.send(Truncate(reply_id.replace("reply", "item"), 1000, 'One "and'))
    ((_, _, text),) = request_reply(harness)
    assert text.splitlines()[0] == (
        '[The person interrupted you, and has heard no more than: "One \\"and"]'
    )
    reply_id = harness.receive_reply("Three.")
    harness.send(CancelReply(reply_id))
    ((_, _, text),) = request_reply(harness, "r2")
    assert text.splitlines()[0].endswith("no more than: nothing at all]")
    reply_id = harness.receive_reply("Four.")
    harness.send(Truncate(reply_id.replace("reply", "item"), 100, "Fo"))
    harness.receive_interruption()
    ((_, _, text),) = request_reply(harness, "r3")
    assert "interrupted" not in text
    reply_id = harness.receive_reply("Five.")
    harness.send(Truncate(reply_id.replace("reply", "item"), 100, "Fi"))
    harness.receive_reply("Six.")
    harness.send_silence(3)
    ((_, _, text),) = request_reply(harness, "r4")
    assert "interrupted" not in text


def test_text_waits_for_the_reply_to_the_text_before():
    harness = CodecHarness()
    assert request_reply(harness, "r1")
    assert not request_reply(harness, "r2")
    harness.receive_reply("One.")
    assert not harness.sent_now
    assert len(sent_texts(harness.send_silence(2))) == 1
    assert not request_reply(harness, "r3")
    assert not harness.send_silence(REPLY_TIMEOUT_S - 2)
    assert len(sent_texts(harness.send_silence(2))) == 1


def test_text_is_refused_when_the_person_speaks_over_it():
    harness = CodecHarness()
    assert request_reply(harness, "r1")
    harness.send_silence(0.5)
    harness.send(SendAudio(SPEECH))
    harness.send_silence(0.5)
    words, refused = harness.receive_transcript("When is breakfast?")
    assert isinstance(words, UserTranscript)
    assert isinstance(refused, ReplyRefused)
    assert (refused.request_id, refused.code, refused.busy) == ("r1", "interrupted", True)
    (started, _) = harness.receive_planned("From seven to ten.")
    assert started.request_id is None


def test_late_transcript_of_an_earlier_turn_does_not_refuse_the_text():
    harness = CodecHarness()
    harness.send(SendAudio(SPEECH))
    assert request_reply(harness, "r1")
    harness.send_silence(0.5)
    assert [type(one) for one in harness.receive_transcript("Good morning.")] == [UserTranscript]
    (started, _) = harness.receive_planned("Welcome!")
    assert started.request_id == "r1"


def test_text_that_is_never_answered_is_refused():
    harness = CodecHarness()
    assert request_reply(harness, "r1")
    harness.send_silence(REPLY_TIMEOUT_S - 0.1)
    assert not harness.receive(Flush())
    harness.send_silence(0.1)
    assert harness.flushed
    (refused,) = harness.receive(Flush())
    assert (refused.request_id, refused.code, refused.busy) == ("r1", "unanswered", True)
    (started, _) = harness.receive_planned("Who is there?")
    assert started.request_id is None
    harness = CodecHarness()
    assert request_reply(harness, "r2")
    (refused,) = harness.receive(StreamIdle())
    assert (refused.request_id, refused.busy) == ("r2", True)


def test_tool_result_is_sent_as_json_once():
    harness = CodecHarness(tools=[WEATHER])
    harness.receive_call("c1")
    sent = harness.send(SendToolResult("c1", "weather", '{"sky": "blue"}'))
    assert event_names(sent) == ["contentStart", "toolResult", "contentEnd"]
    start, result = sent[0][1], sent[1][1]
    assert (start["type"], start["role"], start["interactive"]) == ("TOOL", "TOOL", False)
    assert start["toolResultInputConfiguration"]["toolUseId"] == "c1"
    assert json.loads(result["content"]) == {"sky": "blue"}
    for output, failed, content in (
        ("sunny", False, {"result": "sunny"}),
        ("[1, 2]", False, {"result": "[1, 2]"}),
        ("no such city", True, {"error": "no such city"}),
        ('{"a": 1}', True, {"error": '{"a": 1}'}),
    ):
        harness.receive_call("c2")
        sent = harness.send(SendToolResult("c2", "weather", output, failed=failed))
        assert json.loads(sent[1][1]["content"]) == content


def test_result_of_a_call_of_an_earlier_connection_is_sent_as_text():
    harness = CodecHarness(history=CALLED, audio=False)
    sent = harness.send(SendToolResult("old", "weather", "rain"))
    assert event_names(sent)[-4:] == ["contentStart", "contentStart", "textInput", "contentEnd"]
    (role, interactive, text) = sent_texts(sent)[-1]
    assert (role, interactive) == ("USER", True)
    assert "[The tool weather, called with …, answered: rain]" in text
    (started,) = (one for one in harness.receive_planned("Rain.") if isinstance(one, ReplyStarted))
    assert started.request_id is not None


def test_session_without_input_audio_is_given_silence():
    harness = CodecHarness(history=CALLED, audio=False)
    for _ in range(3):
        assert not harness.receive(StreamIdle())
        assert not harness.sent_now
    assert not harness.send(AddItem(UserItem("late", "And Rome?")))
    assert not harness.receive(StreamIdle())
    assert "And Rome?" in sent_texts(harness.sent_now)[0][2]
    assert event_names(harness.sent_now)[-2:] == ["contentStart", "audioInput"]
    assert sent_texts(harness.sent_now)[0][1] is False
    harness.receive(StreamIdle())
    assert event_names(harness.sent_now) == ["audioInput"]
    assert not harness.receive(StreamQuiet())
    assert not harness.sent_now


def test_service_that_needs_audio_before_it_answers_gets_it():
    harness = CodecHarness(audio=False, accepted=False)
    harness.receive(StreamIdle())
    assert event_names(harness.sent_now) == ["contentStart", "audioInput"]
    (started,) = harness.receive(StreamAccepted(20.0))
    assert started.expires_in == 20.0


def test_closing_messages():
    harness = CodecHarness()
    assert [name for name, _ in harness.record(harness.codec.closing_messages())] == [
        "contentEnd",
        "promptEnd",
        "sessionEnd",
    ]
    assert not harness.codec.closing_messages()
    assert not harness.send(SendAudio(SILENCE))
    assert not harness.send(RequestReply("r"))
    unused = CodecHarness(audio=False)
    assert [json.loads(m)["event"].keys() for m in unused.codec.closing_messages()] == [
        {"promptEnd"},
        {"sessionEnd"},
    ]


def test_commands_ruled_out_by_its_capabilities_are_not_sent():
    harness = CodecHarness()
    for command in (EndTurn(), ClearInput(), UpdateSession("be brief", ())):
        assert not harness.send(command)


def test_nova_1_refuses_requests():
    harness = CodecHarness(model=NOVA_1)
    assert not harness.send(RequestReply("r1"))
    assert harness.flushed
    (refused,) = harness.receive(Flush())
    assert isinstance(refused, ReplyRefused)
    assert (refused.request_id, refused.busy) == ("r1", False)
    assert "amazon.nova-2-sonic" in refused.message
    harness.send(SendToolResult("old", "weather", "rain"))
    assert not harness.receive(Flush())


CALLS = st.sampled_from("ab")
ITEMS = st.one_of(
    st.builds(UserItem, st.uuids().map(str), st.text(max_size=50), spoken=st.booleans()),
    st.builds(AgentItem, st.uuids().map(str), st.text(max_size=50)),
    st.builds(SystemItem, st.uuids().map(str), st.text(max_size=50)),
    st.builds(
        ToolCallItem, st.uuids().map(str), st.sampled_from("ab"), st.just("t"), st.just("{}")
    ),
    st.builds(ToolResultItem, st.uuids().map(str), CALLS, st.text(max_size=9)),
)
STEPS = st.one_of(
    st.just(SendAudio(SILENCE)),
    st.builds(AddItem, ITEMS),
    st.builds(RequestReply, st.just("r"), st.none() | st.text(max_size=30)),
    st.builds(Say, st.just("s"), st.text(min_size=1, max_size=3000)),
    st.builds(SendToolResult, st.sampled_from("abc"), st.just("t"), st.text(max_size=30)),
    st.builds(Truncate, st.just("i"), st.just(10), st.text(max_size=5)),
    st.just(StreamIdle()),
    st.just(StreamQuiet()),
    st.sampled_from(["call a", "call b", "reply", "interrupted", "heard"]),
)


@settings(max_examples=150, deadline=None)
@given(history=st.lists(ITEMS, max_size=60), steps=st.lists(STEPS, max_size=25), old=st.booleans())
def test_nothing_is_ever_sent_that_the_service_would_refuse(history, steps, old):
    order = pytest.importorskip(
        "duologue.simulators.nova._input_state_machine", reason="no simulate extra"
    )
    from duologue.simulators.nova._input_events import parse, split_event

    config = {"model": NOVA_1} if old else {}
    harness = CodecHarness(history=history, tools=[WEATHER], audio=False, **config)
    service = order.InputStateMachine(config.get("model", "amazon.nova-2-sonic-v1:0"))
    calls = set()
    for step in steps:
        match step:
            case "call a" | "call b":
                call_id = step[-1]
                if call_id not in calls:
                    calls.add(call_id)
                    service.add_call(call_id)
                    harness.receive_call(call_id)
            case "reply":
                harness.receive_planned("One.")
                harness.receive_audio(240)
            case "interrupted":
                harness.receive_interruption()
            case "heard":
                harness.receive_transcript("words")
            case StreamIdle() | StreamQuiet():
                harness.receive(step)
            case _:
                harness.send(step)
    harness.send(SendAudio(SILENCE))
    harness.record(harness.codec.closing_messages())
    for name, fields in harness.sent:
        service.accept(parse(*split_event({"event": {name: fields}})))
    assert service.has_ended
