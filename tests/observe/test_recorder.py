"""Recordings of whole conversations, read back from the disk."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import soundfile

from duologue import BargeInPolicy, ConfigError
from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeConnectedEvent,
    TurnMetricsEvent,
)
from duologue.observe import Recorder, explain, read_call
from duologue.observe.recorder import RATE, read_events
from duologue.observe.wire_journal import read_wire
from duologue.testing import Reply, ScriptedRealtime, virtual_time
from fake_edge import FakeEdge, agent_items, events_of, join_agent


def loud(track, threshold=1500):
    """Return where a track is loud, as (begin, end) in seconds, joined over 60 ms."""
    frames = np.abs(track[: len(track) // 240 * 240].astype(int)).reshape(-1, 240).max(axis=1)
    spans = []
    for index in np.flatnonzero(frames > threshold):
        begin, end = index / 100, (index + 1) / 100
        if spans and begin - spans[-1][1] <= 0.06:
            spans[-1][1] = end
        else:
            spans.append([begin, end])
    return spans


def tracks(recorder):
    audio, rate = soundfile.read(recorder.path / "audio.ogg", dtype="int16")
    assert rate == RATE
    return audio[:, 0], audio[:, 1]


def call(recorder):
    return json.loads((recorder.path / "call.json").read_text())


@virtual_time
async def test_both_voices_the_events_and_the_history_are_on_one_clock(tmp_path):
    recorder = Recorder(tmp_path)
    edge = FakeEdge()
    model = ScriptedRealtime([Reply("It is four.", seconds=1.5)], transcripts=["how much is it"])
    async with join_agent(model, edge, recorder=recorder) as agent:
        await edge.be_silent(1.0)
        await edge.speak(1.2)
        await edge.be_silent(4.0)
        (metrics,) = events_of(agent, TurnMetricsEvent)
    person, voice = tracks(recorder)
    ((said_at, said_until),) = loud(person)
    ((replied_at, replied_until),) = loud(voice)
    assert said_at == pytest.approx(1.0, abs=0.03)
    assert said_until - said_at == pytest.approx(1.2, abs=0.03)
    assert replied_until - replied_at == pytest.approx(1.5, abs=0.03)
    assert replied_at - said_until == pytest.approx(metrics.first_played_ms / 1000, abs=0.02)
    events = read_events(recorder.path)
    started = next(e for e in events if e["type"] == "AgentTurnStartedEvent")
    assert started["t"] == pytest.approx(replied_at, abs=0.02)
    facts = call(recorder)
    assert [item["text"] for item in facts["history"]] == ["how much is it", "It is four."]
    assert facts["stats"]["connections"] == 1
    assert facts["seconds"] == pytest.approx(len(person) / RATE, abs=0.03)
    assert facts["failure"] is None


@virtual_time
async def test_what_an_interruption_cut_is_not_in_the_audio(tmp_path):
    for lead_ms in (0, 20):
        recorder = Recorder(tmp_path, name=f"lead-{lead_ms}")
        edge = FakeEdge()
        edge.lead_ms = lead_ms
        model = ScriptedRealtime([Reply("a long answer", seconds=10.0), Reply("Sorry.")])
        async with join_agent(model, edge, recorder=recorder) as agent:
            agent.simple_response("talk")
            await asyncio.sleep(2.0)
            agent.interrupt()
            await asyncio.sleep(2.0)
            (cut,) = events_of(agent, InterruptionEvent)
        _, voice = tracks(recorder)
        ((began, ended),) = loud(voice)
        assert ended - began == pytest.approx(cut.played_ms / 1000, abs=0.03)


@virtual_time
async def test_a_pause_records_silence_and_no_words(tmp_path):
    recorder = Recorder(tmp_path)
    edge = FakeEdge()
    model = ScriptedRealtime(
        [Reply("Yes?"), Reply("Thank you."), Reply("Bye.")],
        transcripts=["hello there", "four two four two", "good bye"],
    )
    async with join_agent(model, edge, recorder=recorder) as agent:
        for turn in range(3):
            if turn == 1:
                recorder.pause()
                assert recorder.paused
            await edge.speak(1.0)
            await edge.be_silent(3.0)
            recorder.resume()
        assert len(agent_items(agent)) == 3
    text = (recorder.path / "events.jsonl").read_text() + (recorder.path / "call.json").read_text()
    assert "hello there" in text
    assert "good bye" in text
    assert "four two" not in text
    assert "Thank you" not in text
    person, voice = tracks(recorder)
    assert len(loud(person)) == len(loud(voice)) == 2


@virtual_time
async def test_the_setup_of_the_model_is_neither_sent_to_the_person_nor_recorded(tmp_path):
    class Page(FakeEdge):
        def send_event(self, event):
            shown.append(event)

    shown = []
    recorder = Recorder(tmp_path)
    event = RealtimeConnectedEvent("id", {"instructions": "Be secretive."}, {"output": "audio"})
    async with join_agent(ScriptedRealtime([]), Page(), recorder=recorder) as agent:
        agent.events.emit(event)
        await asyncio.sleep(1.0)
        assert event in events_of(agent, RealtimeConnectedEvent)
    for lines in (shown, read_events(recorder.path)):
        connected = [e for e in lines if e.get("session_id") == "id"]
        assert [e["capabilities"] for e in connected] == [{"output": "audio"}]
        assert "secretive" not in json.dumps(lines)


@virtual_time
async def test_redaction_changes_and_drops_and_its_errors_drop(tmp_path):
    def redact(entry):
        if entry.get("type") == "AgentHeardEvent":
            return None
        if entry.get("type") == "TurnMetricsEvent":
            raise ValueError("oh")
        return {**entry, "text": "***"} if entry.get("text") else entry

    recorder = Recorder(tmp_path, redact=redact)
    edge = FakeEdge()
    model = ScriptedRealtime([Reply("A secret.")], transcripts=["tell me"])
    async with join_agent(model, edge, recorder=recorder) as agent:
        await edge.speak(1.0)
        await edge.be_silent(3.0)
        assert [e.source for e in events_of(agent, ErrorEvent)] == ["redact"]
    kinds = {event["type"] for event in read_events(recorder.path)}
    assert "AgentTranscriptEvent" in kinds
    assert not kinds & {"AgentHeardEvent", "TurnMetricsEvent"}
    assert "secret" not in (recorder.path / "events.jsonl").read_text()
    assert {item["text"] for item in call(recorder)["history"]} == {"***"}


@virtual_time
async def test_the_announcement_comes_first_and_cannot_be_interrupted(tmp_path):
    edge = FakeEdge()
    recorder = Recorder(tmp_path, announcement="This call is recorded.")
    async with join_agent(ScriptedRealtime(), edge, recorder=recorder) as agent:
        await edge.be_silent(0.3)
        await edge.speak(1.0)
        await edge.be_silent(3.0)
        assert agent_items(agent)[0].text == "This call is recorded."


@virtual_time
async def test_a_full_disk_ends_the_recording_and_not_the_call(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    write = soundfile.SoundFile.write
    calls = []

    def full(self, data):
        calls.append(len(data))
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    edge = FakeEdge()
    async with join_agent(ScriptedRealtime([Reply("Hello.")]), edge, recorder=recorder) as agent:
        await edge.be_silent(3.0)
        for _ in range(100):
            await asyncio.sleep(0)
            time.sleep(0.005)  # the writer's thread works in real time
            if recorder.failure:
                break
        await edge.be_silent(0.1)
        speech = await agent.simple_response("hi")
        assert speech.state == "heard"
        (error,) = events_of(agent, ErrorEvent)
        assert error.source == "recorder"
        assert "no space left" in error.message
    assert recorder.failure == "no space left on device"


@virtual_time
async def test_a_lone_surrogate_does_not_end_the_recording(tmp_path):
    recorder = Recorder(tmp_path, wire=True)
    edge = FakeEdge()
    async with join_agent(ScriptedRealtime([]), edge, recorder=recorder) as agent:
        await edge.be_silent(0.5)
        agent.llm.borders.put({"k": "tell", "n": "update", "a": ["b\udcff"]}, None)
        await edge.be_silent(0.5)
    (told,) = [r for r in read_wire(recorder.path) if r.get("n") == "update"]
    assert told["a"] == ["b\udcff"]
    assert call(recorder)["failure"] is None
    assert call(recorder)["seconds"] == pytest.approx(1.0, abs=0.05)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't record into"):
        Recorder(tmp_path / "file")
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="already"):
        Recorder(tmp_path, name="a")


@virtual_time
async def test_an_upload_gets_whole_files_and_its_failure_keeps_them(tmp_path, caplog):
    copies = []

    def copy(path):
        copies.append({file.name: file.stat().st_size for file in path.iterdir()})
        raise OSError("the store is gone")

    recorder = Recorder(tmp_path / "calls", upload=copy)
    async with join_agent(ScriptedRealtime([Reply("Hi.")]), recorder=recorder) as agent:
        await agent.simple_response("hi")
    for _ in range(200):
        if "not uploaded" in caplog.text:
            break
        time.sleep(0.01)
    assert set(copies[0]) == {"audio.ogg", "call.json", "events.jsonl"}
    assert all(copies[0].values())
    assert "not uploaded" in caplog.text
    assert call(recorder)["history"]


@virtual_time
async def test_an_address_of_an_object_store_gets_the_folder(tmp_path):
    store = pytest.importorskip("fsspec").filesystem("memory")
    recorder = Recorder(tmp_path, name="one", upload="memory://bucket/calls")
    async with join_agent(ScriptedRealtime([Reply("Hi.")]), recorder=recorder) as agent:
        await agent.simple_response("hi")
    for _ in range(200):
        if recorder.uploaded.is_set():
            break
        await asyncio.sleep(0)
        time.sleep(0.01)  # the upload's thread works in real time
    copied = {name.rpartition("/")[2] for name in store.ls("/bucket/calls/one", detail=False)}
    assert copied == {"audio.ogg", "call.json", "events.jsonl"}
    assert store.cat("/bucket/calls/one/audio.ogg") == (recorder.path / "audio.ogg").read_bytes()


@virtual_time
async def test_a_minute_of_two_voices_takes_less_than_two_megabytes(tmp_path):
    recorder = Recorder(tmp_path)
    edge = FakeEdge()
    policy = BargeInPolicy(enabled=False)
    model = ScriptedRealtime([Reply("on and on", seconds=20.0)])
    async with join_agent(model, edge, recorder=recorder, barge_in=policy) as agent:
        agent.simple_response("talk")
        await edge.speak(20.0)
        await edge.be_silent(0.5)
    person, voice = tracks(recorder)
    assert min(np.abs(side).mean() for side in (person, voice)) > 1000
    size = sum(file.stat().st_size for file in recorder.path.iterdir())
    assert size * 60 / 20 < 2_000_000


@virtual_time
async def test_a_recorder_that_fails_does_not_end_the_call():
    class Broken:
        announcement = ""

        def begin(self, agent, clock, unix_time):
            pass

        def person_audio(self, frame, now):
            raise ValueError("broken")

        def agent_audio(self, frame, at):
            raise AssertionError("it is not called after its first error")

        def agent_cleared(self, now):
            pass

        async def end(self):
            raise AssertionError("it is not called after its first error")

    edge = FakeEdge()
    async with join_agent(ScriptedRealtime([Reply("Hi.")]), edge, recorder=Broken()) as agent:
        await edge.be_silent(0.1)
        assert (await agent.simple_response("hi")).state == "heard"
        assert [e.source for e in events_of(agent, ErrorEvent)] == ["recorder"]


def test_a_killed_process_leaves_files_that_play(tmp_path):
    program = """
        import asyncio
        from duologue import Agent, AudioFrame
        from duologue.observe import Recorder, explain, read_call
        from duologue.testing import Reply, ScriptedRealtime
        from fake_edge import FakeEdge

        async def main():
            edge = FakeEdge()
            model = ScriptedRealtime([Reply("on and on", seconds=30.0)])
            agent = Agent(edge=edge, llm=model, recorder=Recorder({folder!r}, name="call"))
            async with agent.join():
                agent.simple_response("talk")
                await edge.speak(30.0, level=0)

        asyncio.run(main())
    """
    code = textwrap.dedent(program).format(folder=str(tmp_path))
    path = os.pathsep.join(filter(None, ["tests", os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    audio = tmp_path / "call" / "audio.ogg"
    try:
        deadline = time.monotonic() + 30
        while not audio.exists() or audio.stat().st_size < 20_000:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    samples, rate = soundfile.read(audio)
    assert len(samples) / rate > 1.0
    assert np.abs(samples[:, 1]).max() > 0.1
    assert read_events(tmp_path / "call")[0]["type"] == "RealtimeConnectedEvent"
    assert json.loads((tmp_path / "call" / "call.json").read_text())["model"] == "script"


@virtual_time
async def test_a_recorder_may_be_set_until_the_agent_joins(tmp_path):
    recorder = Recorder(tmp_path)

    def prepare(agent):
        agent.recorder = recorder

    async with join_agent(ScriptedRealtime([Reply("Hi.")]), prepare=prepare) as agent:
        await agent.simple_response("hi")
        with pytest.raises(ConfigError, match="before join"):
            agent.recorder = None
    assert call(recorder)["history"]


@virtual_time
async def test_a_call_that_never_begins_leaves_no_folder_and_no_error(tmp_path):
    recorder = Recorder(tmp_path, name="call")
    edge = FakeEdge(never_ready=True, fails_at=0.1)
    with pytest.raises(OSError, match="the connection is broken"):
        async with join_agent(ScriptedRealtime(), edge, recorder=recorder):
            pass
    assert list(tmp_path.iterdir()) == []


@virtual_time
async def test_a_folder_that_was_taken_meanwhile_is_reported_and_the_call_goes_on(tmp_path):
    recorder = Recorder(tmp_path, name="call")
    (tmp_path / "call").mkdir()
    async with join_agent(ScriptedRealtime([Reply("Hi.")]), recorder=recorder) as agent:
        assert (await agent.simple_response("hi")).state == "heard"
        (error,) = events_of(agent, ErrorEvent)
    assert "already" in error.message
    assert list((tmp_path / "call").iterdir()) == []


@virtual_time
async def test_a_person_who_leaves_at_once_ends_the_call_without_an_error(tmp_path):
    class Fleeting(FakeEdge):
        async def run(self, person, ready):
            ready()
            await asyncio.sleep(0.1)

    class Slow(ScriptedRealtime):
        async def ready(self):
            await asyncio.sleep(0.5)
            await super().ready()

    recorder = Recorder(tmp_path, announcement="This call is recorded.")
    async with join_agent(Slow(), Fleeting(), recorder=recorder) as agent:
        await agent.finish()
    assert explain(read_call(recorder.path)) == []
