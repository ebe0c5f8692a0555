"""The script language: replies follow the script, and its expectations are checked."""

from __future__ import annotations

import wave
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("yaml", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, open_session

from duologue.errors import ConfigError
from duologue.simulators.script import Script
from duologue.testing import OpenAISimulator, virtual_time

PARIS = """
- hear: what is the weather in Paris
- call: weather
  with: {city: Paris}
- expect: conversation.item.create
  where: {item: {type: function_call_output, output: "20"}}
- say: It is sunny in Paris.
  seconds: 0.4
- wait: 0.5
- hear: yes
- calls: [{log: {level: 1}}, {end: {}}]
- fail: {message: overloaded}
"""


@virtual_time
async def test_simulator_follows_a_script():
    whisper = {"model": "whisper-1"}
    async with (
        OpenAISimulator(Script.parse(PARIS)) as sim,
        open_session(sim, turn_detection=QUICK, transcription=whisper) as client,
    ):
        await client.send_turn()
        call = (await client.until("response.done")).response.output[0]
        assert (call.name, call.arguments) == ("weather", '{"city": "Paris"}')
        item = {"type": "function_call_output", "call_id": call.call_id, "output": "20"}
        await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        done = await client.until("response.done")
        assert done.response.output[0].content[0].transcript == "It is sunny in Paris."
        await client.send_turn()
        began = sim._clock.now()
        done = await client.until("response.done")
        assert sim._clock.now() - began == pytest.approx(0.6, abs=0.05)
        assert [call.name for call in done.response.output] == ["log", "end"]
        await client.send("response.create")
        done = await client.until("response.done")
        assert done.response.status_details.error.message == "overloaded"
        heard = client.events_of("conversation.item.input_audio_transcription.completed")
        assert [event.transcript for event in heard] == ["what is the weather in Paris", "yes"]
    assert sim.failures == []


@pytest.mark.parametrize(
    ("does", "failure"),
    [
        ("nothing", "script, line 4 (step 3): response.cancel did not come in 2 s"),
        ("leaves", "script, line 4 (step 3): response.cancel had not come when the session ended"),
        ("another", "script, line 4 (step 3): response.cancel did not come in 2 s"),
        ("it", None),
        ("it too early", "script, line 4 (step 3): response.cancel did not come in 2 s"),
    ],
)
def test_missed_expectation_is_a_failure(does, failure):
    script = Script.parse(
        "\n- hear: x\n- say: Yes.\n- expect: response.cancel\n  within: 2\n  where: {event_id: a}\n"
    )

    @virtual_time
    async def talk():
        async with OpenAISimulator(script) as sim:
            async with open_session(sim, turn_detection=QUICK) as client:
                if does == "it too early":
                    await client.send("response.cancel", event_id="a")
                await client.send_turn()
                await client.until("response.done")
                if does in ("another", "it"):
                    name = "a" if does == "it" else "b"
                    await client.send("response.cancel", event_id=name)
                if does != "leaves":
                    await client.receive_for(3.0)
            return sim.failures

    assert talk() == ([failure] if failure else [])


@virtual_time
async def test_every_session_starts_the_script_from_its_beginning():
    async with OpenAISimulator(replies=["One.", "Two."]) as sim:
        for _ in range(2):
            async with open_session(sim) as client:
                await client.send("response.create")
                done = await client.until("response.done")
                assert done.response.output[0].content[0].transcript == "One."


def test_script_has_options_and_audio_files(tmp_path):
    pytest.importorskip("soundfile", reason="the wav extra is not installed")
    with wave.open(str(tmp_path / "a.wav"), "wb") as wav_file:
        wav_file.setparams((1, 2, 16000, 0, "NONE", ""))
        wav_file.writeframes(np.full(8000, 1000, np.int16).tobytes())
    file = tmp_path / "script.yaml"
    file.write_text(
        "paraphrase: true\ntranscription_delay: 2\nsteps:\n- say: A sound.\n  wav: a.wav\n"
    )

    @virtual_time
    async def talk():
        async with OpenAISimulator(str(file)) as sim, open_session(sim) as client:
            await client.send("response.create")
            await client.until("response.done")
            deltas = client.events_of("response.output_audio.delta")
            return sum(len(event.delta) * 3 // 4 for event in deltas)

    script = Script.load(file)
    assert script.paraphrase
    assert script.transcription_delay == 2.0
    assert talk() == pytest.approx(2 * 12000, abs=4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("say: x", r"a script must be a list of steps"),
        ("- say: x\n- [", r"script, line \d+: "),
        ("- say: x\n\n- shout: y", r"script, line 3 \(step 2\): a step must have one of hear, say"),
        ("- hear: x\n  pace: 2", r"line 1 \(step 1\): pace is not known here; known are hear"),
        ("- say: x\n  seconds: long", r"seconds must be a number from 0 to 3600, not 'long'"),
        ("- say: x\n  wav: no.wav", r"there is no file no.wav"),
        ("- say: x\n  voice: hal", r"voice must be tone or local"),
        ("- calls: [{a: {}, b: {}}]", r"calls must be objects such as"),
        ("- 7", r"a step must be an object"),
        ("parafrase: true\nsteps: []", r"parafrase: True is not known"),
    ],
)
def test_wrong_scripts_are_reported_in_one_line(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        Script.parse(text)
    assert "\n" not in str(error.value)


def test_missing_script_is_reported_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        OpenAISimulator(str(tmp_path / "none.yaml"))


BOMB = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    + [
        f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]"
        for below, name in pairwise("abcdefghi")
    ]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 500 + "]" * 500, "levels deep"),
        ("[" * 5000 + "]" * 5000, "levels deep"),
        ("- " * 3000 + "x", "levels deep"),
        ("{a: " * 70 + "x" + "}" * 70, "levels deep"),
        ("&a [*a]", "levels deep"),
        (f"steps: []\n{BOMB}", "more than 100000 values"),
        ("- say: x\n  seconds: .inf", "inf is not a finite number"),
        ("- say: x\n  seconds: .nan", "nan is not a finite number"),
        ("- say: x\n  seconds: " + "9" * 5000, "exceeds the limit"),
        ("- say: x\n  seconds: " + "9" * 400, "seconds must be a number from 0 to 3600"),
        ("- wait: 1000000", "wait must be a number from 0 to 86400, not 1000000"),
        ("- say: x\n  pace: -1", "pace must be a number from 0 to 1000, not -1"),
        ("- call: x\n  with: {1: 2}", "key 1 must be text"),
        ("- call: x\n  with: {a: !!binary aGk=}", "of a type that JSON does not have"),
        ("- say: !!set {a, b}", "of a type that JSON does not have"),
        ("- say: !!timestamp 2026-99-99", "month must be in 1..12"),
        ("- say: !!python/object:os.system x", "could not determine a constructor"),
        (f"- say: {['x' * 9000] * 90}", r"say must be a text, not \['x+\.\.\.x+"),
        ("- say: x\n  voice: " + "y" * 9000, "voice must be tone or local, not 'yyy"),
    ],
)
def test_too_deep_or_too_large_text_is_reported_in_one_line(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        Script.parse(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_anchor_may_stand_for_a_repeated_value():
    script = Script.parse("- call: x\n  with: &a {city: Paris}\n- call: y\n  with: *a\n")
    assert [reply.reply.tools[0].arguments for reply in script.replies] == [{"city": "Paris"}] * 2


def test_unreadable_script_is_reported_in_one_line(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name, words in (("bytes.yaml", "it is no text"), ("none.yaml", "No such file")):
        with pytest.raises(ConfigError, match=words):
            Script.load(tmp_path / name)
