"""Whole calls of each carrier: its simulator calls an app whose agent follows a script."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
from starlette.applications import Starlette

from duologue import Agent, AudioFrame
from duologue.edges import telephone
from duologue.errors import ConfigError, ErrorKind, SessionError, UnsupportedError
from duologue.events import DigitEvent, InterruptionEvent, UserTranscriptEvent
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.simulators.telephone.caller import PhoneCaller
from duologue.testing import (
    CallRejectedError,
    LineFaults,
    PlivoCaller,
    Reply,
    ScriptedRealtime,
    TelnyxCaller,
    TelnyxKey,
    TwilioCaller,
    VonageCaller,
    virtual_time,
)

URL = "https://talk.example.org"
TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105


def voice(seconds, rate=16000):
    period = np.repeat([8000, -8000], rate // 400).astype(np.int16)
    return AudioFrame(np.tile(period, round(seconds * 200)), rate)


class Desk:
    """An app with a telephone, and what its calls did."""

    def __init__(self, kind, make_model, conduct=None, **options):
        self.make_model = make_model
        self.conduct = conduct
        self.agents = []
        self.events = []
        self.tasks = []
        self.answers = []
        self.app = Starlette()
        self.key = TelnyxKey()
        carriers = {
            "twilio": lambda: telephone.Twilio(URL, auth_token=TOKEN),
            "plivo": lambda: telephone.Plivo(URL, auth_token=TOKEN),
            "vonage": lambda: telephone.Vonage(URL, signature_secret=TOKEN),
            "telnyx": lambda: telephone.Telnyx(
                URL, api_key=TOKEN, public_key=self.key.public, connection_id="1"
            ),
        }
        self.kind = kind
        self.carrier = carriers[kind]()
        self.options = options
        telephone.mount(self.app, self.make_agent, self.carrier, max_calls=4)

    def make_agent(self, edge):
        agent = Agent(edge=edge, llm=self.make_model())
        agent.events.tap(self.events.append)
        self.agents.append(agent)
        if self.conduct is not None:
            self.tasks.append(asyncio.ensure_future(self._conduct(agent)))
        return agent

    async def _conduct(self, agent):
        while agent._live is None or not agent._live.person_joined.is_set():
            await asyncio.sleep(0.01)
        await agent.llm.ready()
        await self.conduct(agent)

    def caller(self, **options):
        options = {"app": self.app} | options
        match self.kind:
            case "twilio":
                return TwilioCaller(URL, auth_token=TOKEN, **options)
            case "plivo":
                return PlivoCaller(URL, auth_token=TOKEN, **options)
            case "vonage":
                return VonageCaller(URL, signature_secret=TOKEN, **options)
            case "telnyx":
                return TelnyxCaller(URL, key=self.key, **options)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


KINDS = ["twilio", "telnyx", "plivo", "vonage"]


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """Each carrier; Telnyx's app answers a call by REST, which goes to the caller directly."""

    async def send(call_request, *, gone=()):
        caller = CALLERS[-1]
        match call_request.url.rpartition("/")[2]:
            case "answer":
                assert caller.answer(call_request.json) == ""
            case "hangup":
                await caller.ended.wait()  # The app has closed the socket before.
            case other:
                raise AssertionError(other)
        return {}

    CALLERS.clear()
    monkeypatch.setattr("duologue.edges.telephone.telnyx.send", send)
    return request.param


CALLERS: list[PhoneCaller] = []


