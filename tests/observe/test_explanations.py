"""Things that go wrong in calls, each explained from its recording alone."""

import asyncio

import pytest
from fake_components import LLM, STT, TTS, Turn
from starlette.applications import Starlette

from duologue import Agent, Endpointing, ReconnectPolicy
from duologue.edges import websocket
from duologue.errors import ErrorKind, ReplyRefusedError, SessionError
from duologue.observe import Recorder, explain, read_call
from duologue.pipeline.pipeline import Pipeline
from duologue.simulators.telephone._transport import AppTransport
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, join_agent

SUBPROTOCOL = {"sec-websocket-protocol": "duologue.v1"}


async def record(tmp_path, model, talk, prepare=None):
    """Record one conversation; return what is explained of it, by kind."""
    recorder = Recorder(tmp_path, name="call")
    edge = FakeEdge()
    async with join_agent(model, edge, prepare, recorder=recorder) as agent:
        await edge.be_silent(0.3)
        await talk(agent, edge)
    found = {}
    for line in explain(read_call(recorder.path)):
        found.setdefault(line.kind, []).append(line.text)
    return found


async def ask(agent, edge):
    await edge.speak(1.0)
    await edge.be_silent(4.0)


@virtual_time
async def test_a_call_in_which_all_went_well_has_nothing_to_explain(tmp_path):
    model = ScriptedRealtime([Reply("Hello.")], transcripts=["hi there"])
    assert await record(tmp_path, model, ask) == {}


@virtual_time
async def test_a_slow_model_is_named(tmp_path):
    model = ScriptedRealtime([Reply("Hello.", after_s=2.5)], transcripts=["hi there"])
    (text,) = (await record(tmp_path, model, ask))["late"]
    assert "the model took 2.5 s to its first word" in text


@virtual_time
async def test_a_slow_tool_is_named(tmp_path):
    def prepare(agent):
        @agent.tool
        async def look_up() -> str:
            """Look it up."""
            await asyncio.sleep(2.0)
            return "4"

    model = ScriptedRealtime(
        [Reply(tools=[ToolUse("look_up")]), Reply("Four.")], transcripts=["how much"]
    )
    (text,) = (await record(tmp_path, model, ask, prepare))["late"]
    assert "it waited 2.0 s for the tool look_up" in text


@virtual_time
async def test_the_words_that_cut_the_agent_are_quoted(tmp_path):
    model = ScriptedRealtime(
        [Reply("a long answer that goes on and on", seconds=8.0), Reply("Sorry.")],
        transcripts=["stop that now"],
    )

    async def talk(agent, edge):
        agent.simple_response("talk")
        await asyncio.sleep(2.0)
        await edge.speak(1.5)
        await edge.be_silent(3.0)

    (text,) = (await record(tmp_path, model, talk))["cut"]
    assert 'the person said "stop that now"' in text


@virtual_time
async def test_an_echo_is_told_from_a_person(tmp_path):
    model = ScriptedRealtime(
        [Reply("the train leaves at nine from platform four", seconds=8.0), Reply("Sorry.")],
        transcripts=["the train leaves at nine"],
    )

    async def talk(agent, edge):
        agent.simple_response("talk")
        await asyncio.sleep(2.0)
        await edge.speak(1.5)
        await edge.be_silent(3.0)

    found = await record(tmp_path, model, talk)
    assert "by its own voice" in found["echo"][0]
    assert "cut" not in found


@virtual_time
async def test_the_program_that_cut_the_agent_is_named(tmp_path):
    async def talk(agent, edge):
        agent.simple_response("talk")
        await asyncio.sleep(2.0)
        agent.interrupt()
        await asyncio.sleep(1.0)

    model = ScriptedRealtime([Reply("a long answer", seconds=8.0)])
    (text,) = (await record(tmp_path, model, talk))["cut"]
    assert "by the program" in text


@virtual_time
async def test_a_call_that_ends_while_the_agent_speaks_was_not_interrupted(tmp_path):
    async def talk(agent, edge):
        agent.simple_response("talk")
        await asyncio.sleep(2.0)

    model = ScriptedRealtime([Reply("a long answer", seconds=8.0)])
    found = await record(tmp_path, model, talk)
    assert found == {"end": ["The agent was still speaking when the call ended."]}


@virtual_time
async def test_a_failed_reply_is_told(tmp_path):
    model = ScriptedRealtime([Reply("Hello.", fails="the quota is used up")], transcripts=["hi"])
    (text,) = (await record(tmp_path, model, ask))["error"]
    assert "the quota is used up" in text


@virtual_time
async def test_a_lost_connection_is_told_with_what_the_model_still_knows(tmp_path):
    lost = SessionError("the line is gone", kind=ErrorKind.RETRY)
    model = ScriptedRealtime(at=[At(1.0, lost)], reconnect=ReconnectPolicy(base_s=0.3))

    async def talk(agent, edge):
        await asyncio.sleep(1.5)

    (text,) = (await record(tmp_path, model, talk))["reconnect"]
    assert "the line is gone" in text
    assert "told the history again" in text


