"""Calls that are recorded with their wire, and run again without the provider."""

import asyncio
import base64
import json
from collections import deque
from contextlib import asynccontextmanager
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner
from conformance_targets import Backend

from duologue import ConfigError, ReconnectPolicy
from duologue.audio import AudioFrame
from duologue.cli import main
from duologue.observe import Recorder
from duologue.observe.wire_journal import read_wire
from duologue.observe.wire_json import (
    Secrets,
    audio_from_json,
    audio_to_json,
    object_from_json,
    options_to_json,
    received_from_json,
    received_to_json,
    sent_to_json,
    value_from_json,
    value_to_json,
)
from duologue.providers import openai, qwen
from duologue.realtime import BinaryMessage, ToolCall, Truncate
from duologue.realtime._session import resume
from duologue.realtime._session.reply_scheduler import Effects, ReplyScheduler
from duologue.testing import OpenAISimulator, Reply, replay, run_virtual
from duologue.testing._wire_comparison import Channel, Names, Replay
from duologue.testing._wire_script import Record
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, join_agent

KEY = "sk-test-0123456789abcdefghij"


@asynccontextmanager
async def call(recorder, replies=("It is four.",), **options):
    """Hold a call with a simulated OpenAI; yield (agent, edge, server)."""
    replies = [Reply(r) if isinstance(r, str) else r for r in replies]
    async with OpenAISimulator(
        lambda: Backend(deque(replies), ["how late is it"] * 9), key=KEY
    ) as server:
        model = openai.Realtime(
            base_url=server.url,
            api_key=KEY,
            transport="websocket",
            vad=EnergyVAD(),
            reconnect=ReconnectPolicy(base_s=0.1),
            **options,
        )
        edge = FakeEdge()
        async with join_agent(model, edge, recorder=recorder) as agent:
            yield agent, edge, server


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Return the folder of a call with a turn, an interruption and a lost connection."""
    recorder = Recorder(tmp_path_factory.mktemp("calls"), name="call", wire=True)

    async def talk():
        long = Reply("Once upon a time there was a king who had three sons.", seconds=6, pace=1.0)
        async with call(recorder, [long, long]) as (agent, edge, server):
            await edge.speak(0.8)
            await edge.be_silent(2.5)
            agent.interrupt()
            await edge.be_silent(0.5)
            waiting = asyncio.ensure_future(agent.simple_response("Tell me more."))
            await edge.be_silent(1.5)
            await server.kill()
            await edge.be_silent(2.0)
            waiting.cancel()

    run_virtual(talk(), grace=0.0)
    return recorder.path


def test_replay_of_the_same_program_finds_nothing(recording):
    found = replay(recording)
    assert found.differences == []
    types = {sent.message.get("type") for sent in found.sent}
    assert {"session.update", "input_audio_buffer.append", "response.cancel"} <= types
    assert {sent.where for sent in found.sent} == {
        "session, connection 1",
        "session, connection 2",
    }


def test_change_of_a_text_in_the_core_is_named_to_the_message(recording):
    # What the model is told that has to go on after a lost connection.
    with patch.object(resume, "CONTINUE_PROMPT", "Go on."):
        found = replay(recording)
    (difference,) = found.differences
    assert difference.where == "session, connection 2"
    assert difference.path == "$.response.instructions"
    assert difference.expected["response"]["instructions"] == resume.CONTINUE_PROMPT
    assert difference.got["response"]["instructions"] == "Go on."
    assert difference.expected["type"] == "response.create"
    assert 5 < difference.at < 7
    assert "$.response.instructions was 'The connection broke" in str(difference)


def test_change_of_a_rule_in_the_core_is_found(recording):
    with patch.object(ReplyScheduler, "interrupt", lambda self, epoch, now: Effects()):
        found = replay(recording)
    first = next(one for one in found.differences if one.where == "session, connection 1")
    assert first.expected["type"] == "response.cancel"
    assert first.got is None
    assert 3.2 < first.at < 3.5
    assert "missing" in str(first)


def test_new_message_is_found(recording):
    def cancel_twice(self, epoch, now):
        effects = original(self, epoch, now)
        effects.commands.extend(effects.commands[:])
        return effects

    original = ReplyScheduler.interrupt
    with patch.object(ReplyScheduler, "interrupt", cancel_twice):
        found = replay(recording)
    assert found.differences
    assert found.differences[0].expected is None
    assert found.differences[0].got["type"] == "response.cancel"


def test_journal_has_neither_keys_nor_the_persons_audio(recording):
    text = (recording / "wire.jsonl").read_text()
    assert KEY not in text
    kinds = {(record.get("k"), record.get("n")) for record in read_wire(recording)}
    assert {("tell", "send_audio"), ("tell", "interrupt"), ("ask", "output")} <= kinds
    for record in read_wire(recording):
        if record["k"] == "out" and record["m"].get("type") == "input_audio_buffer.append":
            assert set(record["m"]["audio"]) <= {"$", "n", "h"}
        if record["k"] == "tell" and record["n"] == "send_audio":
            assert set(record["a"][0]) <= {"$", "rate", "n", "p", "h"}


def test_journal_that_was_cut_short_is_replayed_up_to_there(recording, tmp_path):
    whole = (recording / "wire.jsonl").read_text()
    (tmp_path / "wire.jsonl").write_text(whole[: len(whole) // 2])
    found = replay(tmp_path)
    assert found.differences == []
    assert found.compared > 50


def test_command_line_names_differences_and_fails_then(recording):
    same = CliRunner().invoke(main, ["replay", str(recording)])
    assert same.exit_code == 0, same.output
    assert same.output.startswith("call: 0 differences in ")
    with patch.object(resume, "CONTINUE_PROMPT", "Go on."):
        other = CliRunner().invoke(main, ["replay", str(recording.parent)])
    assert other.exit_code == 1
    assert "connection 2, message" in other.output
    assert "$.response.instructions" in other.output


def test_command_line_says_that_there_is_no_journal(tmp_path):
    result = CliRunner().invoke(main, ["replay", str(tmp_path)])
    assert result.exit_code == 2
    assert "record with Recorder(..., wire=True)" in result.output


def test_audio_is_kept_on_request(tmp_path):
    recorder = Recorder(tmp_path, name="call", wire=True, wire_audio=True)

    async def talk():
        async with call(recorder) as (_agent, edge, _server):
            await edge.speak(0.5)
            await edge.be_silent(1.5)

    run_virtual(talk(), grace=0.0)
    assert replay(recorder.path).differences == []
    told = [r for r in read_wire(recorder.path) if r.get("n") == "send_audio"]
    loudest = max(
        int(np.abs(audio_from_json(record["a"][0]).samples.astype(int)).max()) for record in told
    )
    assert loudest > 5000


def test_call_in_real_time_is_replayed_in_virtual_time(tmp_path):
    # Timers are late there, and time passes while anything is computed.
    recorder = Recorder(tmp_path, name="call", wire=True)

    async def talk():
        async with call(recorder, [Reply("It is four.", seconds=2, pace=1.0)]) as (agent, edge, _):
            await edge.speak(0.5)
            await edge.be_silent(1.0)
            agent.interrupt()
            await edge.be_silent(0.2)

    asyncio.run(talk())
    found = replay(recorder.path)
    assert not found.differences, str(found)
    assert any(sent.message.get("type") == "response.cancel" for sent in found.sent)


def test_pause_ends_the_journal(tmp_path):
    recorder = Recorder(tmp_path, name="call", wire=True)

    async def talk():
        async with call(recorder) as (agent, edge, _server):
            await edge.be_silent(1.0)
            recorder.pause()
            await edge.be_silent(0.5)
            recorder.resume()
            await agent.simple_response("My number is 4711.")

    run_virtual(talk(), grace=0.0)
    assert "4711" not in (recorder.path / "wire.jsonl").read_text()
    found = replay(recorder.path)
    assert found.differences == []
    assert found.skipped == ["the journal ends at 1.0 s: the recording was paused"]


def test_redaction_and_wire_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="leave out one of the two"):
        Recorder(tmp_path, wire=True, redact=lambda value: value)


class OwnRealtime(openai.Realtime):
    """A model of a program's own."""


