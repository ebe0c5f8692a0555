"""Turns of the simulated Qwen service, in virtual time."""

from __future__ import annotations

import wave
from io import BytesIO

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from qwen_client import QUICK, RATE, encode, open_session, silence, tone

from duologue.realtime.commands import DeleteItem
from duologue.simulators._backends import SCRIPTED
from duologue.testing import QwenSimulator, Reply, ScriptedRealtime, virtual_time

FLASH = "qwen3.5-omni-flash-realtime"
HEARD = "conversation.item.input_audio_transcription"


def make_simulator(*replies, **options):
    return QwenSimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 3, **options)


@virtual_time
async def test_turn_follows_the_order_of_the_protocol():
    simulator = make_simulator(Reply("It is sunny.", seconds=0.1), transcripts=["How is it?"])
    async with simulator as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        done = await client.until("response.done")
        assert client.types == [
            "session.created",
            "session.updated",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.created",
            *[f"{HEARD}.delta"] * 3,
            f"{HEARD}.completed",
            "response.created",
            "response.output_item.added",
            "conversation.item.created",
            "response.content_part.added",
            *["response.audio_transcript.delta"] * 3,
            "response.audio.delta",
            "response.audio_transcript.done",
            "response.audio.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
        ]
        response = done["response"]
        assert response["status"] == "completed"
        assert response["output"][0]["content"] == [{"type": "audio", "transcript": "It is sunny."}]
        usage = response["usage"]
        assert usage["output_tokens_details"] == {"text_tokens": 3, "audio_tokens": 2}
        assert set(usage["input_tokens_details"]) == {"text_tokens", "audio_tokens"}
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        started = client.events_of("input_audio_buffer.speech_started")[0]
        ids = {event["item_id"] for event in client.events_of(f"{HEARD}.delta")}
        assert ids == {started["item_id"]} == {sim.sessions[0].conversation[0]["id"]}
        ids = [event["event_id"] for event in client.events]
        assert len(set(ids)) == len(ids)


@virtual_time
async def test_words_become_certain_two_words_later():
    simulator = make_simulator(transcripts=["one two three four"])
    async with simulator as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        completed = await client.until(f"{HEARD}.completed")
        told = [(event["text"], event["stash"]) for event in client.events_of(f"{HEARD}.delta")]
        assert told == [
            ("", "one"),
            ("", "one two"),
            ("one", " two three"),
            ("one two", " three four"),
        ]
        assert completed["transcript"] == "one two three four"


@pytest.mark.parametrize("chunk", [100, 320, 1600, 7777, 10**6])
def test_turn_positions_do_not_depend_on_chunks(chunk):
    @virtual_time
    async def talk():
        async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
            await client.append(
                np.concatenate((silence(1.0), tone(0.5), silence(0.5), tone(0.3), silence(0.5))),
                chunk,
            )
            await client.receive_for()
            return [
                event.get("audio_start_ms", event.get("audio_end_ms"))
                for event in client.events
                if "speech_st" in event["type"]
            ]

    assert talk() == [700, 1700, 1700, 2500]


@virtual_time
async def test_turn_does_not_end_without_silence():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.append(tone(1.0))
        await client.receive_for(30.0)
        assert client.types[-1] == "input_audio_buffer.speech_started"
        await client.append(silence(0.2))
        await client.until("response.done")


@virtual_time
async def test_default_silence_is_800_ms_also_for_semantic_turns():
    async with make_simulator() as sim, open_session(sim) as client:
        await client.append(np.concatenate((tone(0.4), silence(1.0))))
        assert (await client.until("input_audio_buffer.speech_stopped"))["audio_end_ms"] == 1200
        await client.until("response.done")
        updated = await client.update(turn_detection={"type": "semantic_vad"})
        assert updated["session"]["turn_detection"]["type"] == "semantic_vad"
        await client.append(np.concatenate((tone(0.4), silence(1.0))))
        stopped = await client.until("input_audio_buffer.speech_stopped")
        assert stopped["audio_end_ms"] == 2600


