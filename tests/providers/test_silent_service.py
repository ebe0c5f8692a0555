"""Every provider with a service that reads and answers pings, but sends no more events."""

import pytest

pytest.importorskip("websockets", reason="the openai extra is not installed")
pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from duologue.events import AgentTurnStartedEvent, ErrorEvent, RealtimeReconnectingEvent
from duologue.providers import aws, gemini, openai, qwen
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.simulators.faults import Fault, Stall
from duologue.testing import (
    GeminiSimulator,
    NovaSimulator,
    OpenAISimulator,
    QwenSimulator,
    run_virtual,
)
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, events_of, join_agent

QUICK = ReconnectPolicy(silence_s=4.0)


def _nova(simulator):
    keys = simulator.credentials
    return aws.Realtime(
        base_url=simulator.url,
        credentials=aws.Credentials(keys.access_key, keys.secret_key),
        vad=EnergyVAD(),
        reconnect=QUICK,
    )


PROVIDERS = {
    "openai": (
        OpenAISimulator,
        lambda s: openai.Realtime(
            transport="websocket", base_url=s.url, api_key=s.key, reconnect=QUICK
        ),
    ),
    "gemini": (
        GeminiSimulator,
        lambda s: gemini.Realtime(base_url=s.url, api_key=s.key, vad=EnergyVAD(), reconnect=QUICK),
    ),
    "qwen": (
        QwenSimulator,
        lambda s: qwen.Realtime(base_url=s.url, api_key=s.key, reconnect=QUICK),
    ),
    "nova": (NovaSimulator, _nova),
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_silent_service_is_reported_and_its_connection_replaced(name):
    simulate, make = PROVIDERS[name]

    async def main():
        async with simulate(replies=["One."] * 9, transcripts=["hello"] * 9) as simulator:
            phone = FakeEdge()
            async with join_agent(make(simulator), phone) as agent:
                await phone.be_silent(0.5)
                simulator.faults = [Fault(Stall("writing", 3600), at=1.0)]
                await phone.speak(1.0)
                await phone.be_silent(8)
                assert events_of(agent, RealtimeReconnectingEvent)
                answered = len(events_of(agent, AgentTurnStartedEvent))
                await phone.speak(1.0)
                await phone.be_silent(5)
                assert len(events_of(agent, AgentTurnStartedEvent)) > answered
                assert len(events_of(agent, RealtimeReconnectingEvent)) == 1

    run_virtual(main(), grace=0.0)


@pytest.mark.parametrize("name", PROVIDERS)
def test_idle_service_is_left_alone(name):
    simulate, make = PROVIDERS[name]

    async def main():
        async with simulate(replies=["One."] * 99, transcripts=["hello"] * 99) as simulator:
            phone = FakeEdge()
            async with join_agent(make(simulator), phone) as agent:
                await phone.be_silent(9)
                for _ in range(2):
                    await phone.speak(1.0)
                    await phone.be_silent(9)
                assert len(events_of(agent, AgentTurnStartedEvent)) == 2
                assert not events_of(agent, RealtimeReconnectingEvent)

    run_virtual(main(), grace=0.0)


@pytest.mark.parametrize("name", PROVIDERS)
def test_request_to_a_silent_service_is_fulfilled_by_the_next_connection(name):
    simulate, make = PROVIDERS[name]

    async def main():
        async with simulate(replies=["One."] * 9, transcripts=["hello"] * 9) as simulator:
            phone = FakeEdge()
            async with join_agent(make(simulator), phone) as agent:
                simulator.faults = [Fault(Stall("writing", 3600), at=0.5)]
                await phone.be_silent(1)
                speech = agent.simple_response("Count.")
                await phone.be_silent(9)
                assert speech.text == "One."
                assert len(events_of(agent, RealtimeReconnectingEvent)) == 1
                assert not events_of(agent, ErrorEvent)

    run_virtual(main(), grace=0.0)
