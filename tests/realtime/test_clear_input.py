"""`Realtime.clear_input`: the program takes back audio of a turn that it has not ended."""

import asyncio

import pytest
from fake_connection import FakeModel, audio_frame, live_session, wait_reconnected

from duologue.errors import SessionClosedError, UnsupportedError
from duologue.realtime.commands import ClearInput, EndTurn
from duologue.testing import virtual_time


@virtual_time
async def test_model_is_told_to_drop_the_audio_of_the_open_turn():
    model = FakeModel(manual_turns=True)
    async with live_session(model):
        model.send_audio(audio_frame(range(100)))
        model.clear_input()
        assert isinstance(model.latest.commands[-1], ClearInput)


@virtual_time
async def test_cleared_audio_is_not_in_a_turn_of_the_next_connection():
    model = FakeModel(manual_turns=True)
    async with live_session(model):
        model.send_audio(audio_frame(range(100)))
        model.clear_input()
        model.send_audio(audio_frame(range(200, 300)))
        model.end_turn()
        model.latest.lose()
        await wait_reconnected(model)
        await asyncio.sleep(0.1)
        commands = model.latest.commands
        cleared = [i for i, command in enumerate(commands) if isinstance(command, ClearInput)]
        ended = [i for i, command in enumerate(commands) if isinstance(command, EndTurn)]
        assert len(ended) == 1
        turn = commands[(cleared[-1] + 1 if cleared else 0) : ended[0]]
        samples = [n for command in turn for n in command.frame.samples]
        assert [n for n in samples if n] == list(range(200, 300))


@virtual_time
async def test_model_that_ends_turns_by_itself_refuses():
    model = FakeModel()
    async with live_session(model):
        with pytest.raises(UnsupportedError, match="detects the end of a turn by itself"):
            model.clear_input()


@virtual_time
async def test_without_a_session_there_is_nothing_to_clear():
    with pytest.raises(SessionClosedError):
        FakeModel(manual_turns=True).clear_input()
