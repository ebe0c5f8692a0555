"""Calls over SIP on loopback: `sip_peer` is the other side, the agent follows a script."""

import asyncio
import time

import numpy as np
import pytest

from duologue.edges import telephone
from duologue.errors import ConfigError
from duologue.events import AgentTurnEndedEvent, DigitEvent, UserTranscriptEvent
from duologue.testing import Reply
from sip_desk import TONE, serving, until
from sip_peer import SipPeer, free_port

pytest.importorskip("baresip", reason="the extra sip is not installed")


async def test_a_whole_call():
    typed = []

    async def conduct(agent):
        typed.append(await agent.digits(max=4, end="#", within=30))
        await agent.say("Goodbye.")
        await agent.edge.hang_up()

    async with serving([Reply("Good morning.")], conduct) as desk, SipPeer() as peer:
        call = await peer.call(desk.address)
        assert call.status == 200
        call.say(TONE)
        await until(lambda: desk.of(AgentTurnEndedEvent))
        await call.press("12#")
        async with asyncio.timeout(5):
            await call.ended.wait()
        edge = desk.edges[0]
        assert edge.call.called == "+15550001111"
        assert edge.call.caller == peer.address
        assert edge.call.direction == "inbound"
        assert desk.of(UserTranscriptEvent)
        assert [event.digit for event in desk.of(DigitEvent)] == list("12#")
        assert typed == ["12"]
        assert np.abs(call.heard).max() > 1000
        await until(lambda: "over" in repr(edge))


async def test_a_call_over_the_limit_is_busy_at_once():
    async with serving(max_calls=1) as desk, SipPeer() as peer:
        first = await peer.call(desk.address)
        began = time.monotonic()
        second = await peer.call(desk.address)
        assert (first.status, second.status) == (200, 486)
        assert time.monotonic() - began < 0.2
        assert len(desk.agents) == 1
        assert desk.sip.counters["refused_full"] == 1
        await first.hang_up()
        await until(lambda: desk.sip.counters["calls"] == 0)
        third = await peer.call(desk.address)
        assert third.status == 200


async def test_an_unknown_source_is_refused_before_an_agent_is_made(caplog):
    async with serving() as desk, SipPeer("127.0.0.9") as stranger:
        desk.sip._service._sources = desk.sip._service._sources.__class__(["127.0.0.1"])
        forged = [f"Via: SIP/2.0/UDP 127.0.0.1:{desk.sip._listen_port};branch=z9hG4bKforged"]
        call = await stranger.call(desk.address, forged)
        assert call.status == 486
        assert desk.agents == []
        assert desk.sip.counters["refused_sources"] == 1
        assert "refused a call from 127.0.0.9" in caplog.text
        async with SipPeer() as known:
            assert (await known.call(desk.address)).status == 200


async def test_a_call_of_ours_is_answered_busy_or_ignored():
    async with (
        serving([Reply("Good morning.")], None) as desk,
        SipPeer() as peer,
        SipPeer(answer=486) as busy,
        SipPeer(answer=100) as silent,
    ):
        call_id = await desk.sip.dial(peer.address, parameters={"order": "7"})
        call = await peer.incoming.get()
        assert call.id == call_id
        await until(lambda: desk.edges)
        assert desk.edges[0].call.direction == "outbound"
        assert desk.edges[0].call.parameters == {"order": "7"}
        with pytest.raises(telephone.TelephoneError, match="refused") as refused:
            await desk.sip.dial(busy.address)
        assert refused.value.status == 486
        with pytest.raises(telephone.TelephoneError, match="nobody answered"):
            await desk.sip.dial(silent.address, ring_s=0.3)
        assert len(desk.agents) == 1


async def test_a_taken_port_and_a_second_stack_are_reported():
    async with serving() as desk:
        with pytest.raises(ConfigError, match="can't listen"):
            async with serving(listen=desk.sip.listening):
                pass
        with pytest.raises(telephone.TelephoneError, match="only one"):
            async with serving(listen=f"127.0.0.1:{free_port()}"):
                pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "bot@127.0.0.1"}, "address must be an address"),
        ({"listen": "here"}, "listen must be"),
        ({"codecs": ["mp3"]}, "codecs must be"),
        ({"allow": ["my trunk"]}, "allow must have"),
        ({"jitter_ms": (200, 40)}, "jitter_ms must be"),
        ({"password": 'open "sesame"'}, "account of SIP can't work: password contains '\"'"),
        ({"auth_user": "bot;x=1"}, "account of SIP can't work: auth_user contains ';'"),
        ({"proxy": "sbc example.org"}, "account of SIP can't work: registrar contains ' '"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        telephone.SIP(**{"address": "sip:bot@127.0.0.1"} | options)


def test_the_password_is_never_shown(monkeypatch):
    monkeypatch.setenv("DUOLOGUE_SIP_PASSWORD", "open sesame")
    sip = telephone.SIP("sip:bot@127.0.0.1", account_parameters=["stunpass=sesame"])
    assert "sesame" not in repr(sip) + repr(sip._options)