@virtual_time
async def test_negative_threshold_detects_a_whisper():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        whisper = tone(0.3) // 200  # an RMS of 21
        await client.append(whisper)
        await client.receive_for()
        assert "input_audio_buffer.speech_started" not in client.types
        await client.update(turn_detection={"threshold": -1.0})
        await client.append(whisper)
        await client.until("input_audio_buffer.speech_started")


@virtual_time
async def test_client_ends_turns_without_turn_detection():
    async with (
        make_simulator(keep_audio=True, transcripts=["Hello."]) as sim,
        open_session(sim, turn_detection=None) as client,
    ):
        error = await client.error("input_audio_buffer.commit")
        assert error["message"].startswith("Error committing input audio buffer")
        await client.append(tone(0.5))
        await client.send("input_audio_buffer.commit")
        assert (await client.until(f"{HEARD}.completed"))["transcript"] == "Hello."
        await client.receive_for()
        assert "response.created" not in client.types
        assert "input_audio_buffer.speech_started" not in client.types
        (turn,) = sim.sessions[0].user_turns
        assert (turn.start, turn.end) == (0, RATE // 2)
        assert np.array_equal(turn.samples, tone(0.5))
        await client.send("response.create")
        await client.until("response.done")


@virtual_time
async def test_client_cannot_end_turns_that_the_service_detects():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.append(tone(0.5))
        error = await client.error("input_audio_buffer.commit")
        assert error["message"].startswith("Error committing input audio buffer")
        await client.append(silence(0.3))
        await client.until("response.done")


@virtual_time
async def test_flash_sends_no_complete_transcript_of_a_client_turn():
    async with (
        make_simulator(transcripts=["Hello you.", "And now?"]) as sim,
        open_session(sim, FLASH, turn_detection=None) as client,
    ):
        await client.append(tone(0.5))
        await client.send("input_audio_buffer.commit")
        await client.receive_for()
        assert client.events_of(f"{HEARD}.delta")[-1]["stash"] == "Hello you."
        assert f"{HEARD}.completed" not in client.types
        await client.update(turn_detection=QUICK)
        await client.send_turn()
        assert (await client.until(f"{HEARD}.completed"))["transcript"] == "And now?"


@virtual_time
async def test_transcripts_are_sent_only_if_enabled():
    async with (
        make_simulator(transcripts=["Hello."]) as sim,
        open_session(sim, turn_detection=QUICK, input_audio_transcription=None) as client,
    ):
        await client.send_turn()
        await client.until("response.done")
        assert not [kind for kind in client.types if kind.startswith(HEARD)]


@virtual_time
async def test_cleared_audio_does_not_become_a_turn():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.append(tone(0.5))
        await client.until("input_audio_buffer.speech_started")
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.append(silence(1.0))
        await client.receive_for()
        assert "input_audio_buffer.speech_stopped" not in client.types
        assert isinstance(sim.sessions[0].backend.commands[-1], DeleteItem)


@virtual_time
async def test_nothing_is_answered_by_itself_without_create_response():
    detection = {**QUICK, "create_response": False}
    async with make_simulator() as sim, open_session(sim, turn_detection=detection) as client:
        await client.send_turn()
        await client.receive_for()
        assert client.types[-1] == f"{HEARD}.completed"


@virtual_time
async def test_transcript_may_follow_the_reply():
    async with (
        make_simulator(transcripts=["Hello."], transcription_delay=5.0) as sim,
        open_session(sim, turn_detection=QUICK) as client,
    ):
        await client.send_turn()
        await client.until("response.done")
        assert not client.events_of(f"{HEARD}.completed")
        await client.until(f"{HEARD}.completed")


@virtual_time
async def test_reply_is_cancelled_if_the_user_speaks_before_the_transcript():
    class Slow(ScriptedRealtime):
        def end_turn(self, *, reply=True):
            later = self.clock.now() + 1.0
            self.clock.call_at(later, lambda: ScriptedRealtime.end_turn(self, reply=reply))

    def make():
        return Slow([Reply("Yes.", 0.1)] * 2, manual=True, capabilities=SCRIPTED)

    async with QwenSimulator(make) as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        await client.append(np.concatenate((tone(0.3), silence(0.3))))
        first = (await client.until("response.done"))["response"]
        second = (await client.until("response.done"))["response"]
        assert (first["status"], second["status"]) == ("cancelled", "completed")
        assert first["status_details"]["reason"] == "turn_detected"


@virtual_time
async def test_agent_speaks_after_a_long_silence():
    detection = {**QUICK, "idle_timeout_ms": 5000}
    async with make_simulator() as sim, open_session(sim, turn_detection=detection) as client:
        await client.send_turn()
        await client.until("response.done")
        await client.append(silence(3.0))
        began = sim._clock.now()
        event = await client.until("input_audio_buffer.timeout_triggered")
        assert sim._clock.now() - began == pytest.approx(5.2, abs=0.1)
        assert event["audio_start_ms"] < event["audio_end_ms"] == 4100
        await client.until("response.done")


@pytest.mark.parametrize(("heard", "sent"), [(8000, 48000), (24000, 8000), (48000, 16000)])
def test_client_chooses_the_rates(heard, sent):
    @virtual_time
    async def talk():
        formats = {
            "input": {"format": {"type": "pcm", "sample_rate": heard}},
            "output": {"format": {"type": "pcm", "sample_rate": sent}},
        }
        async with QwenSimulator() as sim, open_session(sim, audio=formats) as client:
            await client.update(turn_detection=QUICK)
            await client.append(np.concatenate((tone(0.5, heard), silence(0.5, heard))))
            await client.until("response.done")
            stopped = client.events_of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
            told = "".join(event["delta"] for event in client.events_of("response.audio.delta"))
            return stopped, len(told) * 3 // 4 / 2 / sent

    stopped, seconds = talk()
    assert stopped == pytest.approx(700, abs=20)
    assert seconds == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("name", ["pcm", "pcm16", "pcm24"])
def test_legacy_format_names_do_not_change_the_rates(name):
    @virtual_time
    async def talk():
        names = {"input_audio_format": name, "output_audio_format": name}
        async with QwenSimulator() as sim, open_session(sim, **names) as client:
            await client.update(turn_detection=QUICK)
            await client.send_turn()
            await client.until("response.done")
            audio = "".join(event["delta"] for event in client.events_of("response.audio.delta"))
            return len(audio) * 3 // 4 / 2 / 24000

    assert talk() == pytest.approx(0.7, abs=0.02)


@virtual_time
async def test_audio_may_be_a_wav_file():
    audio = np.concatenate((tone(0.5, 24000), silence(0.5, 24000)))
    file = BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 24000, 0, "NONE", ""))
        writer.writeframes(audio.tobytes())
    formats = {"input": {"format": {"type": "wav", "sample_rate": 24000}}}
    async with make_simulator() as sim, open_session(sim, audio=formats) as client:
        await client.update(turn_detection=QUICK)
        data = np.frombuffer(file.getvalue(), np.uint8)
        await client.append(data, 5000)
        stopped = await client.until("input_audio_buffer.speech_stopped")
        assert stopped["audio_end_ms"] == 700
        await client.until("response.done")
        # The resampling filter holds back 4 ms.
        assert sim.sessions[0].audio_in_samples == pytest.approx(RATE, abs=64)


@virtual_time
async def test_invalid_audio_is_refused():
    async with make_simulator() as sim, open_session(sim) as client:
        for audio in ("not base64!", encode(np.zeros(3, np.uint8))):
            error = await client.error("input_audio_buffer.append", audio=audio)
            assert (error["code"], error["param"]) == ("invalid_value", "audio")


@virtual_time
async def test_loopback_sends_audio_back_at_once():
    async with QwenSimulator("loopback") as sim, open_session(sim) as client:
        await client.append(tone(1.0))
        await client.receive_for()
        audio = "".join(event["delta"] for event in client.events_of("response.audio.delta"))
        assert len(audio) * 3 // 4 / 2 / 24000 == pytest.approx(1.0, abs=0.01)
        assert sim.sessions[0].audio_in_samples == RATE
