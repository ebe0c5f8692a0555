"""What reaches stderr by itself, and what the log says at each level."""

import asyncio
import logging
import subprocess
import sys

import pytest

from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, join_agent

PROGRAM = """
import asyncio

import numpy as np

from duologue import Agent, AudioFrame, Conversation, Processor
from duologue.events import AgentTurnStartedEvent
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual


class Edge:
    output_rate, quality, lead_ms, latency_ms = 24000, "estimated", 0, 0.0

    async def run(self, person, ready):
        ready()
        while True:
            await asyncio.sleep(0.02)
            person.push_audio(AudioFrame(np.zeros(320, np.int16), 16000))

    def play(self, frame): ...

    def clear(self): ...


class Odd(Processor):
    def audio(self, frame):
        raise ValueError("in the processor")


class Store:
    def load(self):
        return ()

    def put(self, item):
        raise OSError("in the store")

    remove = put


async def main():
    model = ScriptedRealtime([Reply("", tools=[ToolUse("broken")]), "It is broken."])
    agent = Agent(
        edge=Edge(), llm=model, processors=[Odd()], conversation=Conversation(Store())
    )

    @agent.tool
    def broken() -> None:
        raise KeyError("in the tool")

    @agent.events.subscribe
    def plain(event: AgentTurnStartedEvent) -> None:
        raise LookupError("in the plain handler")

    @agent.events.subscribe
    async def coroutine(event: AgentTurnStartedEvent) -> None:
        raise LookupError("in the async handler")

    async with agent.join():
        await agent.simple_response("Is it broken?")


run_virtual(main())
"""


def test_a_failure_in_user_code_reaches_stderr_once_with_its_traceback():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    for place in ("processor", "store", "tool", "plain handler", "async handler"):
        (line,) = [
            line
            for line in done.stderr.splitlines()
            if line.startswith(("ValueError", "OSError", "KeyError", "LookupError"))
            and f"in the {place}" in line
        ]
        assert "Error: " in line
    assert done.stderr.count("Traceback") == 5
    assert done.stdout == ""


@virtual_time
async def test_the_log_has_states_and_kinds_of_messages_and_no_text(caplog):
    caplog.set_level(logging.DEBUG, "duologue")
    model = ScriptedRealtime(
        [Reply("A secret answer.", tools=[ToolUse("look", {"at": "secret arguments"})]), "Secret."],
        transcripts=["a secret question"],
        reconnect=ReconnectPolicy(),
    )

    def add(agent):
        @agent.tool
        async def look(at: str) -> str:
            return "a secret result"

    phone = FakeEdge()
    async with join_agent(model, phone, prepare=add, instructions="Secret instructions.") as agent:
        await phone.speak(1.0)
        await phone.be_silent(5.0)
        agent.llm.roll_over()
        await phone.be_silent(3.0)
    messages = [
        record.getMessage() for record in caplog.records if record.name.startswith("duologue")
    ]
    infos = [record for record in caplog.records if record.levelno == logging.INFO]
    assert any(f"session {model.session_id} began: scripted script" in line for line in messages)
    assert any("reconnects (attempt 0): asked to" in line for line in messages)
    assert any("continues after" in line for line in messages)
    assert any(f"session {model.session_id} ended: closed" in line for line in messages)
    assert len(infos) == 4
    assert any("connections: from live to rolling over" in line for line in messages)
    assert any("sends SendToolResult" in line for line in messages)
    assert any("receives UserTranscript" in line for line in messages)
    assert not any("ReplyAudio" in line or "SendAudio" in line for line in messages)
    assert not any("secret" in line.lower() for line in messages)


@pytest.mark.parametrize(
    ("option", "level", "others"), [("-v", "INFO", "WARNING"), ("-vv", "DEBUG", "INFO")]
)
def test_the_command_line_shows_the_log(option, level, others):
    code = (
        "import logging, sys; from duologue.cli import main; "
        f"sys.argv = ['duologue', {option!r}, 'models', 'list']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "for name in ('duologue', 'aioice.ice', 'httpx'):\n"
        "    print(logging.getLevelName(logging.getLogger(name).getEffectiveLevel()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-3:] == [level, others, others]


async def test_nothing_is_written_when_nothing_fails(capfd):
    async with join_agent(ScriptedRealtime(["Yes."])) as agent:
        await agent.simple_response("Hello?")
        await asyncio.sleep(0)
    assert capfd.readouterr() == ("", "")
