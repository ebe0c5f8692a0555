import asyncio
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

import duologue
from duologue import ConfigError, MissingExtraError, SessionError
from event_loops import EVENT_LOOPS


async def answer():
    await asyncio.sleep(0)
    return 42


def test_run_returns_the_result():
    assert duologue.run(answer()) == 42


async def running_loop():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.parametrize("loop", EVENT_LOOPS)
def test_the_event_loop_can_be_chosen_and_is_logged(caplog, loop):
    caplog.set_level(logging.INFO, logger="duologue")
    assert duologue.run(running_loop(), loop=loop) == loop
    assert [message.partition(" ")[0] for message in caplog.messages] == ["event"]
    assert caplog.messages[0].startswith(f"event loop: {loop}")


def test_the_event_loop_is_uvloop_where_it_is_installed():
    pytest.importorskip("uvloop", reason="needs duologue[server]")
    assert duologue.run(running_loop()) == "uvloop"


def test_the_event_loop_is_asyncio_where_uvloop_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert duologue.run(running_loop()) == "asyncio"
    with pytest.raises(SystemExit) as caught:
        duologue.run(running_loop(), loop="uvloop")
    assert isinstance(caught.value.__context__, MissingExtraError)


def test_an_event_loop_that_does_not_exist_is_reported(capsys):
    with pytest.raises(SystemExit):
        duologue.run(running_loop(), loop="fast")
    assert capsys.readouterr().err == (
        "duologue: loop must be auto, asyncio or uvloop, not 'fast'\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SessionError("the key is not valid"), 1, "duologue: the key is not valid"),
        (ConfigError("no key:\nset KEY"), 2, "duologue: no key: set KEY"),
        (ExceptionGroup("g", [SessionError("lost")]), 1, "duologue: lost"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_ours_is_one_line(capsys, error, code, line):
    async def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        duologue.run(main())
    assert caught.value.code == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("error", [ValueError("mine"), ExceptionGroup("g", [KeyError("mine")])])
def test_other_errors_are_raised(error):
    async def main():
        raise error

    with pytest.raises(type(error), match=r"mine|g"):
        duologue.run(main())


def test_an_argument_that_is_no_coroutine_is_reported():
    with pytest.raises(ConfigError, match=r"write duologue\.run\(answer\(\)\)"):
        duologue.run(answer)


async def test_the_error_in_a_notebook_says_what_to_write():
    with pytest.raises(ConfigError, match="write 'await main"):
        duologue.run(answer())


def test_a_cancellation_by_the_program_is_no_signal():
    async def main():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        duologue.run(main())


SCRIPT = """
import asyncio
import sys
import duologue
from duologue.testing import ScriptedRealtime


class Edge:
    output_rate, quality, lead_ms, latency_ms = 24000, "estimated", 0, 0.0

    async def run(self, person, ready):
        ready()
        await asyncio.Event().wait()

    def play(self, frame): ...

    def clear(self): ...


async def main():
    agent = duologue.Agent(edge=Edge(), llm=ScriptedRealtime())
    try:
        async with agent.join():
            agent.say("Good morning. " * 20)
            print("joined", flush=True)
            await agent.finish()
    finally:
        print("left", flush=True)


duologue.run(main(), loop=sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("loop", EVENT_LOOPS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_conversation_without_a_traceback(number, code, loop):
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, loop],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "joined\n"
    time.sleep(0.1)
    program.send_signal(number)
    out, err = program.communicate(timeout=20)
    assert (program.returncode, out, err) == (code, "left\n", "")
