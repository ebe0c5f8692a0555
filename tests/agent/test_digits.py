"""Keys of a telephone, as a program asks for them."""

import asyncio

import pytest

from duologue.agent._digits import MAX_WAITING, DigitBuffer
from duologue.clock import LoopClock
from duologue.errors import ConfigError, SessionClosedError
from duologue.events import DigitEvent
from duologue.testing import ScriptedRealtime, virtual_time
from fake_edge import FakeEdge, events_of, join_agent


def pressed(digits, every=0.5):
    buffer = DigitBuffer(LoopClock())

    async def press():
        for digit in digits:
            await asyncio.sleep(every)
            buffer.push(digit)

    return buffer, asyncio.ensure_future(press())


@virtual_time
async def test_keys_up_to_the_last_one():
    buffer, work = pressed("1234#")
    assert await buffer.collect(10, "#", 2) == "1234"
    await work


@virtual_time
async def test_as_many_keys_as_were_wanted_and_the_rest_later():
    buffer, work = pressed("12345")
    assert await buffer.collect(4, "#", 2) == "1234"
    assert await buffer.collect(4, "#", 2) == "5"
    await work


@virtual_time
async def test_no_key_in_time():
    buffer = DigitBuffer(LoopClock())
    began = asyncio.get_running_loop().time()
    assert await buffer.collect(4, "#", 3) == ""
    assert asyncio.get_running_loop().time() - began == pytest.approx(3)


@virtual_time
async def test_each_key_has_its_own_time():
    buffer, work = pressed("123", every=2)
    assert await buffer.collect(10, "", 2.5) == "123"
    await work


@virtual_time
async def test_keys_pressed_before_count_for_ten_seconds():
    buffer, work = pressed("12")
    await work
    await asyncio.sleep(9)
    assert await buffer.collect(2, "#", 1) == "12"
    buffer.push("3")
    await asyncio.sleep(11)
    assert await buffer.collect(2, "#", 1) == ""


@virtual_time
async def test_the_keys_that_wait_are_bounded():
    buffer, work = pressed("12" * MAX_WAITING, every=0.01)
    await work
    assert len(await buffer.collect(MAX_WAITING, "", 1)) == MAX_WAITING
    assert await buffer.collect(1, "", 1) == ""


@virtual_time
async def test_only_one_may_wait():
    buffer = DigitBuffer(LoopClock())
    waiting = asyncio.ensure_future(buffer.collect(1, "", 5))
    await asyncio.sleep(1)
    with pytest.raises(ConfigError, match="waiting already"):
        await buffer.collect(1, "", 5)
    buffer.push("7")
    assert await waiting == "7"


@pytest.mark.parametrize(
    ("most", "end", "within", "words"),
    [(0, "#", 5, "max"), (65, "#", 5, "max"), (1, "x", 5, "end"), (1, "#", 0, "within")],
)
@virtual_time
async def test_what_can_not_work_is_refused(most, end, within, words):
    with pytest.raises(ConfigError, match=words):
        await DigitBuffer(LoopClock()).collect(most, end, within)


@virtual_time
async def test_an_agent_gets_keys_as_events_and_by_asking():
    edge = FakeEdge()
    async with join_agent(ScriptedRealtime(), edge) as agent:
        asyncio.get_running_loop().call_later(1, edge.person.push_digit, "4")
        assert await agent.digits(max=1, within=3) == "4"
    assert [event.digit for event in events_of(agent, DigitEvent)] == ["4"]
    with pytest.raises(SessionClosedError):
        await agent.digits()
