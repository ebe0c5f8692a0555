"""A wrong key is reported before a person joins, and a right one costs the session nothing."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest

from duologue.agent.agent import Agent
from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.realtime.codec import SessionSetup
from duologue.realtime.outputs import ProviderError, SessionStarted
from duologue.realtime.realtime import Realtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import SCRIPTED_CAPABILITIES, ScriptedRealtime, run_virtual


class Model(Realtime):
    """Connections that follow a script, one after another."""

    def __init__(self, *acts) -> None:
        super().__init__(
            replace(SCRIPTED_CAPABILITIES, provider="p", model="m", user_transcripts="final"),
            reconnect=ReconnectPolicy(),
        )
        self.acts = list(acts)
        self.opened = self.open_now = 0

    def open(self, setup):
        self.opened += 1
        act = self.acts.pop(0)
        model = self

        class Connection:
            async def run(self, receive) -> None:
                model.open_now += 1
                try:
                    if isinstance(act, Exception):
                        raise act
                    for output in act:
                        receive(output)
                    await asyncio.sleep(3600)
                finally:
                    model.open_now -= 1

            def transmit(self, command) -> None: ...

        return Connection()


STARTED = SessionStarted({})
WRONG = SessionError("the key was not accepted", code="401", kind=ErrorKind.FATAL)


def test_a_check_connects_once_and_disconnects():
    async def main():
        model = Model([STARTED])
        await model.check(SessionSetup(""))
        assert (model.opened, model.open_now) == (1, 0)

    run_virtual(main())


@pytest.mark.parametrize(
    "act", [WRONG, [ProviderError(ErrorKind.FATAL, "401", "the key was not accepted")]]
)
def test_a_check_raises_errors_that_no_connection_can_cure(act):
    async def main():
        model = Model(act)
        with pytest.raises(SessionError, match="the key was not accepted"):
            await model.check(SessionSetup(""))
        assert model.open_now == 0

    run_virtual(main())


@pytest.mark.parametrize(
    "act",
    [SessionError("no network", kind=ErrorKind.RECYCLE), []],
)
def test_a_check_raises_no_transient_errors(act):
    async def main():
        model = Model(act)
        await model.check(SessionSetup(""))
        assert model.open_now == 0

    run_virtual(main())


def test_an_engine_in_this_process_is_not_checked():
    async def main():
        model = ScriptedRealtime()
        await model.check(SessionSetup(""))
        assert not model.connected

    run_virtual(main())


class Page:
    """An edge that nobody joins for an hour."""

    waits_for_person = True
    output_rate = 24000
    quality = "estimated"
    lead_ms = 0
    latency_ms = 0.0

    def __init__(self, after: float = 3600.0) -> None:
        self.after = after

    async def run(self, person, ready) -> None:
        await asyncio.sleep(self.after)
        ready()
        await asyncio.sleep(1)

    def play(self, frame: AudioFrame | None) -> None: ...

    def clear(self) -> None: ...


def test_a_wrong_key_is_reported_at_once_if_the_person_may_come_later():
    async def main():
        loop = asyncio.get_running_loop()
        agent = Agent(edge=Page(), llm=Model(WRONG))
        with pytest.raises(SessionError, match="the key was not accepted") as caught:
            await agent.join().__aenter__()
        assert loop.time() < 1
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    run_virtual(main())


def test_a_person_who_comes_during_the_check_does_not_wait_for_it():
    async def main():
        model = Model([], [STARTED])
        async with Agent(edge=Page(after=2.0), llm=model).join() as agent:
            assert asyncio.get_running_loop().time() < 3
            assert (model.opened, model.open_now) == (2, 1)
            await agent.finish()

    run_virtual(main())


def test_a_right_key_leaves_the_session_unchanged():
    async def main():
        model = Model([STARTED], [STARTED])
        async with Agent(edge=Page(after=60.0), llm=model).join() as agent:
            assert (model.opened, model.open_now) == (2, 1)
            await agent.finish()

    run_virtual(main())


PROGRAM = """
import asyncio
from duologue import Agent
from duologue.edges import browser
from duologue.providers import {provider}
from duologue.simulators.{provider}.server import {simulator}

async def main():
    async with {simulator}(key="right") as server:
        model = {provider}.Realtime(api_key="wrong", base_url=server.url)
        agent = Agent(edge=browser.Edge(port=0), llm=model)
        async with agent.join():
            await agent.finish()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("provider", "simulator"),
    [("openai", "OpenAISimulator"), ("gemini", "GeminiSimulator"), ("qwen", "QwenSimulator")],
)
def test_a_script_with_a_wrong_key_ends_at_once_and_says_so_in_its_last_line(provider, simulator):
    pytest.importorskip("aiohttp", reason="needs duologue[simulate]")
    pytest.importorskip("uvicorn", reason="needs duologue[server]")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(provider=provider, simulator=simulator)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("duologue.errors.SessionError: ")
    assert "key" in lines[-1].lower()
    assert sum("Traceback" in line for line in lines) == 1
    assert "group" not in done.stderr
    # The program's own line, and nothing of ours but the way into join().
    assert sum('File "' in line and "duologue" in line for line in lines) <= 2