def test_model_of_your_own_is_made_by_a_function(tmp_path):
    recorder = Recorder(tmp_path, name="call", wire=True)

    async def talk():
        with patch(f"{__name__}.openai.Realtime", OwnRealtime):
            async with call(recorder) as (_agent, edge, _server):
                await edge.speak(0.5)
                await edge.be_silent(1.5)

    run_virtual(talk(), grace=0.0)
    with pytest.raises(ConfigError, match="realtime="):
        replay(recorder.path)

    def make():
        return OwnRealtime(
            api_key="any",
            transport="websocket",
            vad=EnergyVAD(),
            reconnect=ReconnectPolicy(base_s=0.1),
        )

    assert replay(recorder.path, realtime=make).differences == []


def test_options_that_are_none_or_objects_are_kept():
    model = openai.Realtime(
        api_key=KEY, turn_detection=openai.SemanticVAD(eagerness="low"), max_output_tokens=None
    )
    made = options_to_json(model)["options"]
    assert made["turn_detection"]["eagerness"] == "low"
    assert object_from_json(made["turn_detection"]) == openai.SemanticVAD(eagerness="low")
    assert "api_key" not in made
    assert options_to_json(qwen.Realtime(api_key=KEY, transcription=None))["options"] == {
        "transcription": None
    }


