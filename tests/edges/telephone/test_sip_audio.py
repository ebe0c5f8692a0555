"""Audio over SIP: codecs, encryption, delay, loss and stalls."""

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from duologue import Agent, BargeInPolicy
from duologue.edges import telephone
from duologue.events import UserTurnStartedEvent
from duologue.testing import ScriptedRealtime
from sip_desk import serving, until
from sip_peer import SipPeer, free_port

pytest.importorskip("baresip", reason="the extra sip is not installed")

CLICK = np.tile(np.repeat([12000, -12000], 8), 20).astype(np.int16)
"""40 ms at 8 kHz."""


@asynccontextmanager
async def echoing(codec, *encryption):
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).parents[2] / "sip_echo.py", str(port), codec),
        *encryption,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            await process.stdout.readline()
        yield f"sip:echo@127.0.0.1:{port}"
    finally:
        process.stdin.close()
        async with asyncio.timeout(10):
            await process.wait()


@pytest.mark.parametrize(
    ("codec", "encryption", "options", "rate"),
    [
        ("opus/48000/2", [], {"codecs": ["opus", "pcmu"]}, 48000),
        ("pcmu", ["srtp-mand"], {"srtp": "required"}, 8000),
        ("pcmu", ["dtls_srtp"], {"srtp": "dtls"}, 8000),
    ],
)
async def test_codecs_and_encryption(codec, encryption, options, rate):
    async def conduct(agent):
        await asyncio.sleep(1 if options.get("srtp") == "dtls" else 0)
        await agent.say("Go.")

    async with echoing(codec, *encryption) as address, serving(conduct=conduct, **options) as desk:
        await desk.sip.dial(address)
        await until(lambda: desk.of(UserTurnStartedEvent), 10)
        assert desk.edges[0]._leg.rate == rate
        if options.get("srtp") != "dtls":  # The first report of RTCP comes five seconds later.
            await until(lambda: desk.edges[0].figures.buffer_ms > 0)
            assert desk.agents[0].stats().edge.jitter_ms < 100


async def test_a_side_without_encryption_is_refused_where_it_is_required():
    async with echoing("pcmu") as address, serving(srtp="required") as desk:
        with pytest.raises(telephone.TelephoneError):
            await desk.sip.dial(address, ring_s=5)
        assert desk.agents == []


class Loud:
    """A connection that passes on no silence; an echo of silence would never catch up."""

    def __init__(self, connection):
        self.connection = connection
        self.run = connection.run

    def transmit(self, command):
        frame = getattr(command, "frame", None)
        if frame is None or np.abs(frame.samples).max() > 300:
            self.connection.transmit(command)


class EchoModel(ScriptedRealtime):
    def open(self, setup):
        return Loud(super().open(setup))


def echo_agent(edge):
    return Agent(edge=edge, llm=EchoModel(echo=True), barge_in=BargeInPolicy(enabled=False))


async def round_trips(call, count):
    """Return how many ms after it was sent the echo of each click came."""
    trips = []
    for _ in range(count):
        call.packets.clear()
        call.sent_at.clear()
        call.say(CLICK)
        await asyncio.sleep(0.35)
        if call.sent_at and (times := call.loud_times(3000)):
            trips.append(1000 * (times[0] - call.sent_at[0]))
    return trips


@pytest.mark.parametrize("loss", [0.0, 0.03])
async def test_an_echo_comes_back_in_time_also_after_a_stall(loss):
    async with serving() as desk, SipPeer(loss=loss) as peer:
        desk.sip._service._agents._make_agent = echo_agent
        call = await peer.call(desk.address)
        await asyncio.sleep(0.4)
        first = await round_trips(call, 3)
        await call.stall(0.3)
        await asyncio.sleep(0.6)
        later = await round_trips(call, 3)
        # An idle machine has 65 ms before and after. This one may be shared, and then the stack's
        # buffers hold up to 60 ms more; a backlog of the stall would be 300 ms.
        assert min(first) <= 190
        assert min(later) - min(first) <= 120
