"""Recorded messages of real services, through the codecs.

The recordings are not part of the project; `DUOLOGUE_RECORDINGS` names their folder. Turns,
transcripts, samples, calls and tokens are counted here from the frames, and must match the outputs.
"""

import base64
import json
import os
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("websockets", reason="the openai extra is not installed")

from duologue.events import UsageEvent
from duologue.providers._openai_protocol.codec import Codec
from duologue.providers._openai_protocol.dialect import Dialect
from duologue.providers.gemini._codec import Codec as GeminiCodec
from duologue.providers.gemini._config import LiveConfig
from duologue.providers.gemini._resumption import Resumption
from duologue.providers.openai._config import RealtimeConfig
from duologue.providers.openai._session_json import OpenAISession
from duologue.realtime.codec import SessionSetup
from duologue.realtime.outputs import (
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Usage,
    UserTranscript,
    UserTurnEnded,
)

HERE = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("DUOLOGUE_RECORDINGS", HERE.parent / "shared" / "recordings"))
FILES = sorted(path.name for path in FOLDER.glob("*.jsonl"))
if not FILES:
    pytest.skip("there are no recordings here", allow_module_level=True)

GOOGLE = [name for name in FILES if name.startswith("google.")]
OTHERS = [name for name in FILES if not name.startswith("google.")]


def frames(name):
    """Return the messages of the service, in order."""
    lines = [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
    return [line["s"] for line in lines if "s" in line]


def decoded(codec, name):
    return [out for frame in frames(name) for out in codec.decode(json.dumps(frame).encode())]


def samples(data):
    return len(base64.b64decode(data + "=" * (-len(data) % 4))) / 2


def of(outputs, kind):
    return [one for one in outputs if isinstance(one, kind)]


def openai_codec(transport):
    codec = Codec(Dialect(OpenAISession(RealtimeConfig(transport=transport))), transport=transport)
    codec.open(SessionSetup())
    return codec


@pytest.mark.parametrize("name", OTHERS)
def test_openai_compatible_recordings_are_decoded(name):
    codec = openai_codec("websocket")
    outputs = decoded(codec, name)
    came = [
        (frame["type"].replace("response.audio", "response.output_audio"), frame)
        for frame in frames(name)
    ]
    kinds = Counter(kind for kind, _ in came)
    assert codec.malformed == 0
    assert not of(outputs, ProviderError)
    assert len(of(outputs, SessionStarted)) == 1
    assert len(of(outputs, ReplyStarted)) == kinds["response.created"]
    assert [one.status for one in of(outputs, ReplyDone)] == [
        frame["response"]["status"] for kind, frame in came if kind == "response.done"
    ]
    assert len(of(outputs, SpeechStarted)) == kinds["input_audio_buffer.speech_started"]
    assert len(of(outputs, SpeechStopped)) == kinds["input_audio_buffer.speech_stopped"]
    assert len(of(outputs, UserTurnEnded)) == kinds["input_audio_buffer.committed"]
    written = [
        frame["transcript"].strip() for kind, frame in came if "transcription.completed" in kind
    ]
    assert [one.text for one in of(outputs, UserTranscript) if one.final] == written
    spoken = [
        frame.get("transcript", frame.get("text"))
        for kind, frame in came
        if kind
        in (
            "response.output_audio_transcript.done",
            "response.text.done",
            "response.output_text.done",
        )
    ]
    said = {}
    for one in of(outputs, ReplyText):
        said[one.item_id] = said.get(one.item_id, "") + one.text
    assert [text for text in said.values() if text] == [text for text in spoken if text]
    audio_samples = sum(
        samples(frame["delta"]) // 1 for kind, frame in came if kind.endswith("_audio.delta")
    )
    assert (
        abs(sum(len(one.frame) for one in of(outputs, ReplyAudio)) - audio_samples)
        <= kinds["response.output_audio.delta"] / 2
    )
    calls = {}
    for kind, frame in came:
        if kind == "response.function_call_arguments.done":
            calls[frame["call_id"]] = frame["arguments"]
    assert {one.call_id: one.arguments for one in of(outputs, ToolCall)} == calls
    spent = [frame["response"]["usage"] for kind, frame in came if kind == "response.done"]
    told = [UsageEvent(one.input, one.output) for one in of(outputs, Usage)]
    assert [(one.total_input, one.total_output) for one in told] == [
        (one["input_tokens"], one["output_tokens"]) for one in spent if one
    ]


@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith("openai")])
def test_all_openai_events_are_known(name):
    codec = openai_codec("websocket")
    decoded(codec, name)
    assert not codec.unknown


@pytest.mark.parametrize("name", GOOGLE)
def test_gemini_recordings_are_decoded(name):
    model = "gemini-2.5-flash-native-audio-preview-09-2025"
    codec = GeminiCodec(LiveConfig(model=model), Resumption(lambda: ()), model=f"models/{model}")
    codec.open(SessionSetup())
    outputs = decoded(codec, name)
    came = frames(name)
    contents = [frame["serverContent"] for frame in came if "serverContent" in frame]
    parts = [part for one in contents for part in one.get("modelTurn", {}).get("parts", ())]
    assert codec.malformed == 0
    assert not codec.unknown
    assert not of(outputs, ProviderError)
    assert len(of(outputs, SessionStarted)) == 1
    # A turn that calls a tool continues after its result: that is a separate reply.
    replies = sum("turnComplete" in one for one in contents) + sum(
        "toolCall" in one for one in came
    )
    assert len(of(outputs, ReplyStarted)) == len(of(outputs, ReplyDone)) == replies
    assert "".join(one.text for one in of(outputs, ReplyText)) == "".join(
        one.get("outputTranscription", {}).get("text", "") for one in contents
    )
    assert "".join(one.text for one in of(outputs, UserTranscript)) == "".join(
        one.get("inputTranscription", {}).get("text", "") for one in contents
    )
    audio_samples = [samples(part["inlineData"]["data"]) for part in parts if "inlineData" in part]
    heard = sum(len(one.frame) for one in of(outputs, ReplyAudio))
    assert heard == pytest.approx(sum(audio_samples), abs=replies)
    calls = [call for one in came for call in one.get("toolCall", {}).get("functionCalls", ())]
    assert [(one.call_id, json.loads(one.arguments)) for one in of(outputs, ToolCall)] == [
        (call["id"], call["args"]) for call in calls
    ]
    spent = [one["usageMetadata"] for one in came if "usageMetadata" in one]
    told = [UsageEvent(one.input, one.output) for one in of(outputs, Usage)]
    assert [(one.total_input, one.total_output) for one in told] == [
        (one["promptTokenCount"], one["responseTokenCount"] + one.get("thoughtsTokenCount", 0))
        for one in spent
    ]
