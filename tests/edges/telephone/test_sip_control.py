"""What either side does to a call over SIP: hold, transfer, vanish, and the end of a server."""

import asyncio
import gc
import time
from types import SimpleNamespace

import numpy as np
import pytest

from duologue.edges import telephone
from duologue.events import AgentTurnEndedEvent, DigitEvent, UserTurnStartedEvent
from duologue.testing import Reply
from sip_desk import TONE, serving, until
from sip_peer import SipPeer

pytest.importorskip("baresip", reason="the extra sip is not installed")

from duologue.edges.telephone._baresip import _begin_leg


def loud_ms(call):
    """Milliseconds of sound that the other side has heard."""
    frames = np.abs(call.heard[: len(call.heard) // 160 * 160].astype(int)).reshape(-1, 160)
    return 20 * int((frames.max(axis=1) > 500).sum())


async def test_no_word_is_lost_when_the_other_side_holds_the_call():
    async def conduct(agent):
        await agent.say("One two three four five six.")
        await agent.edge.hang_up()

    async with serving(conduct=conduct) as desk, SipPeer() as peer:
        call = await peer.call(desk.address)
        await until(lambda: loud_ms(call) > 200)
        edge = desk.edges[0]
        assert await call.hold() == 200
        await until(lambda: edge.on_hold)
        held_at = loud_ms(call)
        await asyncio.sleep(0.3)
        assert loud_ms(call) <= held_at + 40
        assert await call.resume() == 200
        async with asyncio.timeout(10):
            await call.ended.wait()
        spoken = sum(event.interrupted is False for event in desk.of(AgentTurnEndedEvent))
        assert spoken == 1
        said_ms = 1000 * edge._output.given / 8000
        assert said_ms - 20 <= loud_ms(call) <= said_ms + 60
        assert edge.counters["stream_restarts"] >= 1


async def test_the_agent_holds_and_resumes_a_call_and_presses_keys():
    async with serving([Reply("Good morning.")]) as desk, SipPeer() as peer:
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        edge = desk.edges[0]
        await edge.hold()
        assert await call.invited.get() in ("sendonly", "inactive")
        assert edge.on_hold
        await edge.resume()
        while await call.invited.get() != "sendrecv":
            pass
        await edge.send_digits("1w#")
        await until(lambda: call.digits == "1#")
        call.say(TONE)
        await until(lambda: desk.of(UserTurnStartedEvent))
        await call.press("5")
        await until(lambda: desk.of(DigitEvent))


async def test_a_transfer_ends_the_call_when_it_has_worked():
    async with serving() as desk, SipPeer() as peer:
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        transfer = asyncio.create_task(desk.edges[0].transfer("+15559990000"))
        assert await call.referred.get() == "sip:+15559990000@127.0.0.1"
        await call.notify(200)
        await transfer
        await until(lambda: desk.sip.counters["calls"] == 0)


async def test_a_transfer_that_fails_leaves_the_call():
    async with serving([Reply("Still here.")]) as desk, SipPeer() as peer:
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        transfer = asyncio.create_task(desk.edges[0].transfer("sip:sales@127.0.0.1:9"))
        await call.referred.get()
        await call.notify(486)
        with pytest.raises(telephone.TelephoneError, match="not transferred") as failed:
            await transfer
        assert failed.value.status == 486
        call.say(TONE)
        await until(lambda: desk.of(AgentTurnEndedEvent), 10)


async def test_an_attended_transfer_connects_the_two():
    consulted = []

    async def consult(edge):
        consulted.append(edge.call)
        return True

    async with serving() as desk, SipPeer() as peer, SipPeer() as sales:
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        transfer = asyncio.create_task(desk.edges[0].attended_transfer(sales.address, consult))
        other = await sales.incoming.get()
        target = await call.referred.get()
        assert "Replaces=" in target
        assert other.id.partition("@")[0] in target
        await call.notify(200)
        assert await transfer is True
        assert consulted[0].called == sales.address
        await until(lambda: desk.sip.counters["calls"] == 0)


async def test_an_attended_transfer_that_is_refused_brings_the_caller_back():
    async def consult(edge):
        return False

    async with (
        serving([Reply("Still here.")]) as desk,
        SipPeer() as peer,
        SipPeer(answer=486) as busy,
        SipPeer() as sales,
    ):
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        edge = desk.edges[0]
        with pytest.raises(telephone.TelephoneError) as refused:
            await edge.attended_transfer(busy.address)
        assert refused.value.status == 486
        assert not edge.on_hold
        assert await edge.attended_transfer(sales.address, consult) is False
        other = await sales.incoming.get()
        async with asyncio.timeout(5):
            await other.ended.wait()
        assert not edge.on_hold
        call.say(TONE)
        await until(lambda: desk.of(AgentTurnEndedEvent), 10)


async def test_a_transfer_that_the_other_side_asks_for_is_refused():
    async with serving() as desk, SipPeer() as peer, SipPeer() as premium:
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        assert await call.refer(premium.address) == 202
        while "603" not in (report := await call.notified.get()):
            assert "200" not in report
        assert desk.edges[0].counters["refused_transfers"] == 1
        assert premium.incoming.empty()
        assert desk.sip.counters["calls"] == 1


async def test_a_transfer_that_the_program_allows_is_followed():
    def follow(call, target):
        return target == sales.address

    async with (
        SipPeer() as sales,
        serving([Reply("Good morning.")], follow_transfer=follow) as desk,
        SipPeer() as peer,
    ):
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        assert await call.refer(sales.address) == 202
        other = await sales.incoming.get()
        async with asyncio.timeout(5):
            await call.ended.wait()
        other.say(TONE)
        await until(lambda: loud_ms(other) > 100, 10)
        assert len(desk.agents) == 1
        assert desk.sip.counters["calls"] == 1


async def test_a_second_address_is_not_called_in_place_of_the_one_that_was_allowed():
    asked = []

    def follow(call, target):
        asked.append(target)
        return target == sales.address

    async with (
        SipPeer() as sales,
        SipPeer() as premium,
        serving([Reply("Good morning.")], follow_transfer=follow) as desk,
        SipPeer() as peer,
    ):
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        for target in (sales.address, premium.address):
            call.cseq += 1
            call._send("REFER", call.cseq, headers=[f"Refer-To: <{target}>"])
        time.sleep(0.1)  # so that the loop gets both at once
        await until(lambda: asked)
        await asyncio.sleep(0.3)
        assert premium.incoming.empty()
        assert desk.sip.counters["calls"] == 1


async def test_a_call_that_is_given_up_while_it_rings_leaves_no_error():
    unhandled = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: unhandled.append(found))
    async with serving() as desk, SipPeer(answer=180) as peer:
        dialling = asyncio.create_task(desk.sip.dial(peer.address))
        await peer.incoming.get()
        dialling.cancel()
        await asyncio.wait({dialling})
        await until(lambda: not desk.sip._service._running)
        del dialling
        gc.collect()
    assert unhandled == []


async def test_a_call_that_is_given_up_while_it_begins_is_ended():
    begun = asyncio.Event()

    class Call:
        ended = False

        async def hangup(self):
            self.ended = True

    async def begin():
        await begun.wait()
        return call

    call = Call()
    runtime = SimpleNamespace(subscribe=lambda _: None, unsubscribe=lambda _: None)
    beginning = asyncio.create_task(_begin_leg(runtime, begin))
    await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.sleep(0)
    begun.set()
    await asyncio.wait({beginning})
    assert beginning.cancelled()
    assert call.ended


async def test_a_side_that_vanishes_ends_the_call():
    async with serving(vanished_s=1) as desk, SipPeer() as peer:
        call = await peer.call(desk.address)
        await until(lambda: desk.edges and desk.edges[0]._audio_runs.is_set())
        call.vanish()
        await until(lambda: desk.sip.counters["calls"] == 0, 5)
        assert desk.edges[0].caller_left


async def test_a_server_that_ends_hangs_up_and_refuses():
    async with SipPeer() as peer:
        async with serving() as desk:
            call = await peer.call(desk.address)
            desk.sip._service._limiter.draining = True
            assert (await peer.call(desk.address)).status == 486
            assert not call.ended.is_set()
        async with asyncio.timeout(2):
            await call.ended.wait()
