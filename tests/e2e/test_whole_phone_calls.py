"""A whole call of each carrier: greeting, question, barge-in, menu of keys, transfer.

One scenario for all: with a scripted model on each carrier, and with the built-in engine on Twilio
(with the others, the engine only takes time). Afterwards the recording, the history, and what the
carrier has played have to agree.
"""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

from duologue import Agent, AudioFrame
from duologue.edges import telephone
from duologue.edges.audio_file import read_audio
from duologue.events import DigitEvent, InterruptionEvent, UserTranscriptEvent
from duologue.items import AgentItem, UserItem
from duologue.observe import Recorder
from duologue.providers import local
from duologue.testing import (
    PlivoSimulator,
    Reply,
    ScriptedRealtime,
    TelnyxSimulator,
    TwilioSimulator,
    VonageSimulator,
    run_virtual,
)

URL = "https://talk.example.org"
KEY = "0123456789abcdef0123456789abcdef"
OPERATOR = "+15550009999"
SIMULATORS = {
    "twilio": TwilioSimulator,
    "telnyx": TelnyxSimulator,
    "plivo": PlivoSimulator,
    "vonage": VonageSimulator,
}
GREETING = "Good morning, this is the bakery."
MENU = (
    "For bread press one, for cakes press two, and for the person who bakes them both, "
    "early in the morning and with great care, please press nine."
)
SPEECH = Path(__file__).parents[1] / "data" / "speech"


def account(service):
    options = {"base_url": service.url}
    match service.name:
        case "twilio":
            return telephone.Twilio(URL, auth_token=KEY, account_sid="AC1", **options)
        case "plivo":
            return telephone.Plivo(URL, auth_token=KEY, auth_id="MA1", **options)
        case "telnyx":
            public = service.signing_key.public
            return telephone.Telnyx(URL, api_key=KEY, public_key=public, **options)
        case _:
            key = rsa.generate_private_key(65537, 2048)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            return telephone.Vonage(
                URL, signature_secret=KEY, application_id="app", private_key=pem, **options
            )


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def loud_seconds(track, rate):
    size = rate // 50
    frames = np.abs(track[: len(track) // size * size].astype(int)).reshape(-1, size).max(axis=1)
    return np.count_nonzero(frames > 500) * 0.02


async def whole_call(kind, make_model, question, words, folder):
    """Make the call; return the agent, its events, the caller and the orders of the REST."""
    agents, events, keys = [], [], []

    async def answer(edge):
        """Conduct the call."""
        agent = Agent(
            edge=edge,
            llm=make_model(),
            instructions="You work in a bakery. Answer in one short sentence.",
            recorder=Recorder(folder),
        )
        agents.append(agent)
        agent.events.tap(events.append)
        async with agent.join():
            await agent.say(GREETING)
            await until(lambda: any(isinstance(e, InterruptionEvent) for e in events))
            digits = asyncio.ensure_future(agent.digits(max=1, within=30))
            await asyncio.sleep(1.5)
            agent.interrupt()  # The person has said something; the menu has to be heard.
            await agent.say("Press nine for a person.", interruptible=False)
            keys.append(await digits)
            await agent.say("One moment.")
            await agent.edge.transfer(OPERATOR)
            await agent.finish()

    app = Starlette()
    async with SIMULATORS[kind](URL, key=KEY, app=app) as service:
        telephone.mount(app, answer, account(service))
        call = service.caller()
        service.register(call)
        async with call:
            await until(lambda: call.played_samples > call.rate)
            await until(lambda: agents and not agents[0]._live.session.playout.active)
            await call.listen(0.5)
            await call.say(question)
            await until(lambda: any(e.final for e in of(events, UserTranscriptEvent)))
            await until(lambda: replies(agents[0]) > 1 and agents[0]._live.session.is_idle)
            menu = agents[0].say(MENU)
            await until(lambda: menu.state == "playing")
            await call.listen(1.5)
            await call.say(words)
            await until(lambda: of(events, InterruptionEvent))
            await call.listen(2.5)
            await until(lambda: menu.done)
            call.press("9")
            await asyncio.wait_for(call.ended.wait(), 60)
        await until(lambda: agents[0]._live is None)
        return agents[0], events, keys, call, service.orders


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def replies(agent):
    return sum(isinstance(item, AgentItem) for item in agent.conversation.items)


def check(agent, events, keys, call, orders):
    """Compare what each side knows of the call."""
    assert keys == ["9"]
    assert [event.digit for event in of(events, DigitEvent)] == ["9"]
    assert call.violations == []
    assert [order.what for order in orders if order.what != "answer"] == ["transfer"]
    assert OPERATOR in orders[-1].detail or OPERATOR[1:] in orders[-1].detail
    history = [(type(item), item.text) for item in agent.conversation.items]
    said = [text for kind, text in history if kind is AgentItem]
    assert said[0] == GREETING
    assert said[-1] == "One moment."
    cut = next(text for text in said if text and text != MENU and MENU.startswith(text[:12]))
    assert MENU.startswith(cut)
    assert any(kind is UserItem and text for kind, text in history)
    # The recording has the same history, and as much of the agent as the carrier has played.
    folder = agent.recorder.path
    facts = json.loads((folder / "call.json").read_text())
    assert [item.get("text") for item in facts["history"]] == [text for _, text in history]
    audio, rate = soundfile.read(folder / "audio.ogg", dtype="int16")
    assert loud_seconds(audio[:, 0], rate) > 1.0
    played = call.played
    assert loud_seconds(audio[:, 1], rate) == pytest.approx(
        loud_seconds(played.samples, played.rate), abs=0.6
    )


def tone(seconds, rate=16000):
    period = np.repeat([8000, -8000], rate // 400).astype(np.int16)
    return AudioFrame(np.tile(period, round(seconds * 200)), rate)


@pytest.mark.parametrize("kind", list(SIMULATORS))
def test_each_carrier_with_a_scripted_model(kind, tmp_path):
    def make_model():
        return ScriptedRealtime(
            [Reply("We open at seven.", seconds=1.5)], transcripts=["when do you open", "stop"]
        )

    check(*run_virtual(whole_call(kind, make_model, tone(1.0), tone(1.0), tmp_path)))


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["twilio"])
def test_a_carrier_with_the_built_in_engine(kind, tmp_path):
    question = read_audio(SPEECH / "austen-0930.wav")
    words = read_audio(SPEECH / "austen-0880.wav")
    found = run_virtual(whole_call(kind, lambda: local.Realtime("tiny"), question, words, tmp_path))
    check(*found)
    asked = next(e.text for e in of(found[1], UserTranscriptEvent) if e.final)
    assert "amiable" in asked
