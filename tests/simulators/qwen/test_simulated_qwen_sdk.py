"""The official ``dashscope`` SDK with the simulated Qwen service, in real time.

Both of its clients are synchronous: they run in a thread, and the simulator on the loop.
"""

from __future__ import annotations

import asyncio
import base64
import queue
import warnings
import wave
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("PIL", reason="the video extra is not installed")
pytest.importorskip("dashscope", reason="the dashscope SDK is not installed")

import dashscope
from dashscope.audio.qwen_omni import (
    AudioFormatConfig,
    MultiModality,
    OmniRealtimeCallback,
    OmniRealtimeConversation,
)
from dashscope.v2.errors import DashScopeError
from PIL import Image
from qwen_client import encode, silence, tone
from websocket import WebSocketBadStatusException

from duologue.audio import Resampler
from duologue.testing import QwenSimulator, Reply, ToolUse

SPEECH = Path(__file__).parents[2] / "data" / "speech"
PLUS = "qwen3.5-omni-plus-realtime"
LATEST = "qwen3.8-omni-flash-realtime"
BOTH = [MultiModality.TEXT, MultiModality.AUDIO]
LONG = Reply("One two three four five six seven.", seconds=20.0, pace=1.0)
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def make_jpeg() -> bytes:
    out = BytesIO()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def chunks(*parts: np.ndarray):
    """Yield the audio in chunks of 100 ms, as the documentation recommends."""
    samples = np.concatenate(parts)
    for begin in range(0, len(samples), 1600):
        yield samples[begin : begin + 1600]


class Callback(OmniRealtimeCallback):
    """Keeps the events of a legacy conversation."""

    def __init__(self) -> None:
        self.queue: queue.Queue[dict[str, object]] = queue.Queue()
        self.types: list[str] = []
        self.opened = 0
        self.closed: queue.Queue[tuple[object, object]] = queue.Queue()

    def on_open(self) -> None:
        self.opened += 1

    def on_event(self, message: dict[str, object]) -> None:  # type: ignore[override]
        self.queue.put(message)

    def on_close(self, close_status_code: object, close_msg: object) -> None:
        self.closed.put((close_status_code, close_msg))

    def until(self, *types: str) -> dict[str, object]:
        while True:
            event = self.queue.get(timeout=60)
            self.types.append(event["type"])
            if event["type"] in types:
                return event


def legacy(
    simulator: QwenSimulator, model: str = PLUS
) -> tuple[OmniRealtimeConversation, Callback]:
    """Start a conversation of the SDK's first client."""
    callback = Callback()
    conversation = OmniRealtimeConversation(
        model=model, callback=callback, url=simulator.ws_url, api_key=simulator.key
    )
    conversation.connect()
    callback.until("session.created")
    return conversation, callback


def make_session(simulator: QwenSimulator, model: str, key: str = ""):
    """Return a session of the SDK's second client."""
    with warnings.catch_warnings():
        # It warns that it is a preview, and that no workspace is set.
        warnings.simplefilter("ignore")
        client = dashscope.Client(api_key=key or simulator.key, timeout=5.0)
        return client.audio.realtime.connect(model=model, ws_url=simulator.ws_url)


def until(session, *types: str) -> tuple[dict[str, object], list[str]]:
    seen: list[str] = []
    while True:
        event = session.recv_event()
        assert event is not None, seen
        seen.append(event["type"])
        if event["type"] in types:
            return event, seen


