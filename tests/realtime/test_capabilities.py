"""What a model does not claim is refused, and by default it claims nothing."""

import asyncio
from dataclasses import fields, replace

import pytest
from fake_connection import FakeModel, FakeObserver, audio_frame, live_session, wait_reconnected

from duologue.errors import ConfigError, UnsupportedError
from duologue.items import UserItem
from duologue.realtime import (
    AddItem,
    Capabilities,
    ClearInput,
    ReconnectPolicy,
    SessionSetup,
    ToolSpec,
    Truncate,
)
from duologue.testing import SCRIPTED_CAPABILITIES, ScriptedRealtime, virtual_time

MODES = {"tool_reply", "turn_reply"}
"""Fields that say how, not whether."""


def test_nothing_is_claimed_by_default():
    nothing = Capabilities("p", "m")
    claims = {field.name for field in fields(nothing)} - MODES
    claims -= {"provider", "model", "input_rate", "output_rate", "output"}
    assert {getattr(nothing, name) for name in claims} == {False, "none"}
    assert {getattr(nothing, name) for name in MODES} == {"requested"}


@virtual_time
async def test_tools_are_refused_before_the_session_begins():
    model = FakeModel(tools="none")
    setup = SessionSetup("", (ToolSpec("look", "Look.", {"type": "object"}),))
    with pytest.raises(UnsupportedError, match="m can't call tools"):
        await model.run(setup, FakeObserver())
    assert not model.opened


@virtual_time
async def test_a_history_that_can_not_be_truncated_is_left_alone():
    item = UserItem("u", "hello")
    model = FakeModel([{}, {"starts_after": 1.0}], truncation="none")
    async with live_session(model, (item,)) as observer:
        with pytest.raises(UnsupportedError, match="can't change its history"):
            model.edit(Truncate("a", 10, "x"))
        observer.items = (item,)
        model.latest.lose()
        await asyncio.sleep(0.5)
        observer.items = (UserItem("v", "bye"),)
        await wait_reconnected(model)
        assert model.latest.commands == [AddItem(observer.items[0])]


@virtual_time
async def test_clearing_the_input_needs_manual_turns_and_is_sent_again_in_its_place():
    async with live_session(model := FakeModel()):
        with pytest.raises(UnsupportedError, match="detects the end of a turn by itself"):
            model.clear_input()
    model = FakeModel(manual_turns=True)
    async with live_session(model):
        model.send_audio(audio_frame([1000] * 100))
        model.clear_input()
        assert isinstance(model.latest.commands[-1], ClearInput)
        model.latest.lose()
        await wait_reconnected(model)
        kinds = [type(command).__name__ for command in model.latest.commands]
        assert kinds == ["SendAudio", "ClearInput"]


@virtual_time
async def test_what_a_provider_may_know_of_its_session():
    model = FakeModel(policy=ReconnectPolicy(keep_s=7.0))
    assert (model.connection, model.input_backlog_s) == (None, 12.0)
    item = UserItem("u", "hello")
    async with live_session(model, (item,)) as observer:
        assert model.connection is model.latest
        assert model.history() == (item,)
        model.roll_over(0.0, reason="as a test")
        await wait_reconnected(model)
        assert observer.reported[1].reason == "as a test"


def test_an_engine_in_this_process_takes_no_reconnect_policy():
    class Engine(ScriptedRealtime):
        def __init__(self):
            super(ScriptedRealtime, self).__init__(
                replace(SCRIPTED_CAPABILITIES), in_process=True, reconnect=ReconnectPolicy()
            )

    with pytest.raises(ConfigError, match="leave it out"):
        Engine()


def test_model_that_speaks_takes_no_voice():
    model = FakeModel(tools="none")
    with pytest.raises(UnsupportedError, match="speaks by itself: it needs no voice"):
        model.use_voice(object())
