"""A simulator of Twilio that is not ours, as a judge of what we send and when.

It does not sign the upgrade, so the account in this test lets sockets in without a signature; the
token, which our webhook would have given, still names the call.
"""

import numpy as np
import pytest
from starlette.applications import Starlette
from streamdouble.chaos import Impairments
from streamdouble.session import SessionConfig

from duologue import Agent, _g711
from duologue.edges import telephone
from duologue.events import AgentTurnEndedEvent
from duologue.testing import Reply, ScriptedRealtime
from served_app import on_loopback

TOKEN = "0123456789abcdef"  # noqa: S105


class UnsignedTwilio(telephone.Twilio):
    """An account whose sockets need no signature."""

    def check_socket(self, headers):
        return True


CARRIER = UnsignedTwilio("https://talk.example.org", auth_token=TOKEN)


@pytest.fixture(params=[Impairments(), Impairments(loss=0.05, jitter_ms=30)])
def streamdouble_config(request):
    call = telephone.PhoneCall(carrier="twilio", id="", parameters={"lang": "en"})
    return SessionConfig(
        response_timeout_s=4,
        quiet_period_s=0.7,
        max_drain_s=5,
        custom_parameters={"duologue": CARRIER.sign(call)},
        impairments=request.param,
    )


def frames(seconds, level):
    period = np.repeat([level, -level], 10).astype(np.int16)
    data = _g711.encode(np.tile(period, round(seconds * 400)), "mulaw")
    return [data[at : at + 160] for at in range(0, len(data), 160)]


async def test_it_finds_nothing_wrong(simulated_call):
    agents, events = [], []

    def make_agent(edge):
        agent = Agent(edge=edge, llm=ScriptedRealtime([Reply("Good morning.", seconds=1.0)]))
        agent.events.tap(events.append)
        agents.append(agent)
        return agent

    app = Starlette()
    telephone.mount(app, make_agent, CARRIER, max_calls=1)
    async with on_loopback(app) as host:
        report = await simulated_call(
            f"ws://{host}/telephone/twilio/media", frames=frames(0.8, 8000) + frames(1.5, 0)
        )
    assert report.passed
    assert report.spoke
    assert report.time_to_first_audio_ms < 8000  # the speech itself takes a second and more
    assert agents[0].edge.call.parameters == {"lang": "en"}
    assert agents[0].edge.counters["unknown_marks"] == 0
    ended = [event for event in events if isinstance(event, AgentTurnEndedEvent)]
    assert [event.interrupted for event in ended] == [False]