async def test_legacy_client_holds_a_conversation():
    replies = [
        Reply("It is sunny.", seconds=0.2),
        Reply("", 0.0, tools=[ToolUse("weather", {"city": "Paris"})]),
        Reply("Rain.", seconds=0.2),
        LONG,
        LONG,
        Reply("Yes.", seconds=0.2),
    ]

    def talk(simulator: QwenSimulator) -> None:
        conversation, callback = legacy(simulator)
        conversation.update_session(
            output_modalities=BOTH,
            voice="Ethan",
            input_audio_transcription_model="qwen3-asr-flash-realtime",
            tools=[TOOL],
            instructions="Be brief.",
        )
        updated = callback.until("session.updated")["session"]
        assert (updated["voice"], updated["turn_detection"]["threshold"]) == ("Ethan", 0.2)
        assert conversation.get_session_id() == updated["id"]

        conversation.append_video(base64.b64encode(make_jpeg()).decode())
        assert "before append audio" in callback.until("error")["error"]["message"]

        for piece in chunks(tone(0.4)):
            conversation.append_audio(encode(piece))
        conversation.append_video(base64.b64encode(make_jpeg()).decode())
        for piece in chunks(silence(1.0)):
            conversation.append_audio(encode(piece))
        done = callback.until("response.done")["response"]
        assert done["output"][0]["content"][0]["transcript"] == "It is sunny."
        assert conversation.get_last_response_id() == done["id"]
        assert conversation.get_last_first_audio_delay() >= 0
        assert conversation.get_last_first_text_delay() >= 0

        conversation.create_response(instructions="Use the tool.")
        called = callback.until("response.function_call_arguments.done")
        assert (called["name"], called["arguments"]) == ("weather", '{"city": "Paris"}')
        callback.until("response.done")
        conversation.create_item(
            {"type": "function_call_output", "call_id": called["call_id"], "output": "rain"}
        )
        conversation.create_response()
        assert callback.until("response.done")["response"]["status"] == "completed"

        conversation.create_response()
        callback.until("response.audio.delta")
        conversation.cancel_response()
        assert callback.until("response.done")["response"]["status"] == "cancelled"
        conversation.cancel_response()
        assert "none active response" in callback.until("error")["error"]["message"]

        conversation.create_response()
        callback.until("response.audio.delta")
        for piece in chunks(tone(0.4), silence(1.0)):
            conversation.append_audio(encode(piece))
        callback.until("input_audio_buffer.speech_started")
        assert callback.until("response.done")["response"]["status"] == "cancelled"
        assert callback.until("response.done")["response"]["status"] == "completed"

        conversation.end_session(timeout=5)
        assert callback.closed.get(timeout=5)[0] == 1000
        assert callback.opened == 1

    async with QwenSimulator(replies=replies, transcripts=["How is it?"]) as simulator:
        await asyncio.to_thread(talk, simulator)
        (session,) = simulator.sessions
        assert len(session.images) == 1
        assert session.session_object["tools"] == [TOOL]


async def test_legacy_client_ends_turns_itself_and_chooses_rates():
    def talk(simulator: QwenSimulator) -> int:
        conversation, callback = legacy(simulator)
        conversation.update_session(
            output_modalities=BOTH,
            voice="Tina",
            enable_turn_detection=False,
            input_audio_config=AudioFormatConfig("pcm", 8000),
            output_audio_config=AudioFormatConfig("pcm", 48000),
        )
        updated = callback.until("session.updated")["session"]
        assert updated["audio"]["output"]["format"]["sample_rate"] == 48000
        for piece in chunks(tone(0.5, 8000)):
            conversation.append_audio(encode(piece))
        conversation.commit()
        conversation.create_response()
        samples = 0
        while True:
            event = callback.until("response.audio.delta", "response.done")
            if event["type"] == "response.done":
                break
            samples += len(base64.b64decode(event["delta"])) // 2
        conversation.close()
        return samples

    async with QwenSimulator() as simulator:
        samples = await asyncio.to_thread(talk, simulator)
        assert samples == pytest.approx(0.5 * 48000, abs=150)


async def test_legacy_client_relies_on_output_item_done_without_response_done():
    def talk(simulator: QwenSimulator) -> list[str]:
        conversation, callback = legacy(simulator)
        conversation.create_response()
        callback.until("response.audio.delta")
        conversation.cancel_response()
        callback.until("response.output_item.done")
        conversation.create_response()
        callback.until("response.done")
        conversation.close()
        return callback.types

    replies = [LONG, Reply("Yes.", seconds=0.1)]
    async with QwenSimulator(replies=replies, done_after_cancel=False) as simulator:
        types = await asyncio.to_thread(talk, simulator)
        assert types.count("response.created") == 2
        assert types.count("response.done") == 1


