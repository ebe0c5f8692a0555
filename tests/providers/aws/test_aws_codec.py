import base64
import json

import numpy as np
import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("orjson", reason="the aws extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from nova_codec_harness import NOVA_1, SILENCE, Line, asked, names, texts

from duologue.audio import AudioFrame
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.aws._codec import BARGE_IN_HOLD_S, REPLY_TIMEOUT_S
from duologue.providers.aws._config import RealtimeConfig
from duologue.providers.aws._event_sequence import EventSequence
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


def test_the_session_begins_in_the_order_that_the_service_wants():
    line = Line(tools=[WEATHER], tool_choice="weather", endpointing="low", voice="amy")
    assert names(line.opening) == [
        "sessionStart",
        "promptStart",
        "contentStart",
        "textInput",
        "contentEnd",
    ]
    (_, session), (_, prompt), (_, system), (_, words), _ = line.opening
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
    assert names(line.beginning) == ["contentStart", "audioInput"]
    sound = line.beginning[0][1]
    assert (sound["type"], sound["role"], sound["interactive"]) == ("AUDIO", "USER", True)
    assert sound["audioInputConfiguration"]["sampleRateHertz"] == 16000
    (started,) = line.started
    assert isinstance(started, SessionStarted)
    assert started.expires_in == 480.0
    assert started.config["voice"] == "amy"


def test_a_tool_without_a_description_is_described_by_its_name():
    line = Line(tools=[ToolSpec("weather", "", {"type": "object", "properties": {}})])
    (tool,) = line.opening[1][1]["toolConfiguration"]["tools"]
    assert tool["toolSpec"]["description"] == "weather"


@pytest.mark.parametrize(("choice", "json_"), [("auto", {"auto": {}}), ("any", {"any": {}})])
def test_how_tools_are_chosen(choice, json_):
    line = Line(tools=[WEATHER], tool_choice=choice)
    assert line.opening[1][1]["toolConfiguration"]["toolChoice"] == json_


def test_nothing_is_said_of_tools_where_there_are_none_nor_of_instructions():
    line = Line(instructions="", tool_choice="any")
    assert names(line.opening) == ["sessionStart", "promptStart"]
    assert "toolConfiguration" not in line.opening[1][1]


def test_nova_1_is_not_told_how_to_find_turns():
    assert "turnDetectionConfiguration" not in Line(model=NOVA_1).opening[0][1]


def test_sound_goes_into_one_block_for_the_whole_session():
    line = Line()
    samples = np.arange(-160, 160, dtype=np.int16)
    ((name, fields),) = line.send(SendAudio(AudioFrame(samples, 16000)))
    assert name == "audioInput"
    assert fields["contentName"] == line.beginning[0][1]["contentName"]
    assert fields["promptName"] == line.opening[1][1]["promptName"]
    assert base64.b64decode(fields["content"]) == samples.astype("<i2").tobytes()
    line.sound(1.0)
    assert names(line.sent).count("contentStart") == 2


def test_the_history_waits_for_the_sound_and_can_be_changed_till_then():
    history = [UserItem("u", "Hello."), AgentItem("a", "Hi, and how are you?")]
    line = Line(history=history, sound=False)
    assert names(line.sent)[-1] == "contentEnd"
    assert not line.send(Truncate("a", 500, "Hi,"))
    assert not line.send(AddItem(UserItem("u2", "Go on.")))
    assert not line.send(AddItem(AgentItem("a2", "No.")))
    assert not line.send(DeleteItem("a2"))
    assert not line.send(DeleteItem("not there"))
    sent = line.send(SendAudio(SILENCE))
    assert texts(sent) == [
        ("USER", False, "Hello."),
        ("ASSISTANT", False, "Hi,"),
        ("USER", False, "Go on."),
    ]
    assert names(sent)[-2:] == ["contentStart", "audioInput"]


def test_what_is_cut_of_the_history_after_it_was_sent_comes_with_the_next_text():
    history = [UserItem("u", "A story."), AgentItem("a", "It was long, long ago.")]
    for heard, words in (("It was", '"It was"'), ("", "nothing at all")):
        line = Line(history=history)
        line.send(Truncate("a", 500, "It was lo"))
        line.send(Truncate("a", 500, heard))
        line.send(Truncate("u", 500, "not its own"))
        line.send(Truncate("nowhere", 500, "not known"))
        ((_, _, text),) = asked(line)
        assert text.splitlines()[:-1] == [
            f"[The person interrupted you, and has heard no more than: {words}]"
        ]
        line.reply("One.")
        line.sound(5)
        line.send(Truncate("a", 500, "too late"))
        assert len(asked(line, "r2")[0][2].splitlines()) == 1


def test_text_makes_it_speak_though_nobody_has_spoken():
    line = Line(sound=False)
    assert not line.send(AddItem(UserItem("u", "Greet the person.", spoken=False)))
    sent = line.send(RequestReply("r1"))
    assert texts(sent) == [("USER", True, "Greet the person.")]
    assert sent[0][1]["type"] == "AUDIO"
    (started,) = (one for one in line.planned("Hello!") if isinstance(one, ReplyStarted))
    assert started.request_id == "r1"


def test_what_was_last_said_by_the_person_is_asked_and_not_history_where_a_reply_is_wanted():
    history = [AgentItem("a", "Hi."), UserItem("u1", "One?"), UserItem("u2", "Two?")]
    line = Line(history=history, sound=False)
    assert texts(line.send(RequestReply("r1"))) == [
        ("USER", False, "[The conversation begins.]"),
        ("ASSISTANT", False, "Hi."),
        ("USER", True, "One?\nTwo?"),
    ]


def test_words_wait_for_the_request_and_come_with_its_instructions():
    line = Line()
    assert not line.send(AddItem(UserItem("u", "And Rome?", spoken=False)))
    assert not line.send(AddItem(SystemItem("s", "They like trains.")))
    ((role, interactive, text),) = asked(line, instructions="Be brief.")
    assert (role, interactive) == ("USER", True)
    assert text.splitlines() == [
        "[They like trains.]",
        "And Rome?",
        "[For your next reply, and not said by the person: Be brief.]",
    ]
    line.reply("Rome is nice.")
    line.sound(5)
    assert asked(line, "r2") == [
        ("USER", True, "[The person has said nothing new. Go on with the conversation.]")
    ]


def test_what_was_spoken_is_not_told_again():
    line = Line()
    reply_id = line.reply("One.")
    item_id = reply_id.replace("reply", "item")
    for item in (UserItem("u", "spoken"), AgentItem(item_id, "One."), *CALLED[1:]):
        assert not line.send(AddItem(item))
    line.send(AddItem(AgentItem("tts", "A moment.")))
    line.sound(5)
    ((_, _, text),) = asked(line)
    assert text.splitlines() == [
        "[You have said: A moment.]",
        "[The person has said nothing new. Go on with the conversation.]",
    ]


def test_scripted_text_is_told_to_be_said_exactly():
    line = Line()
    ((role, interactive, text),) = texts(line.send(Say("r1", "It is 5 o'clock.")))
    assert (role, interactive) == ("USER", True)
    assert "exactly" in text
    assert '"""It is 5 o\'clock."""' in text


def test_long_text_goes_in_pieces_of_a_kilobyte():
    line = Line()
    words = " ".join(f"wörd{index}" for index in range(1000))
    line.send(AddItem(UserItem("u", words, spoken=False)))
    sent = line.send(RequestReply("r1"))
    assert texts(sent) == [("USER", True, words)]
    parts = [fields["content"] for name, fields in sent if name == "textInput"]
    assert max(len(part.encode()) for part in parts) <= 1000
    assert len(parts) > 5
    assert all(part.endswith(" ") for part in parts[:-1])


def test_a_text_waits_until_the_reply_before_it_was_played():
    line = Line()
    line.reply("One.", "Two.", samples=24000 * 3)
    assert not line.send(Say("r1", "Three."))
    assert not line.sound(2)
    line.said("One.")
    assert not line.answers
    line.said("Two.")
    assert "Three." in texts(line.answers)[0][2]


def test_or_until_it_must_have_been_played_if_nobody_tells():
    line = Line()
    line.reply("One.", "Two.", samples=24000 * 3)
    assert not line.send(Say("r1", "Three."))
    assert not line.sound(6.5)
    assert "Three." in texts(line.sound(1))[0][2]


def test_or_until_then_where_no_sound_is_sent_at_all():
    line = Line()
    line.reply("One.", "Two.", samples=24000 * 3)
    assert not line.send(Say("r1", "Three."))
    line.tell(StreamIdle())
    assert "Three." in texts(line.answers)[0][2]


def test_what_waits_behind_a_reply_that_the_service_has_cut_waits_for_what_is_made_of_that():
    line = Line()
    line.reply("One.", "Two.", samples=24000 * 3)
    assert not line.send(Say("r1", "Three."))
    (interrupted,) = line.interrupted()
    assert isinstance(interrupted, ReplyInterrupted)
    assert not line.answers
    assert not line.sound(BARGE_IN_HOLD_S - 0.04)
    assert "Three." in texts(line.sound(0.1))[0][2]


def test_and_is_refused_if_that_was_an_interruption():
    line = Line()
    reply_id = line.reply("One.", "Two.", samples=24000 * 3)
    assert not line.send(Say("r1", "Three."))
    line.interrupted()
    assert not line.send(Truncate(reply_id.replace("reply", "item"), 100, "One"))
    (refused,) = line.tell(Flush())
    assert (refused.request_id, refused.code) == ("r1", "interrupted")
    assert not line.sound(10)


@pytest.mark.parametrize("cut", ["cancel", "truncate", "delete"])
def test_what_waits_behind_a_reply_that_we_have_cut_is_refused_too(cut):
    line = Line()
    reply_id = line.reply("One.", "Two.", samples=24000 * 3)
    item_id = reply_id.replace("reply", "item")
    line.send(AddItem(UserItem("u", "And then?", spoken=False)))
    assert not line.send(RequestReply("r1"))
    assert not line.send(Say("r2", "Never said."))
    sent = line.send(
        {
            "cancel": CancelReply(reply_id),
            "truncate": Truncate(item_id, 100, "One"),
            "delete": DeleteItem(item_id),
        }[cut]
    )
    assert not sent
    assert line.nudged
    refused = line.tell(Flush())
    assert [(one.request_id, one.code) for one in refused] == [
        ("r1", "interrupted"),
        ("r2", "interrupted"),
    ]
    assert not line.tell(Flush())
    ((_, _, text),) = asked(line, "r3")
    assert text.splitlines()[1:] == ["And then?"]


def test_it_is_told_what_was_heard_where_it_has_not_noticed_itself():
    line = Line()
    reply_id = line.reply("One.", "Two.", samples=24000 * 3)
    line.send(CancelReply(reply_id))
    line.send(Truncate(reply_id.replace("reply", "item"), 1000, 'One "and'))
    ((_, _, text),) = asked(line)
    assert text.splitlines()[0] == (
        '[The person interrupted you, and has heard no more than: "One \\"and"]'
    )
    reply_id = line.reply("Three.")
    line.send(CancelReply(reply_id))
    ((_, _, text),) = asked(line, "r2")
    assert text.splitlines()[0].endswith("no more than: nothing at all]")
    reply_id = line.reply("Four.")
    line.send(Truncate(reply_id.replace("reply", "item"), 100, "Fo"))
    line.interrupted()
    ((_, _, text),) = asked(line, "r3")
    assert "interrupted" not in text
    reply_id = line.reply("Five.")
    line.send(Truncate(reply_id.replace("reply", "item"), 100, "Fi"))
    line.reply("Six.")
    line.sound(3)
    ((_, _, text),) = asked(line, "r4")
    assert "interrupted" not in text


def test_one_text_waits_for_the_answer_to_the_other():
    line = Line()
    assert asked(line, "r1")
    assert not asked(line, "r2")
    line.reply("One.")
    assert not line.answers
    assert len(texts(line.sound(2))) == 1
    assert not asked(line, "r3")
    assert not line.sound(REPLY_TIMEOUT_S - 2)
    assert len(texts(line.sound(2))) == 1


def test_a_text_that_the_person_speaks_over_is_refused_and_their_turn_answers_nothing():
    line = Line()
    assert asked(line, "r1")
    line.sound(0.5)
    line.send(SendAudio(SPEECH))
    line.sound(0.5)
    words, refused = line.heard("When is breakfast?")
    assert isinstance(words, UserTranscript)
    assert isinstance(refused, ReplyRefused)
    assert (refused.request_id, refused.code, refused.busy) == ("r1", "interrupted", True)
    (started, _) = line.planned("From seven to ten.")
    assert started.request_id is None


def test_late_words_of_a_turn_before_the_text_do_not_refuse_it():
    line = Line()
    line.send(SendAudio(SPEECH))
    assert asked(line, "r1")
    line.sound(0.5)
    assert [type(one) for one in line.heard("Good morning.")] == [UserTranscript]
    (started, _) = line.planned("Welcome!")
    assert started.request_id == "r1"


def test_a_text_that_is_never_answered_is_refused():
    line = Line()
    assert asked(line, "r1")
    line.sound(REPLY_TIMEOUT_S - 0.1)
    assert not line.tell(Flush())
    line.sound(0.1)
    assert line.nudged
    (refused,) = line.tell(Flush())
    assert (refused.request_id, refused.code, refused.busy) == ("r1", "unanswered", True)
    (started, _) = line.planned("Who is there?")
    assert started.request_id is None
    line = Line()
    assert asked(line, "r2")
    (refused,) = line.tell(StreamIdle())
    assert (refused.request_id, refused.busy) == ("r2", True)


def test_a_result_goes_back_as_json_once():
    line = Line(tools=[WEATHER])
    line.call("c1")
    sent = line.send(SendToolResult("c1", "weather", '{"sky": "blue"}'))
    assert names(sent) == ["contentStart", "toolResult", "contentEnd"]
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
        line.call("c2")
        sent = line.send(SendToolResult("c2", "weather", output, failed=failed))
        assert json.loads(sent[1][1]["content"]) == content


def test_what_the_service_would_refuse_is_left_out():
    order = EventSequence(RealtimeConfig())
    assert not order.start_audio()
    assert not order.audio(SILENCE.samples)
    assert not order.text("Hello.")
    assert order.begin("be kind", ())
    assert not order.begin("be kind", ())
    order.register_call("c1")
    assert not order.tool_result("c1", "{}")
    assert order.start_audio()
    assert not order.start_audio()
    assert not order.tool_result("c2", "{}")
    assert order.tool_result("c1", "{}")
    assert not order.has_call("c1")
    assert not order.tool_result("c1", "{}")
    assert not order.text("")
    assert order.end()
    assert not order.audio(SILENCE.samples)


def test_a_result_that_this_connection_did_not_ask_for_is_told_in_words():
    line = Line(history=CALLED, sound=False)
    sent = line.send(SendToolResult("old", "weather", "rain"))
    assert names(sent)[-4:] == ["contentStart", "contentStart", "textInput", "contentEnd"]
    (role, interactive, text) = texts(sent)[-1]
    assert (role, interactive) == ("USER", True)
    assert "[The tool weather, called with …, answered: rain]" in text
    (started,) = (one for one in line.planned("Rain.") if isinstance(one, ReplyStarted))
    assert started.request_id is not None


def test_a_session_that_nobody_speaks_in_is_given_silence():
    line = Line(history=CALLED, sound=False)
    for _ in range(3):
        assert not line.tell(StreamIdle())
        assert not line.answers
    assert not line.send(AddItem(UserItem("late", "And Rome?")))
    assert not line.tell(StreamIdle())
    assert "And Rome?" in texts(line.answers)[0][2]
    assert names(line.answers)[-2:] == ["contentStart", "audioInput"]
    assert texts(line.answers)[0][1] is False
    line.tell(StreamIdle())
    assert names(line.answers) == ["audioInput"]
    assert not line.tell(StreamQuiet())
    assert not line.answers


def test_a_service_that_wants_to_hear_something_before_it_answers_gets_it():
    line = Line(sound=False, accepted=False)
    line.tell(StreamIdle())
    assert names(line.answers) == ["contentStart", "audioInput"]
    (started,) = line.tell(StreamAccepted(20.0))
    assert started.expires_in == 20.0


def test_the_farewell():
    line = Line()
    assert [name for name, _ in line._out(line.codec.closing_messages())] == [
        "contentEnd",
        "promptEnd",
        "sessionEnd",
    ]
    assert not line.codec.closing_messages()
    assert not line.send(SendAudio(SILENCE))
    assert not line.send(RequestReply("r"))
    silent = Line(sound=False)
    assert [json.loads(m)["event"].keys() for m in silent.codec.closing_messages()] == [
        {"promptEnd"},
        {"sessionEnd"},
    ]


def test_what_its_profile_rules_out_is_not_sent():
    line = Line()
    for command in (EndTurn(), ClearInput(), UpdateSession("be brief", ())):
        assert not line.send(command)


def test_nova_1_refuses_what_it_can_not_be_asked():
    line = Line(model=NOVA_1)
    assert not line.send(RequestReply("r1"))
    assert line.nudged
    (refused,) = line.tell(Flush())
    assert isinstance(refused, ReplyRefused)
    assert (refused.request_id, refused.busy) == ("r1", False)
    assert "amazon.nova-2-sonic" in refused.message
    line.send(SendToolResult("old", "weather", "rain"))
    assert not line.tell(Flush())


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
    line = Line(history=history, tools=[WEATHER], sound=False, **config)
    service = order.InputStateMachine(config.get("model", "amazon.nova-2-sonic-v1:0"))
    calls = set()
    for step in steps:
        match step:
            case "call a" | "call b":
                call_id = step[-1]
                if call_id not in calls:
                    calls.add(call_id)
                    service.add_call(call_id)
                    line.call(call_id)
            case "reply":
                line.planned("One.")
                line.audio(240)
            case "interrupted":
                line.interrupted()
            case "heard":
                line.heard("words")
            case StreamIdle() | StreamQuiet():
                line.tell(step)
            case _:
                line.send(step)
    line.send(SendAudio(SILENCE))
    line._out(line.codec.closing_messages())
    for name, fields in line.sent:
        service.accept(parse(*split_event({"event": {name: fields}})))
    assert service.has_ended