# Parts of it


def test_secrets_are_replaced_by_the_same_pseudonym_everywhere():
    secrets = Secrets(["my own secret"])
    cleaned = secrets.clean(
        {
            "tools": [{"headers": {"X-Any": "in a header"}, "authorization": "Bearer abcdefgh"}],
            "text": "say my own secret, and in a header",
            "usage": {"total_tokens": 12, "input_token_details": {"cached": 1}},
            "max_output_tokens": "inf",
        }
    )
    text = json.dumps(cleaned)
    assert "my own" not in text
    assert "in a header" not in text
    assert "abcdefgh" not in text
    assert cleaned["usage"] == {"total_tokens": 12, "input_token_details": {"cached": 1}}
    assert cleaned["max_output_tokens"] == "inf"
    pseudonym = cleaned["tools"][0]["headers"]["X-Any"]
    assert cleaned["text"].endswith(pseudonym)
    assert secrets.clean(cleaned) == cleaned


@pytest.mark.parametrize("make", [bytes, BinaryMessage])
def test_received_message_comes_back_without_its_secret(make):
    message = make(b'{"newHandle": "abc-def-123", "other": [1, 2.50]}')
    secrets = Secrets()
    again = received_from_json(received_to_json(message, secrets))
    assert type(again) is make
    assert again == message.replace(b"abc-def-123", secrets.pseudonym("abc-def-123").encode())


def test_media_in_sent_messages_are_hashed():
    pcm = np.arange(480, dtype=np.int16).tobytes()
    jpeg = base64.b64encode(b"\xff\xd8" + bytes(200)).decode()
    message = {"audio": base64.b64encode(pcm).decode(), "image": jpeg, "text": "word " * 40}
    made = sent_to_json(json.dumps(message).encode())
    assert set(made["audio"]) == {"$", "n", "h"}
    assert made["audio"]["n"] == 960
    assert made["image"] == {"$": "image"}
    assert made["text"] == message["text"]
    assert sent_to_json(BinaryMessage(pcm))["n"] == 960


def test_audio_without_its_samples_keeps_length_height_and_identity():
    def again(samples):
        return audio_from_json(audio_to_json(AudioFrame(samples, 16000), keep=False)).samples

    one = np.array([5, -3, 900, -2000] * 80, np.int16)
    assert len(again(one)) == 320
    assert again(one).max() == 900
    assert (again(one) == again(one)).all()
    assert (again(one) != again(one[::-1].copy())).any()
    assert not again(np.zeros(320, np.int16)).any()


def test_values_come_back():
    for value in (Truncate("item", 120, "so far"), ToolCall("r", "c", "name", "{}")):
        assert value_from_json(value_to_json(value)) == value


def channel(*messages):
    found = Replay("call")
    records = [Record({"m": message}, "out", float(at), at) for at, message in enumerate(messages)]
    return Channel("here", records, Names(), found), found


def test_random_ids_may_differ_if_they_do_so_everywhere():
    one, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
    compared, found = channel(
        {"type": "a", "id": one}, {"type": "b", "id": other}, {"type": "c", "ids": [one, other]}
    )
    new = "aaaaaaaaaaaaaaaa1111111111111111"
    compared.push({"type": "a", "id": new}, 0.0)
    compared.push({"type": "b", "id": one}, 1.0)
    compared.push({"type": "c", "ids": [new, new]}, 2.0)
    (difference,) = found.differences
    assert difference.path == "$.ids[1]"


def test_missing_message_does_not_shift_those_that_follow():
    compared, found = channel({"type": "a"}, {"type": "b", "n": 1}, {"type": "c"}, {"type": "d"})
    for message in ({"type": "a"}, {"type": "c"}, {"type": "x"}, {"type": "d"}):
        compared.push(message, 0.0)
    compared.finish()
    assert [(d.expected, d.got) for d in found.differences] == [
        ({"type": "b", "n": 1}, None),
        (None, {"type": "x"}),
    ]