@asynccontextmanager
async def calling(desk, **options):
    caller = desk.caller(**options)
    CALLERS.append(caller)
    async with caller:
        yield caller
    await asyncio.gather(*desk.tasks)


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@virtual_time
async def test_a_whole_call(kind):
    typed = []

    async def conduct(agent):
        await agent.say("Good morning.")
        typed.append(await agent.digits(max=4, end="#", within=30))
        await agent.say("Goodbye.")
        await agent.edge.hang_up()

    desk = Desk(
        kind,
        lambda: ScriptedRealtime(
            [Reply("It is noon, and the sun is out.", seconds=3.0)],
            transcripts=["what time is it", "stop"],
        ),
        conduct,
    )
    async with calling(desk, caller="+15550001111", called="+15552223333") as call:
        await until(lambda: call.played_samples > call.rate // 2)  # the greeting
        await call.listen(1)
        await call.say(voice(1.0))
        await until(lambda: desk.of(UserTranscriptEvent))
        await until(lambda: call.queued_ms > 0)
        await call.listen(1)
        await call.say(voice(1.0))
        await until(lambda: desk.of(InterruptionEvent))
        await call.listen(1)
        call.press("12#")
        await asyncio.wait_for(call.ended.wait(), 20)
    agent = desk.agents[0]
    assert agent.edge.call.caller == "+15550001111"
    assert agent.edge.call.called == "+15552223333"
    assert agent.edge.call.id == call.call_id
    assert [event.digit for event in desk.of(DigitEvent)] == ["1", "2", "#"]
    assert typed == ["12"]
    assert call.violations == []
    assert call.clears == 1
    cut = desk.of(InterruptionEvent)[0]
    assert cut.quality == "confirmed"
    assert 500 < cut.played_ms < 3000
    words = [item.text for item in agent.conversation.items]
    assert words[0] == "Good morning."
    assert words[-1] == "Goodbye."
    assert not agent.edge.caller_left


@pytest.mark.parametrize(
    ("kind", "marks"),
    [*((kind, "returned") for kind in KINDS), ("twilio", "never")],
    indirect=["kind"],
)
@virtual_time
async def test_what_was_heard_is_never_claimed_too_much(kind, marks):
    over, under = [], []
    rng = np.random.default_rng(4)
    caller = []

    async def conduct(agent):
        call = caller[0]
        for _ in range(200):
            base = call.played_samples
            agent.say("a" * 60)
            await asyncio.sleep(float(rng.uniform(0.15, 0.7)))
            truth = (call.played_samples - base) * 1000 / call.rate
            agent.interrupt()
            claim = desk.of(InterruptionEvent)[-1].played_ms
            over.append(claim - truth)
            under.append(truth - claim)
            await asyncio.sleep(0.12)

    desk = Desk(kind, ScriptedRealtime, conduct)
    faults = LineFaults(delay_ms=35, marks_after_clear=marks)
    caller.append(desk.caller(faults=faults))
    CALLERS.append(caller[0])
    async with caller[0]:
        await until(lambda: len(over) == 200, 1000)
    assert max(over) <= 0
    assert max(under) <= 200
    assert np.median(under) > 0  # so the figures above are of speeches that were playing
    edge = desk.agents[0].edge
    assert edge.counters["clears"] == 201  # the end of the call is one, too
    assert edge.counters["stale_marks"] > 100 or marks == "never"
    assert edge.counters["unknown_marks"] == 0
    assert caller[0].violations == []


@virtual_time
async def test_after_an_interruption_the_next_message_is_the_clear(kind):
    sent = []

    async def conduct(agent):
        await asyncio.sleep(0.1)
        agent.say("a" * 60)
        await asyncio.sleep(1.0)
        before = len(caller.orders)
        agent.interrupt()
        await asyncio.sleep(0.5)
        sent.extend([*caller.orders][before:])

    desk = Desk(kind, ScriptedRealtime, conduct)
    caller = desk.caller()
    CALLERS.append(caller)
    async with caller:
        await until(lambda: sent)
    assert [type(order).__name__ for order in sent] == ["ClearQueue"]
    assert caller.queued_ms == 0


@virtual_time
async def test_an_unsigned_socket_costs_nothing(kind):
    desk = Desk(kind, ScriptedRealtime)
    caller = desk.caller()
    CALLERS.append(caller)
    url, parameters = await caller.call_webhook()
    caller.socket_headers = lambda url: {}
    with pytest.raises(CallRejectedError) as refused:
        await caller.connect(url, parameters)
    assert refused.value.status == 403
    assert desk.agents == []


@virtual_time
async def test_an_unsigned_webhook_is_refused(kind):
    desk = Desk(kind, ScriptedRealtime)
    caller = desk.caller()
    caller._transport = Unsigned(caller._transport)
    with pytest.raises(CallRejectedError) as refused:
        await caller.call_webhook()
    assert refused.value.status == 403


class Unsigned:
    """Sends requests without the carrier's headers."""

    def __init__(self, transport):
        self.transport = transport

    async def request(self, method, url, headers, body):
        kept = {"content-type": headers["content-type"]}
        return await self.transport.request(method, url, kept, body)


@virtual_time
async def test_a_signed_socket_without_a_webhook_of_ours_gets_no_agent():
    desk = Desk("twilio", ScriptedRealtime)
    caller = desk.caller()
    await caller.connect(desk.carrier.stream_url, {"duologue": "AAAA"})
    await asyncio.wait_for(caller.ended.wait(), 10)
    await caller.hang_up()
    assert desk.agents == []


@virtual_time
async def test_a_token_serves_no_other_call():
    desk = Desk("twilio", ScriptedRealtime)
    url, parameters = await desk.caller().call_webhook()
    other = desk.caller()
    await other.connect(url, parameters)
    await asyncio.wait_for(other.ended.wait(), 10)
    await other.hang_up()
    assert desk.agents == []


@virtual_time
async def test_the_call_after_the_last_place_is_refused_as_busy(kind):
    desk = Desk(kind, ScriptedRealtime)
    limiter = next(route for route in desk.app.routes).endpoint.__self__._limiter
    limiter.sessions = 4
    caller = desk.caller()
    CALLERS.append(caller)
    if kind == "telnyx":
        return  # Refused by REST; see test_phone_rest.py
    with pytest.raises(CallRejectedError, match="did not connect"):
        await caller.call_webhook()


@virtual_time
async def test_a_lost_socket_ends_the_call(kind):
    desk = Desk(kind, lambda: ScriptedRealtime([Reply("Hello.")]))
    async with calling(desk) as call:
        await call.listen(0.5)
        call.lose_connection()
    await until(lambda: not desk.agents[0]._live)
    assert desk.agents[0].edge.caller_left
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.mark.parametrize("kind", ["twilio", "telnyx"], indirect=True)
@virtual_time
async def test_media_that_come_late_and_in_disorder_are_put_right(kind):
    desk = Desk(kind, lambda: ScriptedRealtime([Reply("Noon.")], transcripts=["what time is it"]))
    reorder = 0.2 if kind == "telnyx" else 0.0  # Twilio keeps the order
    faults = LineFaults(jitter_ms=120, reorder=reorder, lost=0.03)
    async with calling(desk, faults=faults) as call:
        await call.listen(0.5)
        await call.say(voice(1.0))
        await until(lambda: call.played_samples > 0)
        await call.listen(1)
    edge = desk.agents[0].edge
    assert edge.counters["lost_frames"] > 0
    assert edge.counters["late_chunks"] == 0
    received = desk.agents[0].llm.received_samples / desk.agents[0].llm.capabilities.input_rate
    assert abs(received - call._chunk * 0.02) < 0.5  # what was lost is filled with silence


@virtual_time
async def test_parameters_reach_make_agent_and_a_transfer_needs_the_keys_of_the_rest():
    desk = Desk("twilio", ScriptedRealtime)
    async with calling(desk, parameters={"lang": "en"}):
        await until(lambda: desk.agents)
        edge = desk.agents[0].edge
        assert edge.call.parameters == {"lang": "en"}
        with pytest.raises(UnsupportedError, match="REST"):
            await edge.transfer("+15550009999")
        with pytest.raises(ConfigError, match="digits"):
            await edge.send_digits("hello")


@virtual_time
async def test_a_call_shares_the_limit_of_the_page():
    app = create_app(lambda edge: None, ServerConfig(max_sessions=1, public_url=URL))
    telephone.mount(
        app,
        lambda edge: Agent(edge=edge, llm=ScriptedRealtime()),
        telephone.Twilio(URL, auth_token=TOKEN),
    )
    first = TwilioCaller(URL, auth_token=TOKEN, app=app)
    async with first:
        await first.listen(0.2)
        assert app.state.calls.sessions == 1
        with pytest.raises(CallRejectedError, match="busy"):
            await TwilioCaller(URL, auth_token=TOKEN, app=app).call_webhook()
    assert app.state.calls.sessions == 0


def test_bad_arguments_are_refused_with_a_sentence():
    with pytest.raises(ConfigError, match="https"):
        telephone.Twilio("http://talk.example.org", auth_token=TOKEN)
    with pytest.raises(ConfigError, match="TWILIO_AUTH_TOKEN"):
        telephone.Twilio(URL)
    with pytest.raises(ConfigError, match="carrier must be"):
        telephone.mount(Starlette(), lambda edge: None, "twilio")
    with pytest.raises(ConfigError, match="make_agent must be"):
        telephone.routes("agent", telephone.Twilio(URL, auth_token=TOKEN))
    assert TOKEN not in repr(telephone.Twilio(URL, auth_token=TOKEN))


@virtual_time
async def test_speaking_returns_when_the_app_ends_the_call(kind):
    async def conduct(agent):
        await asyncio.sleep(0.5)
        await agent.edge.hang_up()

    desk = Desk(kind, ScriptedRealtime, conduct)
    async with calling(desk) as caller, asyncio.timeout(20):
        await caller.say(voice(60))
        assert caller.ended.is_set()
        await caller.say(voice(1))


@virtual_time
async def test_speaking_returns_when_the_caller_or_the_network_ends_the_call(kind):
    for end in (PhoneCaller.hang_up, PhoneCaller.lose_connection):
        async with calling(Desk(kind, ScriptedRealtime)) as caller, asyncio.timeout(20):
            speaking = asyncio.ensure_future(caller.say(voice(60)))
            await asyncio.sleep(0.5)
            ended = end(caller)
            if ended is not None:
                await ended
            await speaking


@virtual_time
async def test_an_agent_that_can_not_be_made_closes_the_stream_as_failed(kind):
    def make_model():
        raise RuntimeError("no model")

    async with calling(Desk(kind, make_model)) as caller:
        await asyncio.wait_for(caller.ended.wait(), 5)
        assert caller.close_code == 1011


class Offline(ScriptedRealtime):
    """A model that cannot be reached."""

    async def prepare(self, setup):
        raise SessionError("the model is not there", kind=ErrorKind.FATAL)


@virtual_time
async def test_an_agent_that_can_not_join_closes_the_stream_as_failed(kind):
    async with calling(Desk(kind, Offline)) as caller:
        await asyncio.wait_for(caller.ended.wait(), 5)
        assert caller.close_code == 1011


@virtual_time
async def test_a_socket_without_a_start_takes_no_place():
    desk = Desk("twilio", ScriptedRealtime)
    limiter = desk.app.routes[0].endpoint.__self__._limiter
    headers = desk.caller().socket_headers(desk.carrier.stream_url)
    stranger = await desk.caller()._transport.connect(desk.carrier.stream_url, headers)
    await asyncio.sleep(1)
    assert limiter.sessions == 0
    assert await stranger.receive() is None
    assert stranger.close_code == 1008
    await stranger.close()


@virtual_time
async def test_the_program_is_told_of_calls_and_a_carrier_gets_an_ordinary_end():
    ends, endings, agents = [], [], []

    def make_agent(edge):
        agents.append(Agent(edge=edge, llm=ScriptedRealtime()))
        return agents[-1]

    async def on_end(end):
        ends.append(end)

    app = create_app(
        make_agent,
        ServerConfig(public_url=URL),
        on_end=on_end,
        on_ending=endings.append,
        telephone=[telephone.Twilio(URL, auth_token=TOKEN)],
    )
    async with TwilioCaller(URL, auth_token=TOKEN, app=app) as caller:
        await until(lambda: agents and agents[0].llm.connected)
        [call] = app.calls.summaries()
        state = app.calls.ask_own(call["id"], {"do": "show"}).body["state"]
        assert state["counters"]["malformed_messages"] == 0
        await app.drain(4, warn_s=2)
        await asyncio.wait_for(caller.ended.wait(), 5)
        assert caller.close_code == 1000
    assert [(ending.edge, ending.seconds) for ending in endings] == [(agents[0].edge, 2)]
    assert [(end.agent, end.error) for end in ends] == [(agents[0], None)]