@pytest.mark.weights
async def test_built_in_engine_transcribes_real_speech_and_replies(weights):
    def talk(simulator: QwenSimulator) -> None:
        conversation, callback = legacy(simulator)
        conversation.update_session(output_modalities=BOTH, voice="Ethan")
        with wave.open(str(SPEECH / "austen-0880.wav")) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        for piece in chunks(Resampler(rate, 16000).push(samples), silence(1.0)):
            conversation.append_audio(encode(piece))
        heard = callback.until("conversation.item.input_audio_transcription.completed")
        assert "young man" in heard["transcript"]
        done = callback.until("response.done")["response"]
        assert done["output"][0]["content"][0]["transcript"]
        assert done["usage"]["output_tokens_details"]["audio_tokens"] > 5
        conversation.close()

    async with QwenSimulator("local", profile="tiny") as simulator:
        await asyncio.to_thread(talk, simulator)


async def test_second_client_uses_the_nested_session_object():
    def talk(simulator: QwenSimulator) -> None:
        with make_session(simulator, LATEST) as session:
            until(session, "session.created")
            session.update_session(
                ["text", "audio"],
                voice="Ethan",
                input_audio_config={"type": "pcm", "sample_rate": 16000},
                output_audio_config={"type": "pcm", "sample_rate": 24000},
                enable_input_audio_transcription=True,
                turn_detection_type="semantic_vad",
                turn_detection_silence_duration_ms=300,
                instructions="Be brief.",
                tools=[TOOL],
            )
            updated = until(session, "session.updated")[0]["session"]
            assert session.session_id == updated["id"]
            assert updated["audio"]["output"]["voice"] == "Ethan"
            assert updated["turn_detection"]["type"] == "semantic_vad"
            for piece in chunks(tone(0.4)):
                session.append_audio(piece.tobytes())
            session.append_video(make_jpeg())
            for piece in chunks(silence(0.5)):
                session.append_audio(piece.tobytes())
            done, types = until(session, "response.done")
            assert "conversation.item.input_audio_transcription.completed" in types
            assert done["response"]["status"] == "completed"
            assert session.last_first_audio_delay >= 0
            session.create_item(
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "And tomorrow?"}],
                }
            )
            until(session, "conversation.item.created")
            session.create_response(instructions="Answer.")
            until(session, "response.done")
            session.end_session()
            # It is not acknowledged: the connection just ends, and that is not an error.
            assert [event["type"] for event in session.events()] == []

    async with QwenSimulator(replies=[Reply("Yes.", seconds=0.2)] * 2) as simulator:
        await asyncio.to_thread(talk, simulator)
        assert len(simulator.sessions[0].images) == 1


async def test_second_client_uses_the_legacy_session_object_and_survives_refusals():
    def talk(simulator: QwenSimulator) -> None:
        with make_session(simulator, PLUS) as session:
            until(session, "session.created")
            session.update_session(["text", "audio"], enable_turn_detection=False)
            until(session, "session.updated")
            session.cancel_response()
            with pytest.raises(DashScopeError, match="none active response"):
                until(session, "error")
            for piece in chunks(tone(0.4)):
                session.append_audio(encode(piece))
            session.commit()
            until(session, "input_audio_buffer.committed")
            session.create_response()
            until(session, "response.done")
            for refused in (
                lambda: session.update_session(["audio"]),
                lambda: session.delete_item("item_1"),
                lambda: session.retrieve_item("item_1"),
            ):
                refused()
                with pytest.raises(DashScopeError):
                    until(session, "error")
            session.end_session()
            assert [event["type"] for event in session.events()] == ["session.finished"]

    async with QwenSimulator(replies=[Reply("Yes.", seconds=0.2)] * 2) as simulator:
        await asyncio.to_thread(talk, simulator)


async def test_second_client_learns_why_it_is_refused():
    def talk(simulator: QwenSimulator) -> int:
        with pytest.raises(WebSocketBadStatusException) as refused:
            make_session(simulator, PLUS, "sk-wrong").connect()
        return refused.value.status_code

    async with QwenSimulator() as simulator:
        assert await asyncio.to_thread(talk, simulator) == 401