def test_changed_field_is_named_by_its_path():
    compared, found = channel({"type": "a", "x": {"y": [1, {"z": "old"}]}, "w": True})
    compared.push({"type": "a", "x": {"y": [1, {"z": "new"}]}, "w": True}, 0.5)
    assert found.differences[0].path == "$.x.y[1].z"
    assert str(found.differences[0]).endswith("(a): $.x.y[1].z was 'old', is 'new'")


# Damage, and errors of the journal itself


@pytest.mark.parametrize("broken", ["value_to_json", "options_to_json"])
def test_error_in_the_journal_ends_neither_recording_nor_call(tmp_path, broken):
    recorder = Recorder(tmp_path, name="call", wire=True)

    def fail(*_args, **_options):
        raise ValueError("can't be written")

    async def talk():
        async with call(recorder) as (agent, edge, _server):
            await edge.speak(0.5)
            await edge.be_silent(2.0)
            assert [item.text for item in agent.conversation.items][-1] == "It is four."

    with patch(f"duologue.observe.wire_journal.{broken}", fail):
        run_virtual(talk(), grace=0.0)
    facts = json.loads((recorder.path / "call.json").read_text())
    assert facts["failure"] is None
    assert facts["seconds"] == pytest.approx(2.5, abs=0.3)
    (line,) = read_wire(recorder.path)
    assert line["k"] == "stop"
    assert line["reason"].endswith("can't be written: ValueError")


def test_slow_disk_is_the_reason_why_the_journal_ends(tmp_path):
    with patch("duologue.observe.recorder._MAX_WAITING_RECORDS", 1):
        recorder = Recorder(tmp_path, name="call", wire=True)

        async def talk():
            async with call(recorder) as (_agent, edge, _server):
                await edge.be_silent(0.5)

        run_virtual(talk(), grace=0.0)
    assert read_wire(recorder.path)[-1]["reason"] == "the disk is too slow"


def test_secret_that_is_written_with_escapes_is_replaced():
    secrets = Secrets()
    made = received_to_json(rb'{"newHandle": "abc-def-123\u003d\u003d"}', secrets)
    assert json.loads(made) == {"newHandle": secrets.pseudonym("abc-def-123==")}


def test_secret_within_another_one_leaves_nothing_of_it():
    secrets = Secrets(["0123456789", "before 0123456789 behind"])
    assert secrets.clean_text("before 0123456789 behind") == secrets.pseudonym(
        "before 0123456789 behind"
    )


def damaged(recording, folder, change):
    lines = (recording / "wire.jsonl").read_text().splitlines()
    (folder / "wire.jsonl").write_text("\n".join(change(lines)))
    return CliRunner().invoke(main, ["replay", str(folder)])


def without(lines, kind, field):
    index = next(i for i, line in enumerate(lines) if json.loads(line)["k"] == kind)
    record = json.loads(lines[index])
    del record[field]
    return [*lines[:index], json.dumps(record), *lines[index + 1 :]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [], "nothing to replay"),
        (lambda lines: ["\x00", "[1]", "{}"], "nothing to replay"),
        (lambda lines: lines[1:], "its beginning is missing"),
        (lambda lines: without(lines, "begin", "setup"), "no setup"),
        (lambda lines: without(lines, "begin", "subject"), "its beginning is missing"),
        (lambda lines: without(lines, "in", "m"), "a record in has no valid m"),
        (lambda lines: without(lines, "fire", "i"), "a record fire has no valid i"),
        (lambda lines: [li for li in lines if '"k":"ask"' not in li], "is damaged"),
        (lambda lines: [lines[0].replace(":Realtime", ":No"), *lines[1:]], "this version"),
        (lambda lines: [lines[0].replace("providers.openai", "no"), *lines[1:]], "this version"),
    ],
)
def test_damaged_journal_is_one_line(recording, tmp_path, change, said):
    result = damaged(recording, tmp_path, change)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert said in result.output
    assert result.output.count("\n") == 1


def test_record_without_its_turn_does_not_stop_the_replay(recording, tmp_path):
    result = damaged(recording, tmp_path, lambda lines: without(lines, "tell", "b"))
    assert isinstance(result.exception, SystemExit | None)


def test_replay_that_fails_is_one_line(recording, tmp_path):
    def broken(lines):
        index = next(i for i, line in enumerate(lines) if '"n":"interrupt"' in line)
        record = json.loads(lines[index]) | {"a": []}
        return [*lines[:index], json.dumps(record), *lines[index + 1 :]]

    result = damaged(recording, tmp_path, broken)
    assert result.exit_code == 2
    assert "can't be replayed" in result.output