@virtual_time
async def test_a_session_that_ended_by_an_error_is_told(tmp_path):
    dead = SessionError("wrong key", kind=ErrorKind.FATAL)
    model = ScriptedRealtime(at=[At(1.0, dead)], reconnect=ReconnectPolicy())
    recorder = Recorder(tmp_path, name="call")
    with pytest.raises(SessionError):
        async with join_agent(model, recorder=recorder) as agent:
            await agent.finish()
    (line,) = explain(read_call(recorder.path))
    assert line.kind == "end"
    assert "wrong key" in line.text


@virtual_time
async def test_a_turn_without_a_reply_of_the_model_is_told(tmp_path):
    model = ScriptedRealtime([Reply("Hello.", after_s=30.0)], transcripts=["is anyone there"])
    found = await record(tmp_path, model, ask)
    (text,) = found["no-reply"]
    assert '"is anyone there" got no reply: the model sent none in 3' in text


@virtual_time
async def test_a_killed_program_is_told(tmp_path):
    recorder = Recorder(tmp_path, name="call")
    async with join_agent(ScriptedRealtime([Reply("Hi.")]), recorder=recorder) as agent:
        await agent.simple_response("hi")
    call_file = recorder.path / "call.json"
    call_file.write_text('{"version": 1}')  # as it is before the end
    lines = (recorder.path / "events.jsonl").read_text().splitlines(keepends=True)
    half = "".join(lines[:-1]) + lines[-1][:20]
    (recorder.path / "events.jsonl").write_text(half)
    call = read_call(recorder.path)
    assert len(call.events) == len(lines) - 1
    assert "was killed" in explain(call)[-1].text


def pipeline(*votes, **endpointing):
    """Return a model of parts whose turn detector gives these votes."""
    return Pipeline(
        stt=STT(),
        llm=LLM("Yes, of course."),
        tts=TTS(),
        vad=EnergyVAD(),
        turn=Turn(*votes),
        endpointing=Endpointing(**endpointing),
    )


@virtual_time
async def test_a_turn_detector_that_did_not_believe_in_the_end_is_named_with_its_votes(tmp_path):
    model = pipeline(*[0.1] * 50, timeout_s=1.0, max_pause_s=2.5)
    (text,) = (await record(tmp_path, model, ask))["late"]
    assert "deciding that the person had finished took 2." in text
    assert "silence, because the turn detector voted ..., 0.10, 0.10, 0.10, 0.10, ended" in text


@virtual_time
async def test_a_vote_that_ended_the_turn_too_early_is_named(tmp_path):
    async def talk(agent, edge):
        await edge.speak(1.0)
        await edge.be_silent(0.3)
        await edge.speak(1.0)
        await edge.be_silent(4.0)

    found = await record(tmp_path, pipeline(0.93), talk)
    (text,) = found["cut"]
    assert "as if they had not finished; the turn detector's vote of 0.93 had ended" in text


@virtual_time
async def test_a_cough_that_held_the_agent_is_told_with_why_it_held_and_why_it_went_on(tmp_path):
    model = ScriptedRealtime([Reply("a long answer", seconds=4.0)], transcripts=[""])

    async def talk(agent, edge):
        agent.simple_response("talk")
        await asyncio.sleep(1.0)
        await edge.speak(0.06)
        await edge.be_silent(5.0)

    (text,) = (await record(tmp_path, model, talk))["held"]
    assert "because the model said that the person speaks" in text
    assert "and went on: " in text


@virtual_time
async def test_a_refused_request_is_told_with_what_the_service_said(tmp_path):
    async def talk(agent, edge):
        with pytest.raises(ReplyRefusedError):
            await agent.simple_response("go")

    found = await record(tmp_path, ScriptedRealtime([Reply("", refused="quota")]), talk)
    assert found == {
        "refused": ["The model refused a request for a reply (quota): the script refuses."]
    }


@virtual_time
async def test_a_client_that_breaks_the_protocol_is_why_the_call_ended(tmp_path):
    calls = []

    def make_agent(edge):
        recorder = Recorder(tmp_path, name="call")
        calls.append(recorder.path)
        return Agent(edge=edge, llm=ScriptedRealtime(["Hi."]), recorder=recorder)

    app = Starlette()
    websocket.mount(app, make_agent)
    transport = AppTransport(app, "http://localhost")
    client = await transport.connect("ws://localhost/socket", SUBPROTOCOL)
    await client.send('{"type": "hello"}')
    await asyncio.sleep(1.0)
    await client.send('{"type": "sing"}')
    while await client.receive() is not None:
        pass
    await asyncio.sleep(2.0)
    (line,) = explain(read_call(calls[0]))
    assert line.kind == "end"
    assert "The connection to the person failed, which ended the call" in line.text
    assert "unknown type of message" in line.text
