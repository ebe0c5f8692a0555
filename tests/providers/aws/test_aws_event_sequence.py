import base64
import json

import numpy as np
import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("orjson", reason="the aws extra is not installed")

from duologue.providers.aws._config import RealtimeConfig
from duologue.providers.aws._event_sequence import EventSequence, Stage
from duologue.providers.aws._history import HistoryMessage
from duologue.realtime.commands import ToolSpec

SILENCE = np.zeros(320, np.int16)
WEATHER = ToolSpec("weather", "", {"type": "object"})


def decode(messages):
    return [next(iter(json.loads(message)["event"].items())) for message in messages]


def event_names(messages):
    return [name for name, _ in decode(messages)]


def test_session_goes_through_its_stages():
    sequence = EventSequence(RealtimeConfig())
    assert sequence.stage is Stage.NEW
    assert event_names(sequence.begin("", ())) == ["sessionStart", "promptStart"]
    assert sequence.stage is Stage.STARTED
    assert event_names(sequence.start_audio()) == ["contentStart"]
    assert sequence.stage is Stage.STREAMING
    assert event_names(sequence.end()) == ["contentEnd", "promptEnd", "sessionEnd"]
    assert sequence.stage is Stage.ENDED
    assert not sequence.end()


def test_history_is_sent_before_the_audio_block():
    sequence = EventSequence(RealtimeConfig())
    sequence.begin("be kind", ())
    events = decode(
        sequence.start_audio([HistoryMessage("USER", "Hi."), HistoryMessage("ASSISTANT", "Yes?")])
    )
    assert [name for name, _ in events] == [
        *["contentStart", "textInput", "contentEnd"] * 2,
        "contentStart",
    ]
    assert [fields["role"] for name, fields in events if name == "contentStart"] == [
        "USER",
        "ASSISTANT",
        "USER",
    ]
    assert len({fields["promptName"] for _, fields in events}) == 1


def test_audio_is_base64_of_little_endian_samples():
    sequence = EventSequence(RealtimeConfig())
    sequence.begin("", ())
    ((_, block),) = decode(sequence.start_audio())
    ((name, fields),) = decode(sequence.audio(np.array([1, -2], np.int16)))
    assert name == "audioInput"
    assert fields["contentName"] == block["contentName"]
    assert base64.b64decode(fields["content"]) == b"\x01\x00\xfe\xff"


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        ("auto", {"auto": {}}),
        ("any", {"any": {}}),
        ("weather", {"tool": {"name": "weather"}}),
    ],
)
def test_tools_and_the_choice_of_tools_are_in_the_prompt(choice, sent):
    sequence = EventSequence(RealtimeConfig(tool_choice=choice))
    _, (_, prompt) = decode(sequence.begin("", [WEATHER]))
    configuration = prompt["toolConfiguration"]
    assert configuration.get("toolChoice") == sent
    (tool,) = configuration["tools"]
    assert tool["toolSpec"]["description"] == "weather"
    assert json.loads(tool["toolSpec"]["inputSchema"]["json"]) == {"type": "object"}


def test_nova_1_gets_no_endpointing():
    sequence = EventSequence(RealtimeConfig("amazon.nova-sonic-v1:0"))
    (_, session), _ = decode(sequence.begin("", ()))
    assert "turnDetectionConfiguration" not in session


def test_events_that_the_service_would_refuse_are_left_out():
    sequence = EventSequence(RealtimeConfig())
    assert not sequence.start_audio()
    assert not sequence.audio(SILENCE)
    assert not sequence.text("Hello.")
    assert sequence.begin("be kind", ())
    assert not sequence.begin("be kind", ())
    sequence.register_call("c1")
    assert not sequence.tool_result("c1", "{}")
    assert sequence.start_audio()
    assert not sequence.start_audio()
    assert not sequence.tool_result("c2", "{}")
    assert sequence.tool_result("c1", "{}")
    assert not sequence.has_call("c1")
    assert not sequence.tool_result("c1", "{}")
    assert not sequence.text("")
    assert sequence.end()
    assert not sequence.audio(SILENCE)
